"""Intervals over rows, seeds and tasks: against scipy, statsmodels and plain loops, and on planted truths."""

import itertools
import sys

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from multipress.analysis import Outcome, analyze_cells, read_cells
from multipress.analysis.resampling import draw_groups, draw_rows
from multipress.analysis.uncertainty import (
    effect_intervals,
    holm,
    percentile_ends,
    student_quantile,
    student_tail,
)

P60, Q8 = ("pruning", 0.6), ("quantization", 8)


def outcome(right):
    return Outcome(len(right), lambda rows: right[rows].mean(axis=1))


def grid(row, rights, **more):
    """Rows and outcomes of runs of one model, task and seed: `rights` maps levels to a vector of right answers."""
    rows = [row(levels=dict(levels), score=float(right.mean()), **more) for levels, right in rights.items()]
    return rows, {made["run_id"]: outcome(right) for made, right in zip(rows, rights.values(), strict=True)}


def intervals(rows, outcomes, resamples=1000, seed=0):
    cells = read_cells(rows)
    return effect_intervals(cells, draw_rows(cells, outcomes, resamples, seed))


def test_the_interval_over_rows_of_one_block_is_the_one_that_scipy_gives(row):
    random = np.random.default_rng(0)
    dense = (random.random(400) < 0.8).astype(float)
    pruned = np.where(random.random(400) < 0.15, 1 - dense, dense)
    rows, outcomes = grid(row, {(): dense, (P60,): pruned})
    (one, *_) = intervals(rows, outcomes, resamples=20_000)
    theirs = stats.bootstrap(
        (pruned, dense), lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True, method="percentile",
        n_resamples=20_000, vectorized=True, rng=np.random.default_rng(1),
    )  # fmt: skip
    assert one.mean == pytest.approx(pruned.mean() - dense.mean())
    assert one.rows == pytest.approx(tuple(theirs.confidence_interval), abs=0.003)
    assert one.se == pytest.approx(theirs.standard_error, rel=0.03)
    assert one.se == pytest.approx((pruned - dense).std() / 20, rel=0.03)
    assert (one.low, one.high) == pytest.approx((one.mean - 1.96 * one.se, one.mean + 1.96 * one.se), abs=1e-4)
    assert one.p == pytest.approx(2 * stats.norm.sf(abs(one.mean) / one.se))
    assert (one.covers, one.dof, one.more_seeds) == ("rows", None, 0 if one.low * one.high > 0 else None)
    assert one.to_json()["levels"] == ["P60"]


