import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from multipress.analysis import group_cells, read_cells
from multipress.analysis.cells import MEAN_TASK
from multipress.analysis.factors import (
    Curve,
    Factor,
    FactorDraws,
    discrete_factor,
    estimate_factors,
    interpolated_factor,
    mean_factor,
)
from multipress.analysis.multiplicativity import Drop, multiplicativity
from multipress.analysis.products import geometric_mean, is_net, products, products_by_drop

LEVELS = {"quantization": 8, "distillation": 2.0, "pruning": 0.5}
MODELS = {f"m{i}": 4.0**i for i in range(10)}


def planted(row, factors, slope=0.05, together=1.0, tasks="x"):
    """A grid in which a stored model is as good as a dense one of its size times the methods' factors."""
    rows = []
    for task, (model, size) in itertools.product(tasks, MODELS.items()):
        for count in range(4):
            for names in itertools.combinations(LEVELS, count):
                gain = math.prod(factors[name] for name in names) * (together if count > 1 else 1.0)
                own = size / (4 if "quantization" in names else 1)
                score = 0.3 + slope * math.log(own * gain)
                levels = {name: LEVELS[name] for name in names}
                rows.append(row(model=model, task=task, levels=levels, score=score, size=own))
    return group_cells(read_cells(rows))


def of(groups, size, estimator, drop=0.005):
    return multiplicativity(groups, Drop(drop), sizes=[size], estimators=[estimator])


def middle(found):
    return [one for one in found if one.model in ("m5", "m6") and len(one.methods) > 1]


FACTORS = {"quantization": 3.0, "distillation": 2.0, "pruning": 1.5}


@pytest.mark.parametrize("size", ["ideal_bytes", "weights_bytes"])
def test_interpolation_finds_planted_factors_that_multiply(row, size):
    found = of(planted(row, FACTORS), size, "interpolated", 0.0)
    rows = middle(found)
    assert len(rows) == 8
    for one in rows:
        assert one.factor.kind == "value"
        assert one.factor.value == pytest.approx(math.prod(FACTORS[name] for name in one.methods))
        assert one.ratio == pytest.approx(1)
        assert one.net_ratio == pytest.approx(1)


def test_interpolation_finds_how_far_planted_factors_do_not_multiply(row):
    groups = planted(row, FACTORS, together=1.3)
    for one in middle(of(groups, "ideal_bytes", "interpolated", 0.0)):
        assert one.ratio == pytest.approx(1.3)


def test_the_tolerance_pulls_the_ratio_down_and_the_net_ratio_takes_that_out(row):
    slope, tolerance = 0.05, 0.01
    slack = math.exp(tolerance / slope)
    for one in middle(of(planted(row, FACTORS), "ideal_bytes", "interpolated", tolerance)):
        assert one.dense.value == pytest.approx(slack)
        assert one.ratio == pytest.approx(slack ** (1 - len(one.methods)))
        assert one.net_ratio == pytest.approx(1)


def test_no_method_changes_nothing_in_the_discrete_estimator(row):
    for one in middle(of(planted(row, FACTORS), "ideal_bytes", "discrete")):
        assert one.dense == Factor(1.0, "value")


def test_the_discrete_factor_is_one_of_the_measured_sizes(row):
    rng = random.Random(0)
    for _ in range(300):
        levels = [[(rng.uniform(1, 100), rng.random()) for _ in range(5)] for _ in range(2)]
        points = sorted(point for level in levels for point in level)
        found = discrete_factor(100.0, 0.5, levels)
        expected = next((own for own, score in points if score >= 0.5), None)
        if expected is None:
            assert found == Factor(None, "not reached")
        else:
            kind = "at least" if expected == points[0][0] else "value"
            assert found == Factor(100.0 / expected, kind)


