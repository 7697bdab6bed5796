import random

import numpy as np
import pytest
from scipy import stats

from multipress.analysis import Drop, group_cells, read_cells
from multipress.analysis.cells import MEAN_TASK
from multipress.analysis.pareto import frontier, non_dominated, smallest_within, task_means
from multipress.analysis.resampling import draw_groups
from multipress.analysis.uncertainty import mean_ends

Q8 = {"quantization": 8}


def slow(points):
    """Every pair compared."""

    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    return {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}


def test_the_frontier_agrees_with_comparing_every_pair():
    rng = random.Random(0)
    for _ in range(500):
        points = [(float(rng.randint(1, 6)), float(rng.randint(1, 6))) for _ in range(rng.randint(0, 12))]
        found = non_dominated(points)
        assert set(found) == slow(points)
        assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def test_the_share_of_a_row_is_how_often_it_is_on_the_frontier_and_its_ends_are_those_of_the_mean(row):
    """Against looking at each repetition, and at the interval of its blocks."""
    rng = np.random.default_rng(0)
    rows = [row(model=f"m{i}", seed=s, score=0.7 + 0.01 * i, size=10.0 * (i + 1)) for i in range(4) for s in (0, 1)]
    cells = read_cells(rows)
    draws = {cell.run_id: cell.score + rng.normal(0, 0.01, 300) for cell in cells}
    drawn = draw_groups(cells, draws)
    groups = group_cells(cells)
    scores = {group.model: drawn.scores[group.model, group.task, group.levels] for group in groups}
    sizes = {group.model: group.sizes["weights_bytes"] for group in groups}
    for point in frontier(groups, "weights_bytes", drawn):
        own, name = scores[point["model"]], point["model"]
        beaten = [np.any([scores[o][i] >= own[i] for o in scores if sizes[o] < sizes[name]]) for i in range(300)]
        assert point["share"] == pytest.approx(1 - np.mean(beaten))
        assert (point["low"], point["high"]) == pytest.approx(mean_ends(drawn.blocks[name, "t", ()]))


def test_the_smallest_within_a_drop_has_the_interval_of_its_paired_change(row):
    rows = []
    for seed, luck in enumerate((0.0, 0.02, -0.01)):
        rows.append(row(model="big", seed=seed, score=0.9 + luck, size=100.0))
        rows.append(row(model="small", seed=seed, score=0.894 + luck + 0.001 * seed, size=20.0))
        rows.append(row(model="worse", seed=seed, score=0.8, size=10.0))
    cells = read_cells(rows)
    drawn = draw_groups(cells, {cell.run_id: np.full(50, cell.score) for cell in cells})
    groups = group_cells(cells)
    found = smallest_within(task_means(groups, drawn), groups, Drop(0.01), drawn)
    assert (found["model"], found["dense_model"], found["bytes"]) == ("small", "big", pytest.approx(22.0))
    assert found["change"] == pytest.approx(-0.005)
    # What seeds share cancels.
    assert found["interval"] == pytest.approx(stats.ttest_1samp([-0.006, -0.005, -0.004], 0).confidence_interval())
    assert smallest_within(task_means(groups), groups, Drop(0.001))["model"] == "big"
    assert smallest_within(task_means([]), [], Drop(0.01)) is None


def test_failed_cells_are_not_on_the_frontier(row):
    groups = group_cells(read_cells([row(), row(levels=Q8, state="failed", size=1.0)]))
    assert [point["label"] for point in frontier(groups, "ideal_bytes")] == ["dense"]


def test_the_mean_frontier_holds_only_what_every_task_has(row):
    rows = [row(task=task, levels=levels, size=size) for task in "xy" for levels, size in (({}, 9), (Q8, 3))]
    rows.append(row(task="x", levels={"pruning": 0.4}, size=1, score=0.99))
    points = frontier(group_cells(read_cells(rows)), "ideal_bytes")
    assert [p["label"] for p in points if p["task"] == MEAN_TASK] == ["Q8"]
    assert [p["label"] for p in points if p["task"] == "x"] == ["P40"]
    assert not [p for p in frontier(group_cells(read_cells(rows[:2])), "ideal_bytes") if p["task"] == MEAN_TASK]