def test_with_rows_that_say_nothing_new_the_interval_is_that_of_a_t_test_over_seeds(row):
    # Each run answers all rows alike, so that drawing rows changes nothing and the seeds alone spread.
    rows, outcomes = [], {}
    random = np.random.default_rng(4)
    changes = random.normal(0.01, 0.02, 5)
    for seed, change in enumerate(changes):
        made = [row(seed=seed, score=0.8), row(seed=seed, levels=dict([P60]), score=0.8 + change)]
        rows += made
        outcomes |= {one["run_id"]: Outcome(9, lambda rows, s=one["score"]: np.full(len(rows), s)) for one in made}
    one = intervals(rows, outcomes, resamples=50)[0]
    theirs = stats.ttest_1samp(changes, 0)
    assert one.p == pytest.approx(theirs.pvalue)
    assert (one.low, one.high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert (one.covers, one.dof) == ("rows and seeds", pytest.approx(4))
    settled = next(
        n for n in itertools.count()
        if abs(changes.mean()) > stats.t.ppf(0.975, 4 + n) * changes.std(ddof=1) / np.sqrt(5 + n)
    )  # fmt: skip
    assert one.more_seeds == (settled if settled <= 100 else None)


def test_the_interval_over_tasks_is_that_of_a_t_test_over_their_means(row):
    rows, outcomes, means = [], {}, []
    for task, drop in zip("abcd", (0.02, 0.05, 0.01, 0.03), strict=True):
        own = [0.8 - drop - 0.002 * seed for seed in (0, 1)]
        means.append(np.mean(own) - 0.8)
        for seed, score in enumerate(own):
            made = [row(task=task, seed=seed, score=0.8), row(task=task, seed=seed, levels=dict([P60]), score=score)]
            rows += made
            outcomes |= {one["run_id"]: Outcome(9, lambda rows, s=one["score"]: np.full(len(rows), s)) for one in made}
    one = intervals(rows, outcomes, resamples=50)[0]
    assert one.tasks == pytest.approx(tuple(stats.ttest_1samp(means, 0).confidence_interval()))


def four_seeds(row, random):
    """Dense and pruned runs that differ from seed to seed by the noise of their 300 rows alone."""
    rows, outcomes = [], {}
    for seed in range(4):
        rights = {(): (random.random(300) < 0.8).astype(float), (P60,): (random.random(300) < 0.75).astype(float)}
        more = grid(row, rights, seed=seed)
        rows += more[0]
        outcomes |= more[1]
    return rows, outcomes


def test_the_noise_of_rows_counts_once_when_seeds_share_them(row):
    # Seeds that differ by the noise of their rows alone: the variance is that of all answers together.
    random = np.random.default_rng(8)
    ratios = []
    for trial in range(60):
        rows, outcomes = four_seeds(row, random)
        one = intervals(rows, outcomes, resamples=200, seed=trial)[0]
        ratios.append(one.se**2 / ((0.8 * 0.2 + 0.75 * 0.25) / 1200))
    assert 0.9 < np.mean(ratios) < 1.35  # twice without the correction


def test_what_is_hard_for_all_runs_cancels(row):
    dense = (np.random.default_rng(0).random(300) < 0.7).astype(float)
    rows, outcomes = grid(row, {(): dense, (P60,): dense.copy()})
    assert {(one.mean, one.low, one.high, one.p) for one in intervals(rows, outcomes)} == {(0.0, 0.0, 0.0, 1.0)}


def test_blocks_are_averaged_and_told_apart(row):
    random = np.random.default_rng(5)
    rows, outcomes = [], {}
    for model, drop in (("a", 0.0), ("b", 0.3)):
        for task in ("x", "y"):
            dense = (random.random(200) < 0.9).astype(float)
            pruned = np.where(random.random(200) < drop, 0.0, dense)
            more = grid(row, {(): dense, (P60,): pruned}, model=model, task=task)
            rows += more[0]
            outcomes |= more[1]
    found = {one.where or "all": one for one in intervals(rows, outcomes)}
    assert set(found) == {"all", "a", "b", "x", "y"}
    assert found["a"].high == found["a"].low == 0
    assert found["b"].high < -0.1
    assert found["all"].mean == pytest.approx(found["b"].mean / 2)
    assert (found["all"].num_blocks, found["b"].num_blocks) == (4, 2)


def test_a_block_that_is_not_whole_and_a_run_without_predictions_are_left_out(row):
    right = np.ones(10)
    rows, outcomes = grid(row, {(): right, (P60,): right})
    outcomes.pop(rows[1]["run_id"])
    assert intervals(rows, outcomes) == []
    other = row(levels={"pruning": 0.4}, state="failed")
    assert intervals([*rows, other], outcomes) == []


def test_corrected_chances_are_those_of_statsmodels():
    random = np.random.default_rng(0)
    for size in (1, 2, 7, 30):
        p = np.where(random.random(size) < 0.3, random.random(size) / 50, random.random(size)).tolist()
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist())
    assert holm([]) == []


def test_quantiles_and_tails_are_those_of_scipy():
    for dof, law in ((1.3, stats.t(1.3)), (8, stats.t(8)), (np.inf, stats.norm())):
        assert student_quantile(0.9, dof) == pytest.approx(law.ppf(0.95))
        assert student_tail(1.7, dof) == pytest.approx(2 * law.sf(1.7))
    draws = np.random.default_rng(0).normal(size=200_000)
    assert percentile_ends(draws, draws, 5) == pytest.approx((-stats.t.ppf(0.975, 5), stats.t.ppf(0.975, 5)), abs=0.03)


def test_drawn_seeds_give_the_mean_its_variance_and_stay_paired(row):
    scores = np.array([0.81, 0.84, 0.80])
    rows = [row(seed=seed, score=s) for seed, s in enumerate(scores)]
    rows += [row(seed=seed, score=s - 0.02, levels=dict([P60])) for seed, s in enumerate(scores)]
    cells = read_cells(rows)
    drawn = draw_groups(cells, {cell.run_id: np.full(4000, cell.score) for cell in cells})
    dense, pruned = drawn.scores.values()
    assert dense.var() == pytest.approx(scores.var(ddof=1) / 3, rel=0.08)
    assert dense - pruned == pytest.approx(np.full(4000, 0.02))
    assert drawn.dof == 2


def test_a_model_with_one_seed_moves_as_much_as_the_others_trainings_do(row):
    scores = {0: (0.80, 0.82, 0.81), 1: (0.70, 0.76, 0.70)}
    rows = [
        row(model="often", seed=s, levels=dict([P60][:p]), score=x)
        for p, own in scores.items()
        for s, x in enumerate(own)
    ]
    rows += [row(model="once", levels=dict([P60][:p]), score=0.6) for p in (0, 1)]
    cells = read_cells(rows)
    drawn = draw_groups(cells, {cell.run_id: np.full(4000, cell.score) for cell in cells})
    pooled = np.mean([np.var(own, ddof=1) for own in scores.values()])
    once = [value for (model, _, _), value in drawn.scores.items() if model == "once"]
    for own in once:
        assert own.mean() == pytest.approx(0.6, abs=0.002)
        assert own.var() == pytest.approx(pooled, rel=0.08)
    assert abs(np.corrcoef(*once)[0, 1]) < 0.05
    alone = read_cells(rows[-2:])
    drawn = draw_groups(alone, {cell.run_id: np.full(10, cell.score) for cell in alone})
    assert all(np.ptp(value) == 0 for value in drawn.scores.values())
    assert drawn.dof == 0


