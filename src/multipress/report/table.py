"""The table of all cells as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from multipress.plain_text import plain
from multipress.report.text import change_text, megabytes, ratio_text, score_text, state_text

__all__ = ["COLUMNS", "cells_csv", "shown_row", "table_markdown"]

COLUMNS = (
    "model",
    "task",
    "methods",
    "seeds",
    "score",
    "change",
    "ideal MB",
    "file MB",
    "package MB",
    "smaller",
)
_CSV_COLUMNS = (
    *("run_id", "model", "task", "label", "seed", "learning_rate", "state", "why", "score"),
    *("ideal_bytes", "weights_bytes", "package_bytes", "dense_bytes"),
)
_CSV_SHARES = ("sparsity", "sparsity_prunable")  # among the metrics of a cell


def shown_row(group: Mapping[str, Any]) -> dict[str, str]:
    """One group over seeds as texts, by the names in `COLUMNS`; what is not done is said in the score."""
    sizes, open_cells = group["sizes"], state_text(group)
    score = score_text(group["score"])
    if open_cells:
        score = f"{score} ({open_cells})" if group["score"]["n"] else open_cells
    return {
        "model": plain(group["model"]) or "(unknown)",
        "task": plain(group["task"]) or "(unknown)",
        "methods": plain(group["label"]),
        "seeds": str(group["score"]["n"]),
        "score": score,
        "change": change_text(group["change"]),
        "ideal MB": megabytes(sizes["ideal_bytes"]),
        "file MB": megabytes(sizes["weights_bytes"]),
        "package MB": megabytes(sizes["package_bytes"]),
        "smaller": ratio_text(group["ratio"]),
    }


def table_markdown(groups: Sequence[Mapping[str, Any]]) -> str:
    """The groups of an analysis as a Markdown table, one line each.

    `smaller` is the dense fp32 size over the bytes of the weights file; `change` is against the dense control
    of the same model, task and seeds.
    """
    names = [column for column in COLUMNS if column != "package MB"]
    lines = [names, [":---" if name in ("model", "task", "methods") else "---:" for name in names]]
    for group in groups:
        row = shown_row(group)
        lines.append([_markdown(row[name]) for name in names])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _markdown(text: str) -> str:
    for mark in "\\`*_|<>[]":
        text = text.replace(mark, "\\" + mark)
    return text


def cells_csv(cells: Sequence[Mapping[str, Any]]) -> str:
    """The cells of an analysis as CSV, one line a run, every run in it, numbers in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_CSV_COLUMNS, *_CSV_SHARES])
    for cell in cells:
        values = [cell.get(column) for column in _CSV_COLUMNS]
        values += [cell.get("metrics", {}).get(name) for name in _CSV_SHARES]
        writer.writerow(["" if v is None else plain(v) if isinstance(v, str) else v for v in values])
    return text.getvalue()
