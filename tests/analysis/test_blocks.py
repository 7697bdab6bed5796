"""Every model and task counts alike, however many seeds it has."""

import numpy as np
import pytest

from multipress.analysis import Outcome, read_cells
from multipress.analysis.interaction import interactions
from multipress.analysis.priority import priority
from multipress.analysis.resampling import draw_rows
from multipress.analysis.shapley import shapley_shares
from multipress.analysis.uncertainty import effect_intervals

P60, Q8 = {"pruning": 0.6}, {"quantization": 8}
# With three seeds pruning costs .01, with one it costs .05: .03 in the mean of the two, .02 in that of the four.
COSTS = {"often": (0.008, 0.010, 0.012), "once": (0.05,)}


@pytest.fixture
def rows(row):
    found = []
    for model, costs in COSTS.items():
        for seed, cost in enumerate(costs):
            for levels, score, size in (({}, 0.8, 100.0), (P60, 0.8 - cost, 50.0), (Q8, 0.8, 25.0)):
                found.append(row(model=model, seed=seed, levels=levels, score=score, size=size))
            found.append(row(model=model, seed=seed, levels=P60 | Q8, score=0.8 - cost, size=12.5))
        found.append(row(model="half", seed=len(found), score=0.7, size=50.0))  # for the price of a halving
    return found


def test_effects_and_their_intervals(rows):
    cells = read_cells(rows)
    plain = next(one for one in interactions(cells) if one.to_json()["levels"] == ["P60"])
    assert plain.overall.mean == pytest.approx(-0.03)
    assert (plain.overall.n, plain.num_blocks) == (2, 4)
    outcomes = {
        cell.run_id: Outcome(9, lambda drawn, s=cell.score: np.full(len(drawn), s)) for cell in cells if cell.is_done
    }
    found = effect_intervals(cells, draw_rows(cells, outcomes, 50, 0))
    one = next(one for one in found if one.by == "all" and one.to_json()["levels"] == ["P60"])
    assert one.mean == pytest.approx(-0.03)
    assert one.num_blocks == 4
    # Half the weight on each model; the one seed is as uncertain as one of the three.
    assert one.se == pytest.approx(np.sqrt(0.5**2 * 0.002**2 * (1 / 3 + 1)))


def test_shares_and_steps(rows):
    cells = read_cells(rows)
    (shares,) = shapley_shares(cells)
    assert shares.score == pytest.approx([0, -0.03])
    assert shares.factors["ideal_bytes"] == pytest.approx([4, 2])
    assert shares.num_blocks == 4
    step = next(one for one in priority(cells)["steps"] if (one["base"], one["add"]) == ("dense", "P60"))
    assert step["change"] == pytest.approx(-0.03)
    assert step["saved"] == pytest.approx(0.5)
    assert step["num_blocks"] == 4