def test_the_interval_over_other_tasks_is_no_narrower_than_that_over_these(row):
    random = np.random.default_rng(5)
    rows, outcomes = [], {}
    for task in "ab":  # which happen to agree
        dense = (np.arange(50) < 40).astype(float)
        made = grid(
            row, {(): random.permutation(dense), (P60,): random.permutation(np.roll(dense, 5) * dense)}, task=task
        )
        rows += made[0]
        outcomes |= made[1]
    one = intervals(rows, outcomes)[0]
    assert one.tasks[0] <= one.low < one.high <= one.tasks[1]


def planted(row, together, random, seeds=3):
    """Answers of the four subsets of two methods on two tasks and three models, and what they do together."""
    rows, outcomes = [], {}
    for task, model in itertools.product("xy", (1, 2, 4)):
        hard = random.random(200)
        for seed in range(seeds):
            for levels in ((), (P60,), (Q8,), (P60, Q8)):
                chance = 0.7 + 0.05 * np.log2(model) - 0.03 * len(levels) + together * (len(levels) == 2)
                chance += random.normal(0, 0.01)
                right = np.where(random.random(200) < 0.7, hard, random.random(200)) < chance
                more = grid(row, {levels: right.astype(float)}, model=f"m{model}", task=task, seed=seed)
                rows += more[0]
                outcomes |= more[1]
    return rows, outcomes


def test_intervals_cover_what_was_planted_as_often_as_they_say_and_few_verdicts_are_false(row):
    # 500 grids of three kinds are in benchmarks/coverage.py.
    random = np.random.default_rng(3)
    covered, false = [], []
    for trial in range(40):
        together = (0.0, 0.03, -0.03)[trial % 3]
        found = [
            one for one in intervals(*planted(row, together, random), resamples=100, seed=trial) if one.by == "all"
        ]
        for one in found:
            truth = together if len(one.levels) == 2 else -0.03
            covered.append(one.low <= truth <= one.high)
            false.append(one.p_holm < 0.05 and one.mean * truth <= 0)
    assert np.mean(covered) >= 0.9
    assert np.mean(false) <= 0.05


def test_seeds_are_wanted_until_the_corrected_chance_is_small_enough(row):
    found = intervals(*planted(row, 0.01, np.random.default_rng(8), seeds=2), resamples=200)
    assert len({one.p_holm < 0.05 for one in found}) == 2
    assert any(one.p < 0.05 <= one.p_holm for one in found)  # its own interval leaves 0 out, and it is not settled
    for one in found:
        assert (one.more_seeds == 0) == (one.p_holm < 0.05)


def test_an_analysis_holds_every_part_and_is_plain_json(row):
    import json

    rows, outcomes = planted(row, 0.0, np.random.default_rng(0), seeds=2)
    rows.append(row(model="m1", task="x", levels=dict([Q8]), seed=9, state="diverged"))
    found = analyze_cells(rows, outcomes, resamples=50)
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    assert found["states"] == {"done": 48, "diverged": 1}
    assert len(found["failed"]) == 1
    assert {row["levels"][0] for row in found["mixed_model"]["rows"] if len(row["levels"]) == 1} == {"P60", "Q8"}
    assert all(
        0 <= row["share"] <= 1 and row["low"] < row["score"] < row["high"] for row in found["frontier"]["weights_bytes"]
    )
    assert found["notes"] == []


def test_drawn_groups_count_the_noise_of_rows_once(row):
    # Seeds that differ by the noise of their rows alone: a change has the variance of all answers together.
    random = np.random.default_rng(2)
    ratios = []
    for trial in range(40):
        rows, outcomes = four_seeds(row, random)
        cells = read_cells(rows)
        dense, pruned = draw_groups(cells, draw_rows(cells, outcomes, 200, trial), trial).scores.values()
        ratios.append((pruned - dense).var() / ((0.8 * 0.2 + 0.75 * 0.25) / 1200))
    assert 0.9 < np.mean(ratios) < 1.4  # 2 if it counted twice


def test_without_scipy_there_are_no_intervals_and_a_note_says_so(row, monkeypatch):
    monkeypatch.setattr("multipress.analysis.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "statsmodels.regression.mixed_linear_model", None)
    rows, outcomes = planted(row, 0.0, np.random.default_rng(0), seeds=1)
    found = analyze_cells(rows, outcomes)
    assert found["intervals"]["rows"] == []
    assert "multipress[report]" in found["notes"][0]
    assert "multipress[report]" in found["mixed_model"]["note"]
    assert found["frontier"]["weights_bytes"]
