import json
import random

import numpy as np
import pytest

from multipress.analysis import analyze_cells, group_cells, read_cells
from multipress.analysis.table import summarize

Q8 = {"quantization": 8}


def test_mean_and_spread_agree_with_numpy():
    for n in (2, 3, 10):
        values = np.random.default_rng(n).random(n).tolist()
        summary = summarize(values)
        assert summary.mean == pytest.approx(np.mean(values))
        assert summary.sd == pytest.approx(np.std(values, ddof=1))
        assert (summary.low, summary.high, summary.n) == (min(values), max(values), n)
    assert summarize([0.1, 0.1, 0.1]).mean == 0.1
    assert summarize([0.3]).sd is None
    assert summarize([]).mean is None


def test_failed_and_waiting_cells_are_counted_and_in_no_mean(row):
    states = ["done", "failed", "diverged", "refused", "pending", "running", "done"]
    rows = [row(seed=i, state=state, score=i / 10) for i, state in enumerate(states)]
    (group,) = group_cells(read_cells(rows))
    assert (group.score.n, group.num_failed, group.num_waiting) == (2, 3, 2)
    assert group.score.mean == pytest.approx(0.3)
    assert len(group.run_ids) == 7
    result = analyze_cells(rows)
    assert [cell["state"] for cell in result["failed"]] == ["failed", "diverged", "refused"]
    assert len(result["cells"]) == 7


def test_the_change_compares_equal_seeds_only(row):
    rows = [row(seed=0, score=0.5), row(seed=1, state="failed"), row(seed=2, score=0.9)]
    rows += [row(levels=Q8, seed=seed, score=score) for seed, score in ((0, 0.4), (1, 0.1), (2, 0.7))]
    group = group_cells(read_cells(rows))[1]
    assert group.change.n == 2
    assert group.change.mean == pytest.approx(-0.15)
    assert group.score.n == 3


def test_no_change_is_told_without_a_dense_cell(row):
    (group,) = group_cells(read_cells([row(levels=Q8)]))
    assert group.change.mean is None


def test_the_ratio_is_dense_over_own_bytes(row):
    (group,) = group_cells(read_cells([row(levels=Q8, size=40.0)]))
    assert group.ratio("ideal_bytes") == 10
    assert group.ratio("weights_bytes") == pytest.approx(10 / 1.1)
    (group,) = group_cells(read_cells([row(levels=Q8, state="failed")]))
    assert group.ratio("ideal_bytes") is None


def test_the_order_of_cells_changes_no_number(row):
    rng = random.Random(0)
    rows = [
        row(model=model, task=task, levels=levels, seed=seed, score=rng.random(), size=rng.random() * 100)
        for model in "ab"
        for task in "xy"
        for levels in ({}, Q8, {"pruning": 0.4}, {**Q8, "pruning": 0.4})
        for seed in range(3)
    ]

    def numbers(rows):
        result = analyze_cells(rows)
        keys = [("groups", ("model", "task", "label"))]
        found = {}
        for name, by in keys:
            for one in result[name]:
                found[name, *(one[key] for key in by)] = (one["score"]["mean"], one["change"]["mean"])
        for size, points in result["frontier"].items():
            found[size] = sorted((p["task"], p["model"], p["label"], round(p["score"], 12)) for p in points)
        for one in result["interactions"]:
            found[tuple(one["levels"])] = one["overall"]["mean"]
        for one in result["multiplicativity"]["rows"]:
            key = (one["size"], one["estimator"], one["task"], one["model"], *one["methods"])
            found[key] = one["factor"]["value"]
        return found

    expected = numbers(rows)
    for _ in range(5):
        rng.shuffle(rows)
        found = numbers(rows)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key] == (pytest.approx(value) if not isinstance(value, list) else value), key


def test_the_result_is_plain_json(row):
    rows = [row(), row(levels=Q8), row(levels={"pruning": 0.4}, state="failed"), row(task="u")]
    result = analyze_cells(rows)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert set(result) >= {"cells", "frontier", "multiplicativity", "interactions", "failed"}
    asked = {"run_id", "model", "task", "methods", "settings", "seed", "state", "score"}
    for cell in result["cells"]:
        assert set(cell) >= asked | {"ideal_bytes", "weights_bytes", "package_bytes"}


def test_nothing_to_analyze_is_an_empty_analysis():
    result = analyze_cells([])
    assert result["cells"] == result["failed"] == result["interactions"] == []
