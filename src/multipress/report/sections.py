"""The parts of the page that are tables, as HTML. Every text from outside goes through `escaped`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multipress.analysis.cells import MEAN_TASK
from multipress.report.table import COLUMNS, shown_row
from multipress.report.text import NONE, change_text, escaped, megabytes

__all__ = ["budgets_section", "cells_section", "failed_section", "html_row", "html_table", "origin_section"]

_CELLS_NOTE = (
    "Mean ± standard deviation over seeds. Marked rows are on the frontier of their task: nothing is "
    "smaller and better. <em>Ideal</em> is the size in the paper, bits times weights left; "
    "<em>file</em> is the real one. <em>Smaller</em> is dense fp32 over file. Select a heading to sort."
)
_BUDGETS = (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000)
_NAMES = ("model", "task", "methods")
_HELP = {
    "score": "mean and standard deviation over seeds",
    "change": "against the dense control of the same model and seeds",
    "ideal MB": "bits times weights left, as in the paper",
    "file MB": "model.safetensors",
    "package MB": "all that must be shipped to predict",
    "smaller": "dense fp32 weights over the file",
}


def html_table(head: Sequence[str], rows: Sequence[str], names: int, sortable: bool = False) -> str:
    """A table whose first `names` columns are text; it scrolls sideways where it does not fit."""
    cells = []
    for i, name in enumerate(head):
        kind = ' class="text"' if i < names else ""
        title = f' title="{escaped(_HELP[name])}"' if name in _HELP else ""
        cells.append(f'<th scope="col"{kind}{title}>{escaped(name)}</th>')
    classes = ' class="sortable" id="cells"' if sortable else ""
    return (
        f'<div class="scroll" tabindex="0"><table{classes}><thead><tr>{"".join(cells)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def html_row(values: Sequence[str], names: int, classes: str = "", keys: Sequence[float | None] = ()) -> str:
    """One line; `keys` are the numbers to sort the columns after the names by."""
    cells = []
    for i, value in enumerate(values):
        if i < names:
            cells.append(f'<td class="text">{escaped(value)}</td>')
        else:
            key = keys[i - names] if i - names < len(keys) else None
            sort = "" if key is None else f' data-key="{key:.9g}"'
            cells.append(f"<td{sort}>{escaped(value)}</td>")
    kind = f' class="{classes}"' if classes else ""
    return f"<tr{kind}>{''.join(cells)}</tr>"


def budgets_section(data: Mapping[str, Any]) -> str:
    """Which combination for which budget: the best score below some round sizes.

    Args:
        data: What `page_data` gave.
    """
    points = [p for p in data["points"] if p["task"] == data["tasks"][0] and p["score"] is not None and p["weights"]]
    if not points:
        return ""
    smallest, best = min(p["weights"] for p in points), max(points, key=lambda p: (p["score"], -p["weights"]))
    rows = []
    for budget in _BUDGETS:
        if not smallest <= 1e6 * budget:
            continue
        winner = max((p for p in points if p["weights"] <= 1e6 * budget), key=lambda p: (p["score"], -p["weights"]))
        ends = winner["ends"]
        sure = NONE if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
        name = [f"{budget:g} MB", data["models"][winner["model"]], winner["label"]]
        score = [f"{winner['score']:.4f}", sure, change_text({"mean": winner["score"] - best["score"]})]
        show = f'<button type="button" class="small" data-budget="{1e6 * budget:g}">Show</button>'
        row = html_row([*name, megabytes(winner["weights"]), *score], 3)
        rows.append(row.replace("</tr>", f'<td class="screen">{show}</td></tr>'))
        if winner is best:
            break
    head = ["at most", "model", "methods", "MB", "score", "interval", "from the best", ""]
    task = "means over tasks" if data["tasks"][0] == MEAN_TASK else f"task {data['tasks'][0]}"
    note = f"The best score whose weights file fits ({escaped(task)}); the interval is over rows and seeds."
    return (
        f'<section><h2>Which one for which budget?</h2><p class="note">{note}</p>{html_table(head, rows, 3)}</section>'
    )


def cells_section(analysis: Mapping[str, Any]) -> str:
    """All cells over seeds; those on the frontier are marked."""
    best = {(row["task"], row["model"], row["label"]) for row in analysis["frontier"]["weights_bytes"]}
    rows = []
    for group in analysis["groups"]:
        shown, sizes = shown_row(group), group["sizes"]
        is_best = (group["task"], group["model"], group["label"]) in best
        keys = [group["score"]["n"], group["score"]["mean"], group["change"]["mean"]]
        keys += [sizes["ideal_bytes"], sizes["weights_bytes"], sizes["package_bytes"], group["ratio"]]
        classes = "best" if is_best else "open" if group["num_failed"] else ""
        rows.append(html_row([shown[name] for name in COLUMNS], len(_NAMES), classes, keys))
    table = html_table(COLUMNS, rows, len(_NAMES), sortable=True)
    return (
        f'<section id="cells-section"><h2>All cells</h2><p class="note">{_CELLS_NOTE}</p><div class="controls">'
        '<label class="field">Search <input type="search" id="search" placeholder="model task methods"></label>'
        f'<span id="found" class="note" aria-live="polite">{len(rows)} rows</span>'
        '<button type="button" id="download">Download every run as CSV</button></div>'
        f"{table}{_means_table(analysis)}</section>"
    )


def _means_table(analysis: Mapping[str, Any]) -> str:
    """The numbers behind the chart of means over tasks; nothing with one task."""
    if len({group["task"] for group in analysis["groups"] if group["score"]["mean"] is not None}) < 2:
        return ""
    rows = []
    for one in analysis["means"]["rows"]:
        sure = NONE if one["interval"] is None else f"{one['interval'][0]:.4f} to {one['interval'][1]:.4f}"
        sizes = [one["sizes"].get(name) for name in ("ideal_bytes", "weights_bytes", "package_bytes")]
        shown = [NONE if size is None else megabytes(size) for size in sizes]
        score = [f"{one['score']:.4f}", sure, change_text({"mean": one["change"]})]
        rows.append(html_row([one["model"], one["label"], *score, *shown], 2))
    head = ["model", "methods", "score", "interval", "change", "ideal MB", "file MB", "package MB"]
    left = analysis["means"]["num_left_out"]
    note = f'<p class="note">{_counted(left, "combination")} not done on every task: in no mean.</p>' if left else ""
    return f"<details><summary>Means over tasks</summary>{note}{html_table(head, rows, 2)}</details>"


def failed_section(analysis: Mapping[str, Any]) -> str:
    """Cells without a result, and why; those that only wait are folded away."""
    failed = analysis["failed"]
    waiting = [cell for cell in analysis["cells"] if cell["state"] in ("pending", "running")]
    said = f"{_counted(len(failed), 'cell')} without a result. They are in no mean." if failed else "No cell failed."
    parts = [f"<section><h2>Failed cells</h2><p>{said}</p>"]
    if failed:
        parts.append(_open_table(failed, "open"))
    if waiting:
        rows = _open_table(waiting, "")
        parts.append(
            f"<details><summary>{_counted(len(waiting), 'cell')} still waiting or running</summary>{rows}</details>"
        )
    return f"{''.join(parts)}</section>"


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _open_table(cells: Sequence[Mapping[str, Any]], classes: str) -> str:
    rows = []
    for cell in cells:
        seed = NONE if cell["seed"] is None else str(cell["seed"])
        names = [cell["state"], cell["model"], cell["task"], cell["label"], cell["why"], cell["run_id"], seed]
        rows.append(html_row(names, 6, classes))
    return html_table(["state", "model", "task", "methods", "why", "run", "seed"], rows, 6)


def origin_section(studies: Mapping[str, Any], origin: Mapping[str, Sequence[Mapping[str, Any]]], command: str) -> str:
    """The studies as asked, versions, computers, and the command that made the page."""
    parts = [f"<section><h2>How it was made</h2><pre>{escaped(command)}</pre>"]
    for name, document in studies.items():
        parts.append(f"<h3>Study {escaped(name)}</h3>{_tree(document.get('spec', {}))}")
    for kind, title in (("versions", "Versions"), ("computer", "Computer")):
        for one in origin[kind]:
            count = f"{one['cells']} cells" if one["cells"] != 1 else "1 cell"
            facts = _tree(one["facts"]) if one["facts"] else "<p>not told by the artifacts</p>"
            parts.append(f"<h3>{title} <small>({count})</small></h3>{facts}")
    return f"{''.join(parts)}</section>"


def _tree(value: Any, depth: int = 0) -> str:
    """Nested settings as a list of names and values; what is nested deeper than six is one line of text."""
    if isinstance(value, Mapping) and value and depth < 6:
        items = "".join(
            f"<div><dt>{escaped(key)}</dt><dd>{_tree(one, depth + 1)}</dd></div>"
            for key, one in value.items()
            if one not in ("", [], ())  # what was not asked for
        )
        return f"<dl>{items}</dl>"
    if isinstance(value, (list, tuple)) and not any(isinstance(one, Mapping) for one in value):
        return escaped(", ".join(str(one) for one in value) or NONE)
    if isinstance(value, (list, tuple)) and depth < 6:
        return "".join(f'<div class="item">{_tree(one, depth + 1)}</div>' for one in value)
    return escaped(value)
