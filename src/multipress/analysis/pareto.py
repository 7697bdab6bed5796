"""The frontier: cells that no other cell beats in score and bytes at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from multipress.analysis.table import Group

__all__ = ["frontier", "non_dominated"]


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points that no other point beats, by size and then by score.

    Args:
        points: Size (less is better) and score (more is better).

    Returns:
        Positions; a point is left out if another is at least as small and as good, and one of the two is
        strict. Equal points stay together.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    kept: list[int] = []
    best: tuple[float, float] | None = None
    for i in order:
        if best is None or points[i][1] > best[1] or points[i] == best:
            kept.append(i)
            best = points[i]
    return kept


def frontier(groups: Sequence[Group], size: str) -> list[dict[str, Any]]:
    """Non-dominated groups of each task, then those of the mean over all tasks.

    Args:
        groups: Groups over seeds.
        size: Which bytes (`ideal_bytes`, `weights_bytes`).

    Returns:
        Rows `{"task", "model", "label", "score", "bytes", "run_ids"}`, smallest first within a task. Rows of
        the mean have task `mean` and hold only what was measured on every task; with one task there are none.
    """
    by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
    everywhere: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for group in groups:
        size_bytes = group.sizes.get(size)
        if group.score.mean is None or size_bytes is None:
            continue
        row = {
            "task": group.task,
            "model": group.model,
            "label": group.label,
            "score": group.score.mean,
            "bytes": size_bytes,
            "run_ids": list(group.run_ids),
        }
        by_task[group.task].append(row)
        everywhere[group.model, group.label].append(row)
    num_tasks = len({group.task for group in groups})
    if num_tasks > 1:
        by_task["mean"] = [_mean_row(rows) for rows in everywhere.values() if len(rows) == num_tasks]
    return [rows[i] for rows in by_task.values() for i in non_dominated([(row["bytes"], row["score"]) for row in rows])]


def _mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        **rows[0],
        "task": "mean",
        "score": fmean(row["score"] for row in rows),
        "bytes": fmean(row["bytes"] for row in rows),
        "run_ids": [run_id for row in rows for run_id in row["run_ids"]],
    }
