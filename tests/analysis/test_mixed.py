"""The mixed model: equal to plain means on whole grids, to statsmodels' formulas, and quiet where it cannot be."""

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import mixedlm

from multipress.analysis import read_cells
from multipress.analysis.interaction import interactions
from multipress.analysis.mixed import mixed_model


def grid(row, random, seeds=2, tasks="xyz"):
    rows = []
    for task, model, seed in itertools.product(tasks, "ab", range(seeds)):
        place = {"x": 0.05, "y": -0.04, "z": 0.0}[task] + 0.03 * (model == "a") + random.normal(0, 0.01)
        for names in ((), ("pruning",), ("quantization",), ("pruning", "quantization")):
            score = 0.8 + place - 0.02 * ("pruning" in names) + random.normal(0, 0.004)
            levels = {name: {"pruning": 0.6, "quantization": 8}[name] for name in names}
            rows.append(row(model=model, task=task, seed=seed, levels=levels, score=score))
    return read_cells(rows)


def test_on_a_whole_grid_the_coefficients_are_the_plain_means(row):
    cells = grid(row, np.random.default_rng(0))
    plain = {tuple(one.to_json()["levels"]): one.overall.mean for one in interactions(cells)}
    found = mixed_model(cells)
    assert len(found["rows"]) == 3
    for one in found["rows"]:
        assert one["mean"] == pytest.approx(plain[tuple(one["levels"])], abs=1e-6)
        assert one["low"] < one["mean"] < one["high"]
    pruning = next(one for one in found["rows"] if one["levels"] == ["P60"])
    assert pruning["p_holm"] < 0.001
    assert pruning["low"] < -0.02 < pruning["high"]


@pytest.mark.filterwarnings("ignore:.*boundary.*", "ignore:Maximum number", "ignore:.*optimization failed")
def test_the_fit_is_the_one_of_statsmodels_formula(row):
    cells = grid(row, np.random.default_rng(1))[:-1]  # one cell is missing
    frame = pd.DataFrame(
        {
            "score": [cell.score for cell in cells],
            "task": [cell.task for cell in cells],
            "model": [cell.model for cell in cells],
            "seed": [str(cell.seed) for cell in cells],
            "p": [float("P60" in cell.label) for cell in cells],
            "q": [float("Q8" in cell.label) for cell in cells],
        }
    )
    parts = {"m": "0 + C(model)", "s": "0 + C(model):C(seed)", "pp": "0 + C(model):p", "qq": "0 + C(model):q"}
    theirs = mixedlm("score ~ p + q + p:q", frame, groups="task", re_formula="1", vc_formula=parts).fit(method="powell")
    found = {tuple(one["levels"]): one for one in mixed_model(cells)["rows"]}
    for levels, name in ((("P60",), "p"), (("Q8",), "q"), (("Q8", "P60"), "p:q")):
        assert found[levels]["mean"] == pytest.approx(theirs.fe_params[name], abs=2e-4)
        half = (found[levels]["high"] - found[levels]["low"]) / 2
        assert half == pytest.approx(stats.t.ppf(0.975, 5) * theirs.bse_fe[name], rel=0.1)  # six places


def test_where_places_differ_the_interval_is_that_of_a_t_test_over_them(row):
    """An independent way to the same: the effect of each model and task, then scipy's t test."""
    random = np.random.default_rng(4)
    rows, effects = [], []
    for task, model in itertools.product("xyz", "abcd"):
        level, effect = random.normal(0.8, 0.05), random.normal(-0.03, 0.02)
        own = []
        for seed in range(3):
            scores = [level + random.normal(0, 0.002), level + effect + random.normal(0, 0.002)]
            own.append(scores[1] - scores[0])
            for levels, score in zip(({}, {"pruning": 0.6}), scores, strict=True):
                rows.append(row(model=model, task=task, seed=seed, levels=levels, score=score))
        effects.append(np.mean(own))
    (found,) = mixed_model(read_cells(rows))["rows"]
    low, high = stats.ttest_1samp(effects, 0).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.03 * (high - low))


def test_what_cannot_be_fitted_says_why(row, monkeypatch):
    cells = grid(row, np.random.default_rng(0))
    assert "too few" in mixed_model(cells[:5])["note"]
    same = read_cells([row(seed=s, levels=one, score=0.5) for s in range(5) for one in ({}, {"pruning": 0.6})])
    assert "do not differ" in mixed_model(same)["note"]
    monkeypatch.setitem(sys.modules, "statsmodels.regression.mixed_linear_model", None)
    found = mixed_model(cells)
    assert found["rows"] == []
    assert "multipress[report]" in found["note"]
