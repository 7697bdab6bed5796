"""What the cells of a study say together: pure functions from rows to numbers. No files, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multipress.analysis.cells import SIZES, Cell, read_cells
from multipress.analysis.interaction import interactions
from multipress.analysis.multiplicativity import ESTIMATORS, multiplicativity
from multipress.analysis.pareto import frontier
from multipress.analysis.table import Group, group_cells
from multipress.analysis.uncertainty import Outcome, example_intervals

__all__ = ["analyze_cells", "Cell", "Group", "Outcome", "SIZES", "group_cells", "read_cells"]

TOLERANCE = 0.005
LEVEL = 0.95
_FAILED_KEYS = ("run_id", "model", "task", "methods", "settings", "seed", "state", "why")


def analyze_cells(
    rows: Sequence[Mapping[str, Any]], outcomes: Mapping[str, Outcome] | None = None, resamples: int = 1000
) -> dict[str, Any]:
    """Everything that `multipress analyze --json` prints.

    Args:
        rows: Rows of `Store.cells`.
        outcomes: What each run predicted, by its id; without it there are no intervals.
        resamples: How often validation rows are drawn for the intervals.

    Returns:
        `cells` (the rows, each with its `label`), `groups` (cells over seeds), `frontier` (rows by size),
        `multiplicativity` (tolerance, and rows of both estimators and both sizes), `interactions`, `intervals`
        (level, resamples, and rows over all blocks, by model and by task), and `failed` (cells without a result
        that are not waiting for one). Plain JSON values.
    """
    cells = read_cells(rows)
    groups = group_cells(cells)
    factors = [
        one.to_json()
        for size in SIZES
        for estimator in ESTIMATORS
        for one in multiplicativity(groups, size, estimator, TOLERANCE)
    ]
    return {
        "cells": [{**cell.row, "label": cell.label} for cell in cells],
        "groups": [group.to_json() for group in groups],
        "frontier": {size: frontier(groups, size) for size in SIZES},
        "multiplicativity": {"tolerance": TOLERANCE, "rows": factors},
        "interactions": [one.to_json() for one in interactions(cells)],
        "intervals": {
            "level": LEVEL,
            "resamples": resamples,
            "rows": [
                one.to_json() for one in example_intervals(cells, outcomes or {}, resamples=resamples, level=LEVEL)
            ],
        },
        "failed": [
            {key: cell.row[key] for key in _FAILED_KEYS}
            for cell in cells
            if not cell.is_done and cell.state not in ("pending", "running")
        ],
    }
