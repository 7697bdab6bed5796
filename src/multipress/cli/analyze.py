"""`multipress analyze DIR`: the cells of a study over seeds, the frontier, and what methods do together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multipress.cli.results import DROP, RESAMPLES, Drop, Folder, Relative, Resamples, Study, analyze_store

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["analyze"]


def analyze(
    folder: Folder,
    study: Study = "",
    drop: Drop = DROP,
    relative: Relative = False,
    resamples: Resamples = RESAMPLES,
    csv: Annotated[Path | None, typer.Option(help="Also write every cell as CSV.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Also draw score against size in the layout of the paper's Figure 1: .svg, .png or .pdf."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show score and size of every cell, the frontier, what each method does, and whether size reductions multiply."""
    from multipress.analysis.verdict import verdict
    from multipress.durable import write_text
    from multipress.plain_text import plain
    from multipress.report.table import cells_csv

    _, analysis = analyze_store(folder, study, resamples, drop, relative)
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        write_text(csv, cells_csv(analysis["cells"]))
    if figure is not None:
        from multipress.report.paper_figure import write_paper_figure

        figure.parent.mkdir(parents=True, exist_ok=True)
        write_paper_figure(analysis["groups"], figure)
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
    _print_rounds(console, analysis["rounds"])
    _print_effects(console, analysis)
    _print_products(console, analysis["multiplicativity"])
    for cell in analysis["failed"]:
        name = f"{cell['model']} {cell['task']} {cell['label']} seed {cell['seed']}"
        console.print(plain(f"{cell['state']}: {cell['run_id']} {name}: {cell['why']}"), style="red")


def _print_rounds(console: Console, rounds: Sequence[Mapping[str, Any]]) -> None:
    """Score by share of zeros of what was pruned in rounds."""
    from multipress.plain_text import plain
    from multipress.report.rounds import way_name, with_ends

    for model, task in dict.fromkeys((row["model"], row["task"]) for row in rounds):
        console.rule(plain(f"{model}, {task}: pruned in rounds"), align="left", style="dim", characters="─")
        own = [row for row in rounds if (row["model"], row["task"]) == (model, task)]
        # Rounds train on, so that the dense run is no bar where there is a better one.
        has_bar = any(row["less_unpruned"] is not None for row in own)
        name = "less unpruned" if has_bar else "less dense"
        table = _plain_table(("way", "round", "zeros", "points", name, "less random"))
        for row in own:
            zeros = "" if row["sparsity_prunable"] is None else f"{row['sparsity_prunable']:.1%}"
            shown = [str(row["round"]), zeros, f"{100 * row['score']:.2f}"]
            has_own = row["less_unpruned"] is not None
            less = with_ends(row, "less_unpruned" if has_own else "change")
            less += " d" if has_bar and not has_own and row["change"] is not None else ""
            table.add_row(way_name(row), *shown, less, with_ends(row, "less_random"))
        console.print(table)
        console.print("zeros: of the weights that may be pruned. random: as many zeros at random.", style="dim")
        if has_bar:
            console.print("unpruned: the same training with nothing pruned; d: less dense.", style="dim")
        console.print()


def _plain_table(names: Sequence[str], num_texts: int = 1) -> Table:
    """A table whose first columns are texts and whose others are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for position, name in enumerate(names):
        table.add_column(name, justify="left" if position < num_texts else "right", no_wrap=position >= num_texts)
    return table


def _print_effects(console: Console, analysis: Mapping[str, Any]) -> None:
    """Each method's mean effect on the score, and what two or more do beyond the sum, with its interval."""
    from multipress.report.text import points_text

    rows = [row for row in analysis["intervals"]["rows"] if row["by"] == "all"]
    if not rows:
        return
    fitted = {tuple(row["levels"]): row for row in analysis["mixed_model"]["rows"]}
    console.rule("effect on the score, in points", align="left", style="dim", characters="─")
    table = _plain_table(("methods", "mean", "low", "high", "p", "mixed", "blocks", "seeds+"))
    for row in rows:
        numbers = [points_text(row[key]) for key in ("mean", "low", "high")]
        mixed = fitted.get(tuple(row["levels"]))
        more = "" if row["more_seeds"] is None else str(row["more_seeds"])
        shown = [*numbers, f"{row['p_holm']:.3f}", points_text(mixed["mean"]) if mixed else ""]
        table.add_row(" x ".join(row["levels"]), *shown, str(row["num_blocks"]), more)
    console.print(table)
    console.print(
        "A x B: what both do beyond the sum. block: one model, task and seed. p: corrected (Holm).\n"
        f"low, high: {100 * analysis['intervals']['level']:g} % interval over {_covered(rows)}. mixed: by the mixed "
        "model.\nseeds+: how many seeds more would settle the sign.",
        style="dim",
    )
    console.print()


def _covered(rows: Sequence[Mapping[str, Any]]) -> str:
    return min((str(row["covers"]) for row in rows), key=len)


def _print_products(console: Console, factors: Mapping[str, Any]) -> None:
    """Observed over product by both estimators, on both sizes."""
    from multipress.analysis.cells import short_name
    from multipress.analysis.verdict import told_ends, told_ratio

    if not factors["products"]:
        return
    kind = " of the score" if factors["relative"] else ""
    console.rule(
        f"size reduction together over the product of each, drop {factors['tolerance']:g}{kind}",
        align="left",
        style="dim",
        characters="─",
    )
    table = _plain_table(("methods", "size", "estimator", "ratio", "net", "low", "high", "pairs", "verdict"), 3)
    for one in factors["products"]:
        numbers = ["" if one[key] is None else f"{one[key]:.2f}" for key in ("ratio", "net_ratio")]
        _, low, high = told_ratio(one)
        numbers += told_ends(low, high) if one["covers"] else ("", "")
        names = ["+".join(map(short_name, one["methods"])), one["size"].removesuffix("_bytes"), one["estimator"]]
        total = one["num_values"] + one["num_left_out"]
        table.add_row(*names, *numbers, f"{one['num_values']}/{total}", one["verdict"])
    console.print(table)
    console.print(
        "net: what the drop alone gives dense models is divided out. pairs: models and tasks whose factors are all "
        "values, not bounds.",
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
