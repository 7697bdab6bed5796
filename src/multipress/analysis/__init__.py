"""What the cells of a study say together: pure functions from rows to numbers. No files, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from multipress.analysis.cells import SIZES, Cell, read_cells
from multipress.analysis.interaction import interactions
from multipress.analysis.mixed import mixed_model
from multipress.analysis.multiplicativity import PAPER_DROP, Drop, multiplicativity
from multipress.analysis.pareto import LATENCY, frontier, score_ends, smallest_within, task_means
from multipress.analysis.priority import priority
from multipress.analysis.products import products, products_by_drop
from multipress.analysis.resampling import GroupDraws, Outcome, draw_groups, draw_rows
from multipress.analysis.shapley import shapley_shares
from multipress.analysis.table import Group, group_cells
from multipress.analysis.tickets import ticket_rounds
from multipress.analysis.uncertainty import LEVEL, effect_intervals

__all__ = ["analyze_cells", "Cell", "Drop", "Group", "Outcome", "SIZES", "group_cells", "read_cells"]

COSTS = (*SIZES, "package_bytes", LATENCY)
_FAILED_KEYS = ("run_id", "model", "task", "methods", "label", "settings", "seed", "state", "why")


def analyze_cells(
    rows: Sequence[Mapping[str, Any]],
    outcomes: Mapping[str, Outcome] | None = None,
    resamples: int = 1000,
    drop: Drop = PAPER_DROP,
    timing: str = "",
) -> dict[str, Any]:
    """Everything that `multipress analyze --json` prints.

    Args:
        rows: Rows of `Store.cells`, with `latency_ms` where a run was timed.
        outcomes: What each run predicted, by its id; without it there are no intervals.
        resamples: How often validation rows are drawn for the intervals.
        drop: How far below the dense score the factors' bar lies.
        timing: How `latency_ms` was measured, in words.

    Returns:
        `cells` (the rows, each with its `label`), `groups` (cells over seeds), `means` (of those over tasks),
        `smallest` (of these within the drop), `frontier` (rows by cost),
        `multiplicativity` (`tolerance`, `relative`, `rows` of both estimators and both sizes, `products` over models,
        `by_drop`), `interactions` (plain means), `mixed_model`, `intervals` (level, resamples, and rows over all
        blocks, by model and by task), `shapley`, `priority`, `rounds` (`ticket_rounds`), `states` (how many cells are
        in which state), `failed` (cells without a result that are not waiting for one), `timing`, and `notes` on what
        could not be told. Plain JSON values. Rounds of pruning are in `cells`, `groups`, `means`, `smallest`,
        `frontier` and `rounds` alone: the others compare cells of equal training.
    """
    cells = read_cells(rows)
    shown = [{**cell.row, "label": cell.label} for cell in cells]
    states = _states(cells)
    failed = [row for cell, row in zip(cells, shown, strict=True) if cell.state not in ("done", "pending", "running")]
    cells = [cell for cell in cells if cell.is_known]
    groups = group_cells(cells)
    fair = [cell for cell in cells if not cell.is_round]  # those that have as many steps as the dense run
    notes = [] if find_spec("scipy") else ["There are no intervals without scipy: pip install 'multipress[report]'."]
    draws = {} if notes else draw_rows(cells, outcomes or {}, resamples)
    drawn = draw_groups(cells, draws) if draws else None
    means = task_means(groups, drawn)
    intervals = effect_intervals(fair, draws) if draws else []
    return {
        "cells": shown,
        "groups": [{**group.to_json(), "interval": score_ends(group, drawn)} for group in groups],
        "means": means,
        "smallest": smallest_within(means, groups, drop, drawn),
        "frontier": {cost: frontier(groups, cost, drawn) for cost in COSTS},
        "multiplicativity": _multiplicativity(group_cells(fair), drop, drawn),
        "interactions": [one.to_json() for one in interactions(fair)],
        "mixed_model": mixed_model(fair),
        "intervals": {"level": LEVEL, "resamples": resamples, "rows": [one.to_json() for one in intervals]},
        "shapley": [one.to_json() for one in shapley_shares(fair)],
        "priority": priority(fair, with_intervals=not notes),
        "rounds": ticket_rounds(cells, drawn),
        "states": states,
        "failed": [{key: row[key] for key in _FAILED_KEYS} for row in failed],
        "timing": timing,
        "notes": notes,
    }


def _multiplicativity(groups: Sequence[Group], drop: Drop, drawn: GroupDraws | None) -> dict[str, Any]:
    scores, dof = (drawn.scores, drawn.dof) if drawn else (None, 0)
    found = multiplicativity(groups, drop, drawn=scores)
    return {
        "tolerance": drop.value,
        "relative": drop.is_relative,
        "rows": [one.to_json() for one in found],
        "products": [one.to_json() for one in products(found, dof)],
        "by_drop": products_by_drop(groups, drop.is_relative, scores, dof),
    }


def _states(cells: Sequence[Cell]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.state] = counts.get(cell.state, 0) + 1
    return counts
