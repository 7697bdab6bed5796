"""Intervals over validation rows: against scipy, on planted truths, and what is shared between runs."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from multipress.analysis import read_cells
from multipress.analysis.uncertainty import Outcome, example_intervals


def outcome(right):
    return Outcome(len(right), lambda rows: right[rows].mean(axis=1))


def grid(row, rights, **more):
    """Rows and outcomes of runs of one model, task and seed: `rights` maps levels to a vector of right answers."""
    rows = [row(levels=dict(levels), score=float(right.mean()), **more) for levels, right in rights.items()]
    return rows, {made["run_id"]: outcome(right) for made, right in zip(rows, rights.values(), strict=True)}


def test_an_effect_of_one_block_has_the_interval_that_scipy_gives(row):
    random = np.random.default_rng(0)
    dense = (random.random(400) < 0.8).astype(float)
    pruned = np.where(random.random(400) < 0.15, 1 - dense, dense)
    rows, outcomes = grid(row, {(): dense, (("pruning", 0.6),): pruned})
    (one, *_) = example_intervals(read_cells(rows), outcomes, resamples=20_000)
    theirs = bootstrap(
        (pruned, dense), lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True, method="percentile",
        n_resamples=20_000, vectorized=True, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert one.mean == pytest.approx(pruned.mean() - dense.mean())
    assert (one.low, one.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)
    assert one.to_json()["levels"] == ["P60"]


def test_what_is_hard_for_all_runs_cancels(row):
    dense = (np.random.default_rng(0).random(300) < 0.7).astype(float)
    rows, outcomes = grid(row, {(): dense, (("pruning", 0.6),): dense.copy()})
    assert {(one.mean, one.low, one.high) for one in example_intervals(read_cells(rows), outcomes)} == {(0.0, 0.0, 0.0)}


def test_intervals_cover_a_planted_interaction_as_often_as_they_say(row):
    # Right answers are drawn from known chances, so that the truth of other rows is known.
    chances = {(): 0.8, (("pruning", 0.6),): 0.7, (("quantization", 8),): 0.78, "both": 0.72}
    truth = chances["both"] - 0.7 - 0.78 + 0.8
    random = np.random.default_rng(3)
    covered, widths = 0, []
    for trial in range(300):
        hard = random.random(250)  # one number a row for all runs, so that their answers go together
        rights = {
            (("pruning", 0.6), ("quantization", 8)) if key == "both" else key: (
                np.where(random.random(250) < 0.5, hard, random.random(250)) < chance
            ).astype(float)
            for key, chance in chances.items()
        }
        rows, outcomes = grid(row, rights)
        found = example_intervals(read_cells(rows), outcomes, resamples=200, seed=trial)
        one = next(one for one in found if len(one.levels) == 2 and one.by == "all")
        covered += one.low <= truth <= one.high
        widths.append(one.high - one.low)
    assert 0.91 <= covered / 300 <= 0.98
    assert 0.1 < np.mean(widths) < 0.4


def test_blocks_are_averaged_and_told_apart(row):
    random = np.random.default_rng(5)
    rows, outcomes = [], {}
    for model, drop in (("a", 0.0), ("b", 0.3)):
        for task in ("x", "y"):
            dense = (random.random(200) < 0.9).astype(float)
            pruned = np.where(random.random(200) < drop, 0.0, dense)
            more = grid(row, {(): dense, (("pruning", 0.6),): pruned}, model=model, task=task)
            rows += more[0]
            outcomes |= more[1]
    found = {one.where or "all": one for one in example_intervals(read_cells(rows), outcomes)}
    assert set(found) == {"all", "a", "b", "x", "y"}
    assert found["a"].high == found["a"].low == 0
    assert found["b"].high < -0.1
    assert found["all"].mean == pytest.approx(found["b"].mean / 2)
    assert (found["all"].num_blocks, found["b"].num_blocks) == (4, 2)


def test_a_block_that_is_not_whole_and_a_run_without_predictions_are_left_out(row):
    right = np.ones(10)
    rows, outcomes = grid(row, {(): right, (("pruning", 0.6),): right})
    outcomes.pop(rows[1]["run_id"])
    assert example_intervals(read_cells(rows), outcomes) == []
    other = row(levels={"pruning": 0.4}, state="failed")
    assert example_intervals(read_cells([*rows, other]), outcomes) == []
