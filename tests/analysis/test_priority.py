"""Which method to add next: on planted grids, and the rate against scipy's regression."""

import itertools

import numpy as np
import pytest
from scipy.stats import linregress, ttest_1samp

from multipress.analysis import read_cells
from multipress.analysis.priority import exchange_rate, priority

LEVELS = {"quantization": 8, "distillation": 2.0, "pruning": 0.5}
SAVES = {"quantization": 4.0, "distillation": 1.0, "pruning": 1.25}


def grid(row, effects, rate=0.02, tasks="xy"):
    """Four dense sizes that lose `rate` by halving; each method saves and costs the same everywhere."""
    rows = []
    for task, power in itertools.product(tasks, range(4)):
        for count in range(4):
            for names in itertools.combinations(LEVELS, count):
                size = 100 * 2.0**power / np.prod([SAVES[name] for name in names])
                score = 0.6 + rate * power + sum(effects[name] for name in names)
                rows.append(
                    row(model=f"m{power}", task=task, levels={n: LEVELS[n] for n in names}, score=score, size=size)
                )
    return read_cells(rows)


def test_the_rate_is_the_slope_of_a_regression_on_log_size(row):
    random = np.random.default_rng(0)
    rows = [row(model=f"m{i}", size=float(size), score=random.random()) for i, size in enumerate((10, 30, 200, 900))]
    cells = read_cells(rows)
    slope = linregress([np.log2(cell.sizes["weights_bytes"]) for cell in cells], [cell.score for cell in cells]).slope
    assert exchange_rate(cells) == (pytest.approx(slope) if slope > 0 else None)
    assert exchange_rate(read_cells([row()])) is None
    assert exchange_rate(grid(row, dict.fromkeys(LEVELS, 0.0))) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("effects", "order"),
    [
        (
            {"quantization": -0.002, "distillation": 0.02, "pruning": -0.004},
            ["quantization", "distillation", "pruning"],
        ),
        ({"quantization": -0.002, "distillation": 0.06, "pruning": -0.03}, ["distillation", "quantization"]),
        ({"quantization": -0.2, "distillation": -0.01, "pruning": 0.0}, ["pruning"]),
    ],
)
def test_the_method_that_nets_most_comes_first_and_none_that_nets_nothing(row, effects, order):
    found = priority(grid(row, effects))
    assert found["order"] == order
    assert found["agrees"] == (order == ["quantization", "distillation", "pruning"])
    for step in found["steps"]:
        halvings = np.log2(SAVES[step["method"]])
        assert step["net"] == pytest.approx(halvings + effects[step["method"]] / 0.02)
        assert step["net_low"] == pytest.approx(step["net"], abs=1e-6)
        assert step["saved"] == pytest.approx(1 - 1 / SAVES[step["method"]])
        assert (step["bytes_per_point"] is None) == (effects[step["method"]] >= 0)
    assert sum(step["is_chosen"] for step in found["steps"]) == len(order)


def test_a_step_has_the_interval_of_a_t_test_and_an_order_is_settled_where_the_difference_is(row):
    """Nets that differ between models; what adds to one method's net on a model adds to the other's too."""

    def found(shift):
        rows = []
        for i in range(5):
            more = 0.01 * i + 0.001 * (i % 2)
            for names in ((), ("quantization",), ("distillation",)):
                score = 0.7 + 0.02 * i + more * bool(names) + shift * ("distillation" in names)
                size = 2.0**i * 100 / (2 if "quantization" in names else 1)
                rows.append(row(model=f"m{i}", levels={n: LEVELS[n] for n in names}, score=score, size=size))
        return priority(read_cells(rows))

    one = found(0.002)
    nets = [1 + (0.01 * i + 0.001 * (i % 2)) / 0.02 for i in range(5)]
    step = next(s for s in one["steps"] if (s["base"], s["method"]) == ("dense", "quantization"))
    assert one["exchange_rate"] == pytest.approx(0.02)
    assert (step["net_low"], step["net_high"]) == pytest.approx(ttest_1samp(nets, 0).confidence_interval())
    assert one["order"][0] == "quantization"
    assert one["settled"] is True  # .9 halvings more on every model, though the intervals overlap
    random = np.random.default_rng(1)
    rows = [
        row(
            model=f"m{i}",
            levels={n: LEVELS[n] for n in names},
            score=0.7 + 0.02 * i + random.normal(0, 0.05),
            size=2.0**i,
        )
        for i in range(5)
        for names in ((), ("quantization",), ("distillation",))
    ]
    assert priority(read_cells(rows))["settled"] in (False, None)


def test_without_a_second_size_there_is_no_rate_and_no_order(row):
    found = priority(read_cells([row(), row(levels={"quantization": 8}, size=25, score=0.89)]))
    assert (found["exchange_rate"], found["order"], found["agrees"]) == (None, [], None)
    (step,) = found["steps"]
    assert step["bytes_per_point"] == pytest.approx((110 - 27.5) / 1)