def dense_search(size, bar, levels):
    """The interpolated factor by trying 20,000 sizes on each curve."""
    best = None
    for level in levels:
        level = sorted(level)
        for (low, low_score), (high, high_score) in itertools.pairwise(level):
            for step in range(20_001):
                own = low * (high / low) ** (step / 20_000)
                score = low_score + (high_score - low_score) * step / 20_000
                if score >= bar:
                    best = own if best is None else min(best, own)
                    break
    return None if best is None else size / best


def test_the_interpolated_factor_agrees_with_a_search_along_the_curves():
    rng = random.Random(0)
    for _ in range(20):
        levels = [[(4.0**i * rng.uniform(1, 2), rng.random()) for i in range(4)] for _ in range(2)]
        expected = dense_search(500.0, 0.6, levels)
        found = interpolated_factor(500.0, 0.6, levels)
        if expected is None:
            assert found == Factor(None, "not reached")
        else:
            assert found.value == pytest.approx(expected, rel=1e-3)
        ends = any(min(level)[1] >= 0.6 for level in levels)
        assert (found.kind == "at least") == ends


def test_nothing_is_extrapolated():
    rng = random.Random(1)
    for _ in range(200):
        levels = [[(rng.uniform(1, 100), rng.random()) for _ in range(4)]]
        for estimate in (discrete_factor, interpolated_factor):
            factor = estimate(50.0, 0.5, levels)
            if factor.value is not None:
                assert 50 / max(levels[0])[0] <= factor.value * (1 + 1e-12)
                assert factor.value <= 50 / min(levels[0])[0] * (1 + 1e-12)


def test_a_lower_bar_never_gives_a_smaller_factor():
    rng = random.Random(2)
    for _ in range(200):
        levels = [[(rng.uniform(1, 100), rng.random()) for _ in range(4)] for _ in range(2)]
        for estimate in (discrete_factor, interpolated_factor):
            factors = [estimate(50.0, bar / 10, levels).value or 0.0 for bar in range(10, -1, -1)]
            assert all(low <= high * (1 + 1e-12) for low, high in itertools.pairwise(factors))


def test_a_censored_factor_is_a_bound_and_is_never_multiplied(row):
    found = of(planted(row, FACTORS), "ideal_bytes", "interpolated", 0.0)
    smallest = [one for one in found if one.model == "m0" and "distillation" in one.methods]
    assert len(smallest) == 4
    for one in smallest:
        assert one.singles["distillation"] == Factor(1.0, "at least")
        assert one.product is None
        assert one.ratio is None


def test_a_score_that_no_model_reaches_gives_no_factor(row):
    rows = [row(model=m, size=s, score=0.9) for m, s in (("a", 10), ("b", 40))]
    rows += [row(model=m, size=s / 4, score=0.5, levels={"quantization": 8}) for m, s in (("a", 10), ("b", 40))]
    for estimator in ("discrete", "interpolated"):
        for one in of(group_cells(read_cells(rows)), "ideal_bytes", estimator):
            assert one.factor == Factor(None, "not reached")


def test_a_model_exactly_at_the_bar_reaches_it(row):
    rows = [row(model="a", size=40, score=0.9), row(model="b", size=10, score=0.1)]
    rows += [row(model="a", size=20, score=0.9 - 0.005, levels={"quantization": 8})]
    rows += [row(model="b", size=5, score=0.1, levels={"quantization": 8})]
    found = of(group_cells(read_cells(rows)), "ideal_bytes", "discrete")
    assert found[0].factor == Factor(2.0, "value")


def draws(*factors):
    return [FactorDraws(np.array([one.low]), np.array([one.high])) for one in factors]


def test_a_mean_over_tasks_holds_every_task_or_none():
    value, bound, none = Factor(2.0, "value"), Factor(4.0, "at least"), Factor(None, "not reached")
    assert mean_factor(draws(value, value)).first() == value
    assert mean_factor(draws(value, bound)).first() == Factor(3.0, "at least")
    assert mean_factor(draws(value, none)).first().value is None


