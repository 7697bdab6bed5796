"""The part of the page about rounds of iterative pruning: score by share of zeros, a line for each way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multipress.report.dissection_lines import Series, legend_html, lines_svg
from multipress.report.sections import html_row, html_table
from multipress.report.text import NONE, escaped, points_text

__all__ = ["rounds_section", "way_name", "with_ends"]

Row = Mapping[str, Any]
_NOTE = (
    "Each round takes weights away from what the last one left and trains again. The control takes as many at random. "
    "Where the learning rate is rewound each round trains on, so that dense is no bar: the same round with nothing "
    "pruned is. "
    "Shares are of the weights that may be pruned; bars are 95 % intervals over validation rows, and over seeds where "
    "there are several."
)
_HEAD = ("round", "zeros", "of all", "score", "interval")
_DIFFERENCES = {"change": "less dense", "less_random": "less random", "less_unpruned": "less unpruned"}
_NAMES = {"": "dense", "none": "nothing pruned"}


def way_name(row: Row) -> str:
    """Such as `magnitude`, whose learning rate is rewound, or `magnitude, weights rewound`; `dense` for none."""
    parts = [
        _NAMES.get(row["importance"], row["importance"]),
        "weights rewound" if row["rewind"] == "weights" else "",
        row["settings"],
    ]
    return ", ".join(filter(None, parts))


def rounds_section(rounds: Sequence[Row]) -> str:
    """For each model and task a figure and the numbers; empty where nothing was pruned in rounds."""
    places = dict.fromkeys((row["model"], row["task"]) for row in rounds)
    parts = []
    heads = [head for name in _DIFFERENCES.values() for head in (name, "interval")]
    for model, task in places:
        own = [row for row in rounds if (row["model"], row["task"]) == (model, task)]
        series = _series(own)
        figure = (
            lines_svg(series, "score, in points", "zeros, % of what may be pruned")
            if any(one.points for one in series)
            else ""
        )
        legend = legend_html([one.name for one in series])
        lines = [html_row([way_name(row), *_cells(row)], 1) for row in own]
        table = html_table(["way", *_HEAD, *heads], lines, 1)
        parts.append(f'<h3>{escaped(f"{model}, {task}")}</h3>{legend}<div class="panels">{figure}</div>{table}')
    if not parts:
        return ""
    return f'<section><h2>Pruned in rounds</h2><p class="note">{_NOTE}</p>{"".join(parts)}</section>'


def with_ends(row: Row, name: str) -> str:
    """A difference in points with its interval, such as `+0.40 (+0.18 to +0.64)`."""
    if row[name] is None:
        return NONE
    ends = row[f"{name}_interval"]
    return points_text(row[name]) + (f" ({_ends(ends, signed=True)})" if ends else "")


def _cells(row: Row) -> list[str]:
    texts = [str(row["round"]), *(_share(row[name]) for name in ("sparsity_prunable", "sparsity"))]
    texts += [f"{100 * row['score']:.2f}", _ends(row["interval"], signed=False)]
    for name in _DIFFERENCES:
        texts += [NONE if row[name] is None else points_text(row[name]), _ends(row[f"{name}_interval"], signed=True)]
    return texts


def _share(share: float | None) -> str:
    return NONE if share is None else f"{share:.1%}"


def _ends(ends: Sequence[float] | None, *, signed: bool) -> str:
    if ends is None:
        return NONE
    return " to ".join(points_text(end) if signed else f"{100 * end:.2f}" for end in ends)


def _series(rows: Sequence[Row]) -> list[Series]:
    """A line for each way that prunes, from the dense run on."""
    dense = [row for row in rows if not row["importance"]]
    ways = dict.fromkeys(way_name(row) for row in rows if row["importance"] not in ("", "none"))
    series = []
    for number, way in enumerate(ways):
        points = []
        for row in [*dense, *(row for row in rows if way_name(row) == way)]:
            if row["sparsity_prunable"] is not None:
                ends = row["interval"] or (row["score"], row["score"])
                points.append((100 * row["sparsity_prunable"], *(100 * value for value in (row["score"], *ends))))
        series.append(Series(way, number, points))
    return series
