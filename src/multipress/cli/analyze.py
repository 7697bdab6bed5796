"""`multipress analyze DIR`: the cells of a study over seeds, the frontier, and what methods do together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from multipress.analysis import Outcome
    from multipress.store import Store

__all__ = ["analyze"]


def analyze(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs, made by `study run`.")],
    study: Annotated[str, typer.Option(help="Only the cells of this study.")] = "",
    resamples: Annotated[
        int, typer.Option(min=0, help="How often validation rows are drawn for the intervals; 0: none.")
    ] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show score and size of every cell, the frontier, what each method does, and whether size reductions multiply."""
    from multipress.analysis import analyze_cells
    from multipress.analysis.verdict import verdict
    from multipress.errors import StoreError
    from multipress.plain_text import plain
    from multipress.store import Store

    store = Store(folder)
    cells = store.cells(study)
    if not cells:
        raise StoreError(
            f"No study in {folder} has cells yet. See `multipress study status {folder}`, or run "
            f"`multipress study run SPEC.toml --runs {folder}`."
        )
    outcomes, unread = _outcomes(store, cells) if resamples else ({}, [])
    analysis = analyze_cells(cells, outcomes, resamples)
    if unread:
        typer.echo(plain(f"The intervals leave out {len(unread)} runs: {unread[0]}"), err=True)
    if as_json:
        typer.echo(json.dumps(analysis, indent=2, allow_nan=False))
        return
    _print_tables(analysis)
    for sentence in verdict(analysis):
        typer.echo(plain(sentence))


def _outcomes(store: Store, cells: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Outcome], list[str]]:
    """What each run that is done predicted, by its id, and why that of some cannot be read."""
    from multipress.errors import StoreError
    from multipress.measure import read_outcome

    outcomes, unread = {}, []
    for cell in cells:
        attempt = store.done(cell["run_id"])
        if attempt is None:
            continue
        try:
            outcomes[cell["run_id"]] = read_outcome(attempt)
        except StoreError as error:
            unread.append(str(error))
    return outcomes, unread


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
    _print_effects(console, analysis)
    for cell in analysis["failed"]:
        name = f"{cell['model']} {cell['task']} {'+'.join(cell['methods']) or 'dense'} seed {cell['seed']}"
        console.print(plain(f"{cell['state']}: {cell['run_id']} {name}: {cell['why']}"), style="red")


def _print_effects(console: Console, analysis: Mapping[str, Any]) -> None:
    """Each method's mean effect on the score, and what two or more do beyond the sum, with its interval."""
    from rich.table import Table

    rows = [row for row in analysis["intervals"]["rows"] if row["by"] == "all"]
    if not rows:
        return
    console.rule("effect on the score, in points", align="left", style="dim", characters="─")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("methods")
    for name in ("mean", "low", "high", "blocks"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = [f"{100 * row[key]:+.2f}" for key in ("mean", "low", "high")]
        table.add_row(" x ".join(row["levels"]), *numbers, str(row["num_blocks"]))
    console.print(table)
    console.print(
        "A x B: what both do beyond the sum. block: one model, task and seed.\n"
        f"low, high: {100 * analysis['intervals']['level']:g} % interval over validation rows; seeds may differ more.",
        style="dim",
    )
    console.print()


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