def test_the_mean_of_equal_tasks_is_the_task(row):
    found = of(planted(row, FACTORS, tasks="xy"), "ideal_bytes", "interpolated", 0.0)
    by_task = {}
    for one in found:
        by_task.setdefault((one.model, one.methods), {})[one.task] = one.factor
    assert all(set(tasks) == {"x", "y", MEAN_TASK} for tasks in by_task.values())
    for tasks in by_task.values():
        assert tasks[MEAN_TASK].value == pytest.approx(tasks["x"].value)


def test_the_geometric_mean_of_a_number_and_its_inverse_is_one():
    assert geometric_mean([4.0, 0.25]) == pytest.approx(1)
    assert geometric_mean([]) is None


@pytest.mark.parametrize("estimator", ["discrete", "interpolated"])
def test_many_tables_at_once_give_the_factor_of_each_alone(estimator):
    random = np.random.default_rng(0)
    alone = discrete_factor if estimator == "discrete" else interpolated_factor
    for _ in range(20):
        levels = [Curve(random.uniform(1, 100, 5), random.random((40, 5))) for _ in range(2)]
        bars = random.random(40)
        together = estimate_factors(50.0, bars, levels, estimator)
        for i, bar in enumerate(bars):
            points = [list(zip(one.sizes.tolist(), one.scores[i].tolist(), strict=True)) for one in levels]
            factor = alone(50.0, float(bar), points)
            assert (factor.low, factor.high) == (together.low[i], together.high[i])


def test_a_relative_drop_is_a_share_of_the_dense_score(row):
    groups = planted(row, FACTORS)
    dense = next(group for group in groups if group.model == "m5" and not group.methods)
    absolute = multiplicativity(groups, Drop(0.02 * dense.score.mean))
    relative = multiplicativity(groups, Drop(0.02, is_relative=True))
    for one, other in zip(absolute, relative, strict=True):
        if one.model == "m5":
            assert one.factor.kind == other.factor.kind
            assert one.factor.low == pytest.approx(other.factor.low)


def test_a_censored_factor_bounds_the_ratio_from_the_side_it_is_on(row):
    for one in of(planted(row, FACTORS), "ideal_bytes", "interpolated", 0.0):
        low, high = one.bounds
        kinds = {factor.kind for factor in one.singles.values()}
        if len(one.methods) < 2:
            assert (low, high) == (None, None)
        elif one.ratio is not None:
            assert (low, high) == (pytest.approx(one.ratio), pytest.approx(one.ratio))
        elif one.factor.kind == "at least" and kinds == {"value"}:
            assert high is None
            assert low == pytest.approx(one.factor.value / one.product)
        elif one.factor.kind == "value" and "at least" in kinds:
            assert low is None
            assert high == pytest.approx(one.factor.value / math.prod(f.value for f in one.singles.values()))


def test_products_are_geometric_means_over_the_pairs_that_have_values(row):
    found = of(planted(row, FACTORS, together=1.3, tasks="xy"), "ideal_bytes", "interpolated", 0.0)
    for one in products(found):
        own = [row for row in found if row.methods == one.methods and row.task != MEAN_TASK]
        ratios = [row.ratio for row in own if row.ratio is not None]
        assert one.num_values == len(ratios)
        assert one.num_values + one.num_left_out == 2 * len(MODELS)
        assert one.ratio == pytest.approx(math.exp(np.mean(np.log(ratios))))
        assert one.ratio == pytest.approx(1.3)
        assert one.verdict == "not settled"  # nothing was drawn


