"""`multipress analyze DIR`: the cells of a study over seeds, the frontier, and what methods do together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["analyze"]


def analyze(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs, made by `study run`.")],
    study: Annotated[str, typer.Option(help="Only the cells of this study.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show score and size of every cell over seeds, the frontier, and whether size reductions multiply."""
    from multipress.analysis import analyze_cells
    from multipress.analysis.verdict import verdict
    from multipress.errors import StoreError
    from multipress.plain_text import plain
    from multipress.store import Store

    cells = Store(folder).cells(study)
    if not cells:
        raise StoreError(
            f"No study in {folder} has cells yet. See `multipress study status {folder}`, or run "
            f"`multipress study run SPEC.toml --runs {folder}`."
        )
    analysis = analyze_cells(cells)
    if as_json:
        typer.echo(json.dumps(analysis, indent=2, allow_nan=False))
        return
    _print_tables(analysis)
    for sentence in verdict(analysis):
        typer.echo(plain(sentence))


def _print_tables(analysis: Mapping[str, Any]) -> None:
    from rich.console import Console

    from multipress.plain_text import plain

    console = Console(highlight=False, markup=False, emoji=False)
    best = {(row["task"], row["model"], row["label"]) for row in analysis["frontier"]["weights_bytes"]}
    groups = analysis["groups"]
    for task in dict.fromkeys(group["task"] for group in groups):
        console.rule(plain(task) or "(unknown)", align="left", style="dim", characters="─")
        console.print(_table([group for group in groups if group["task"] == task], best))
        console.print()
    console.print(
        "* nothing is smaller and better. change: against dense, same model and seeds.\n"
        "file: model.safetensors. smaller: dense fp32 weights over file.",
        style="dim",
    )
    for cell in analysis["failed"]:
        name = f"{cell['model']} {cell['task']} {'+'.join(cell['methods']) or 'dense'} seed {cell['seed']}"
        console.print(plain(f"{cell['state']}: {cell['run_id']} {name}: {cell['why']}"), style="red")


def _table(groups: Sequence[Mapping[str, Any]], best: set[tuple[str, str, str]]) -> Table:
    """One row a group over seeds; a model's name stands above its rows, so that 80 columns are enough."""
    from rich.table import Table
    from rich.text import Text

    from multipress.report.table import shown_row

    columns = ("methods", "seeds", "score", "change", "ideal MB", "file MB", "smaller")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    longest = max(len(name) for group in groups for name in (group["model"], group["label"]))
    table.add_column("methods", overflow="fold", min_width=min(longest, 22))
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for model in dict.fromkeys(group["model"] for group in groups):
        own = [(group, shown_row(group)) for group in groups if group["model"] == model]
        table.add_row("", Text(own[0][1]["model"], style="bold"))
        for group, row in own:
            mark = "*" if (group["task"], group["model"], group["label"]) in best else ""
            table.add_row(mark, *(Text(row[name]) for name in columns))
    return table
