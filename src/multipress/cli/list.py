"""`multipress list methods|models|tasks`: what there is to choose from."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer

__all__ = ["app", "methods", "models", "tasks"]

app = typer.Typer(
    help="List the methods, models or tasks that there are.", no_args_is_help=True, rich_markup_mode=None
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def methods(as_json: AsJson = False) -> None:
    """Show the card of every compression method."""
    from multipress.methods import list_methods, method_card

    cards = [method_card(name) for name in list_methods()]
    if as_json:
        typer.echo(json.dumps(cards, indent=2))
        return
    typer.echo("\n\n".join(f"{card['name']}\n{'=' * len(card['name'])}\n{card['card']}" for card in cards))


@app.command()
def models(as_json: AsJson = False) -> None:
    """Show the models that have a short name."""
    from multipress.models import list_models

    _print_rows([asdict(row) if is_dataclass(row) else dict(row) for row in list_models()], as_json)


@app.command()
def tasks(as_json: AsJson = False) -> None:
    """Show the registered tasks."""
    from multipress.tasks import list_tasks

    _print_rows([{"name": name} for name in list_tasks()], as_json)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print a JSON list, or one line a row in columns of equal width."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    widths = {key: max(len(str(row[key])) for row in rows) for key in rows[0]} if rows else {}
    for row in rows:
        typer.echo("  ".join(str(row[key]).ljust(width) for key, width in widths.items()).rstrip())