def test_the_interval_over_other_tasks_is_that_of_a_t_test_over_their_logarithms(row):
    groups = [
        group
        for task, together in zip("xyz", (1.1, 1.4, 1.2), strict=True)
        for group in planted(row, FACTORS, together=together, tasks=task)
    ]
    found = middle(of(groups, "ideal_bytes", "interpolated", 0.0))  # whose factors are all values
    drawn = [replace(one, draws=np.full((2, 50), one.net_ratio or np.nan)) for one in found]
    for one in products(drawn, dof=4):
        own = {task: [r.net_ratio for r in drawn if (r.task, r.methods) == (task, one.methods)] for task in "xyz"}
        logs = [np.mean(np.log(ratios)) for ratios in own.values()]
        low, high = stats.ttest_1samp(logs, 0).confidence_interval()
        assert (one.tasks_low, one.tasks_high) == pytest.approx((math.exp(low), math.exp(high)))
        assert one.covers == "rows and seeds"
    assert {one.covers for one in products(drawn)} == {"rows"}
    alone = [one for one in drawn if one.task == "x"]
    assert {(one.tasks_low, one.tasks_high) for one in products(alone)} == {(None, None)}


def test_a_step_function_gives_no_verdict_however_sure_its_interval(row):
    found = of(planted(row, FACTORS, together=4.0, tasks="xy"), "ideal_bytes", "discrete", 0.0)
    sure = [replace(one, draws=np.full((2, 500), one.ratio or np.nan)) for one in found]
    told = [one for one in products(sure) if one.ratio is not None]
    assert told
    assert all((one.verdict, one.p_holm) == ("no verdict", None) for one in told)
    assert all(one.low == pytest.approx(one.ratio) for one in told)


def test_the_products_at_a_drop_are_those_of_the_analysis_at_that_drop(row):
    groups = planted(row, FACTORS, together=1.2)
    rows = {
        (one["drop"], one["size"], one["estimator"], tuple(one["methods"])): one for one in products_by_drop(groups)
    }
    for one in products(multiplicativity(groups, Drop(0.01))):
        assert rows[0.01, one.size, one.estimator, one.methods]["net_ratio"] == one.net_ratio


def test_the_interval_of_a_product_is_that_of_its_repetitions(row):
    """Against a loop over the repetitions; a pair without all its factors is left out of one, none bounds nothing."""
    random = np.random.default_rng(0)
    found = of(planted(row, FACTORS, together=1.3, tasks="xy"), "ideal_bytes", "interpolated", 0.0)
    draws = np.exp(random.normal(0.2, 0.1, size=(len(found), 2, 400)))
    draws[random.random(draws.shape) < 0.5] = np.nan
    found = [replace(one, draws=own) for one, own in zip(found, draws, strict=True)]
    for one in products(found):
        own = [row.draws[1] for row in found if row.methods == one.methods and row.task != MEAN_TASK]
        means = []
        for repetition in zip(*own, strict=True):
            known = [value for value in repetition if not math.isnan(value)]
            means.append(math.exp(np.mean(np.log(known))))
        low, high = np.quantile(means, [0.025, 0.975])
        assert one.net_low == pytest.approx(low, rel=0.01)
        assert one.net_high == pytest.approx(high, rel=0.01)
        below = (np.sum(np.array(means) <= 1) + 1) / 401
        assert one.verdict == ("super" if 8 * below < 0.05 else "not settled")


def test_the_products_at_a_drop_have_the_intervals_of_the_analysis_at_that_drop(row):
    groups = planted(row, FACTORS, together=1.2)
    random = np.random.default_rng(0)
    drawn = {(one.model, one.task, one.levels): one.score.mean + 0.003 * random.standard_normal(40) for one in groups}
    rows = products_by_drop(groups, drawn=drawn, dof=3)
    told = products(multiplicativity(groups, Drop(0.02), drawn=drawn), 3)
    assert all(one.net_low < one.net_ratio < one.net_high for one in told if is_net(one.estimator))
    for one in told:
        own = next(
            row
            for row in rows
            if (row["drop"], row["size"], row["estimator"], row["methods"])
            == (0.02, one.size, one.estimator, list(one.methods))
        )
        assert [own[key] for key in ("low", "high", "net_low", "net_high")] == [
            one.low, one.high, one.net_low, one.net_high
        ]  # fmt: skip
