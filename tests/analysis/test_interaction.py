import itertools
import random

import pytest

from multipress.analysis import read_cells
from multipress.analysis.interaction import interactions

AXES = {"quantization": [8], "distillation": [2.0], "pruning": [0.4, 0.6]}


def grid(row, score, models="ab", tasks="xy", seeds=(0, 1)):
    rows = []
    for model, task, seed in itertools.product(models, tasks, seeds):
        for choice in itertools.product(*[[None, *values] for values in AXES.values()]):
            levels = {name: v for name, v in zip(AXES, choice, strict=True) if v is not None}
            rows.append(row(model=model, task=task, seed=seed, levels=levels, score=score(model, task, levels)))
    return rows


def test_planted_effects_and_interactions_are_found(row):
    effects = {8: -0.01, 2.0: 0.03, 0.4: -0.02, 0.6: -0.05}

    def score(model, task, levels):
        total = 0.8 + 0.1 * (model == "a") + 0.05 * (task == "x")
        total += sum(effects[value] for value in levels.values())
        return total + 0.02 * ("distillation" in levels and levels.get("pruning") == 0.6)

    found = {tuple(one.to_json()["levels"]): one for one in interactions(read_cells(grid(row, score)))}
    assert len(found) == 11
    expected = {("Q8",): -0.01, ("KD",): 0.03, ("P40",): -0.02, ("P60",): -0.05, ("KD", "P60"): 0.02}
    for levels, one in found.items():
        assert one.overall.mean == pytest.approx(expected.get(levels, 0.0), abs=1e-12), levels
        assert (one.overall.n, one.num_blocks) == (4, 8)
        assert one.overall.sd == pytest.approx(0, abs=1e-12)
        assert one.num_missing == 0
        assert {name: s.n for name, s in one.by_model.items()} == {"a": 2, "b": 2}


def test_an_effect_of_one_model_shows_in_that_model_alone(row):
    def score(model, task, levels):
        return 0.8 + 0.1 * (model == "a" and "pruning" in levels)

    found = interactions(read_cells(grid(row, score)))
    one = next(one for one in found if one.to_json()["levels"] == ["P40"])
    assert one.by_model["a"].mean == pytest.approx(0.1)
    assert one.by_model["b"].mean == pytest.approx(0)
    assert one.overall.mean == pytest.approx(0.05)
    assert one.by_task["x"].mean == pytest.approx(0.05)


def test_a_block_that_lost_a_cell_is_counted_as_missing_and_never_filled(row):
    rng = random.Random(0)
    rows = grid(row, lambda *_: rng.random())
    lost = next(i for i, one in enumerate(rows) if one["methods"] == ["quantization"])
    rows[lost] = {**rows[lost], "state": "failed", "score": None}
    for one in interactions(read_cells(rows)):
        hit = "quantization" in one.to_json()["methods"]
        assert (one.num_blocks, one.num_missing) == ((7, 1) if hit else (8, 0))


def test_a_combination_without_its_parts_has_no_interaction(row):
    assert interactions(read_cells([row(), row(levels={"pruning": 0.4, "quantization": 8})])) == []
