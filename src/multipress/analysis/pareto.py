"""The frontier: cells that no other cell beats in score and bytes, or score and time, at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from multipress.analysis.blocks import Block
from multipress.analysis.cells import DENSE, MEAN_TASK
from multipress.analysis.multiplicativity import Drop
from multipress.analysis.resampling import GroupDraws
from multipress.analysis.table import Group, on_every_task
from multipress.analysis.uncertainty import mean_ends

__all__ = ["LATENCY", "frontier", "non_dominated", "score_ends"]

LATENCY = "latency_ms"


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points that no other point beats, by size and then by score.

    Args:
        points: Size or time (less is better) and score (more is better).

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


@dataclass(frozen=True)
class _Place:
    """One point: a group, or the mean of a combination over tasks."""

    task: str
    model: str
    label: str
    score: float
    cost: float
    run_ids: tuple[str, ...]
    draws: np.ndarray  # scores in the repetitions (R,); empty without
    blocks: dict[Block, np.ndarray]


def frontier(groups: Sequence[Group], cost: str, drawn: GroupDraws | None = None) -> list[dict[str, Any]]:
    """Non-dominated groups of each task, then those of the mean over all tasks.

    Args:
        groups: Groups over seeds.
        cost: What to pay: `ideal_bytes`, `weights_bytes`, `package_bytes` or `latency_ms`.
        drawn: Scores of the groups in repetitions.

    Returns:
        Rows `{"task", "model", "label", "score", "bytes", "run_ids"}` (`latency_ms` in place of `bytes` where that is
        the cost) and, with repetitions, `low`, `high` (of the score) and `share`: in how many of the repetitions the
        row is on the frontier. Smallest first within a task. Rows of the mean have task `mean over tasks` and hold
        only what was measured on every task that has a result; with one task there are none.
    """
    by_task: dict[str, list[_Place]] = defaultdict(list)
    for group in groups:
        place = _place(group, cost, drawn)
        if place is not None:
            by_task[group.task].append(place)
    if len(by_task) > 1:
        places = [place for own in by_task.values() for place in own]
        everywhere, _ = on_every_task(((place.model, place.label), place.task, place) for place in places)
        by_task[MEAN_TASK] = [_mean_place(own) for own in everywhere.values()]
    return [row for places in by_task.values() for row in _rows(places, "bytes" if cost != LATENCY else LATENCY)]


def score_ends(group: Group, drawn: GroupDraws | None) -> tuple[float, float] | None:
    """Ends of the interval of a group's score over rows and seeds; None without repetitions."""
    return mean_ends(drawn.blocks[group.key]) if drawn is not None and group.key in drawn.blocks else None


def task_means(groups: Sequence[Group], drawn: GroupDraws | None = None) -> dict[str, Any]:
    """Means over tasks of every combination that each task has, on the frontier or not.

    Args:
        groups: Groups over seeds.
        drawn: Scores of the groups in repetitions, for the intervals.

    Returns:
        `rows`: `model`, `label`, `score`, `interval` (low and high, or None), `change` (against the dense controls),
        `sizes` (by name; None where a task has none) and `run_ids`; `num_left_out`: combinations some task lacks.
    """
    done = [group for group in groups if group.score.mean is not None]
    found, num_left_out = on_every_task(((group.model, group.label), group.task, group) for group in done)
    return {"rows": [_mean_row(own, drawn) for own in found.values()], "num_left_out": num_left_out}


def smallest_within(
    means: Mapping[str, Any], groups: Sequence[Group], drop: Drop, drawn: GroupDraws | None = None
) -> dict[str, Any] | None:
    """The smallest combination whose mean score over tasks is within a drop of the best dense one's.

    Args:
        means: What `task_means` gave.
        groups: Groups over seeds.
        drop: How far below it may lie.
        drawn: Scores of the groups in repetitions.

    Returns:
        `model`, `label`, `score`, `bytes`, `dense_model`, `dense_bytes`, `change` (of the score, against that dense
        model) and `interval` (its low and high, over rows and seeds, seeds paired; None without repetitions or a seed
        in common). None without a dense control on every task.
    """
    rows = [row for row in means["rows"] if row["sizes"].get("weights_bytes") is not None]
    dense = [row for row in rows if row["label"] == DENSE]
    if not dense:
        return None
    best = max(dense, key=lambda row: row["score"])
    near = [row for row in rows if row["score"] >= drop.bar(best["score"])]
    one = min(near, key=lambda row: (row["sizes"]["weights_bytes"], -row["score"]))
    return {
        "model": one["model"],
        "label": one["label"],
        "score": one["score"],
        "bytes": one["sizes"]["weights_bytes"],
        "dense_model": best["model"],
        "dense_bytes": best["sizes"]["weights_bytes"],
        "change": one["score"] - best["score"],
        "interval": _change_ends(one, best, groups, drawn) if drawn is not None and one is not best else None,
    }


