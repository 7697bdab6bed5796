import random

from multipress.analysis import group_cells, read_cells
from multipress.analysis.pareto import frontier, non_dominated
from multipress.analysis.table import MEAN_TASK

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