def _change_ends(
    one: Mapping[str, Any], other: Mapping[str, Any], groups: Sequence[Group], drawn: GroupDraws
) -> tuple[float, float] | None:
    """Ends of the interval of the difference of two combinations, over the tasks and seeds that both have."""
    scores: list[dict[Block, np.ndarray]] = []
    for row in (one, other):
        own = [group for group in groups if (group.model, group.label) == (row["model"], row["label"])]
        blocks = [drawn.blocks.get(group.key, {}) for group in own]
        scores.append({("", task, seed): values for each in blocks for (_, task, seed), values in each.items()})
    both = {block: values - scores[1][block] for block, values in scores[0].items() if block in scores[1]}
    return mean_ends(both) if both else None


def _mean_row(groups: Sequence[Group], drawn: GroupDraws | None) -> dict[str, Any]:
    keys = [group.key for group in groups]
    ends = None
    if drawn is not None and all(key in drawn.blocks for key in keys):
        ends = mean_ends({block: values for key in keys for block, values in drawn.blocks[key].items()})
    return {
        "model": groups[0].model,
        "label": groups[0].label,
        "score": _mean([group.score.mean for group in groups]),
        "interval": ends,
        "change": _mean([group.change.mean for group in groups]),
        "sizes": {name: _mean([group.sizes.get(name) for group in groups]) for name in groups[0].sizes},
        "run_ids": [run_id for group in groups for run_id in group.run_ids],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """None if one of them is."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _place(group: Group, cost: str, drawn: GroupDraws | None) -> _Place | None:
    paid = group.sizes.get(cost)
    if group.score.mean is None or paid is None:
        return None
    key = group.key
    is_drawn = drawn is not None and key in drawn.scores
    return _Place(
        task=group.task,
        model=group.model,
        label=group.label,
        score=group.score.mean,
        cost=paid,
        run_ids=group.run_ids,
        draws=drawn.scores[key] if drawn is not None and is_drawn else np.empty(0),
        blocks=drawn.blocks[key] if drawn is not None and is_drawn else {},
    )


def _mean_place(places: Sequence[_Place]) -> _Place:
    drawn = all(len(place.draws) for place in places)
    return _Place(
        task=MEAN_TASK,
        model=places[0].model,
        label=places[0].label,
        score=fmean(place.score for place in places),
        cost=fmean(place.cost for place in places),
        run_ids=tuple(run_id for place in places for run_id in place.run_ids),
        draws=np.mean([place.draws for place in places], axis=0) if drawn else np.empty(0),
        blocks={block: values for place in places for block, values in place.blocks.items()},
    )


def _rows(places: Sequence[_Place], name: str) -> list[dict[str, Any]]:
    best = non_dominated([(place.cost, place.score) for place in places])
    shares = _shares(places)
    rows = []
    for i in best:
        place = places[i]
        row: dict[str, Any] = {"task": place.task, "model": place.model, "label": place.label, "score": place.score}
        row |= {name: place.cost, "run_ids": list(place.run_ids)}
        if len(place.draws):
            low, high = mean_ends(place.blocks)
            row |= {"low": low, "high": high, "share": shares[i]}
        rows.append(row)
    return rows


def _shares(places: Sequence[_Place]) -> dict[int, float]:
    """In what share of the repetitions each place is on the frontier."""
    drawn = [i for i, place in enumerate(places) if len(place.draws)]
    if not drawn:
        return {}
    order = sorted(drawn, key=lambda i: places[i].cost)
    scores = np.stack([places[i].draws for i in order])  # (P, R), the smallest first
    # On the frontier is who is better than all that are smaller; of equal costs, in the order of the best.
    before = np.vstack([np.full((1, scores.shape[1]), -np.inf), np.maximum.accumulate(scores, axis=0)[:-1]])
    return dict(zip(order, (scores > before).mean(axis=1).tolist(), strict=True))
