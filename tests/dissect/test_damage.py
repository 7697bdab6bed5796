"""Damage by combination over seeds (`benchmarks/damage.py`), on planted changes."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

SHAPES = {"Q8": (1, 0, 0, 0), "P60": (0, 1, 2, 0), "KD": (0, 0, 1, -3)}


@pytest.fixture
def damage(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("damage")


def row(name, value, change, layer, label):
    against = f"minilm-l6 sst2 dense seed {label[-1]}"
    context = {"artifact": label, "against": against, "layer": layer, "low": 0, "high": 0, "change": change}
    return {"name": name, "value": value, "context": context}


def planted(seed, size, noise=0.0, random=None):
    """Rows of three artifacts: likeness of two layers falls, and entropy and components of one change, by `SHAPES`."""
    random = random or np.random.default_rng(seed)
    rows = []
    for name, shape in SHAPES.items():
        first, second, entropy, components = size * np.array(shape) + noise * random.normal(size=4)
        label = f"minilm-l6 sst2 {name} seed {seed}"
        rows += [row("linear_cka", 1 - value, None, layer, label) for layer, value in enumerate((first, second), 1)]
        rows += [row("attention_entropy", 3.0, entropy, 1, label), row("pca_components", 300, components, 1, label)]
    return rows


def test_the_same_damage_of_another_size_is_alike_and_other_damage_is_not(damage):
    found = damage.changes([*planted(0, size=0.1), *planted(1, size=0.2)])
    alike = {(line["one"], line["other"]): line["mean"] for line in damage.cosines(damage.profiles(found))}
    assert all(alike[name, name] == pytest.approx(1) for name in SHAPES)
    assert alike["Q8", "P60"] == alike["Q8", "KD"] == 0
    assert 0 < alike["P60", "KD"] < 0.9


def test_artifacts_are_recognized_by_their_damage_and_noise_is_not(damage):
    random = np.random.default_rng(0)
    found = damage.changes([row for seed in range(3) for row in planted(seed, 0.1, 0.01, random)])
    nearest = damage.recognized(damage.profiles(found))
    assert len(nearest) == 9
    assert all(line["nearest"] == line["combination"] for line in nearest)
    noise = damage.changes([row for seed in range(10) for row in planted(seed, 0.0, 1.0, random)])
    right = [line["nearest"] == line["combination"] for line in damage.recognized(damage.profiles(noise))]
    assert 0.05 < np.mean(right) < 0.7


def test_pairs_share_no_model(damage):
    """Dense models against each other: of three, any two pairs have one in common."""
    random = np.random.default_rng(0)
    means = []
    for _ in range(200):
        seeds = random.normal(size=(3, 4))  # what is peculiar to each seed's dense model
        rows = []
        for seed, other in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0)):
            name = "Q8" if seed == other else "dense"
            change = (0.3 * random.normal(size=4) if seed == other else seeds[seed]) - seeds[other]
            own = [
                row("pca_components", 9, value, layer, f"a b {name} seed {seed}") for layer, value in enumerate(change)
            ]
            rows += [{**one, "context": {**one["context"], "against": f"a b dense seed {other}"}} for one in own]
        of_dense = [line for line in damage.by_layer(damage.changes(rows)) if line["combination"] == "dense"]
        assert all(line["low"] is None for line in of_dense)
        lines = damage.cosines(damage.profiles(damage.changes(rows)))
        assert [(line["one"], line["other"]) for line in lines] == [("Q8", "Q8"), ("Q8", "dense")]
        means.append([line["mean"] for line in lines])
    assert np.abs(np.mean(means, axis=0)).max() < 0.06


def test_what_is_there_twice_or_of_another_task_is_refused(damage):
    twice = planted(0, 0.1)
    other = [
        {**one, "context": {**one["context"], "artifact": "minilm-l6 cola Q8 seed 0"}} for one in planted(0, 0.1)[:2]
    ]
    with pytest.raises(SystemExit, match="twice, or is of another"):
        damage.changes([*twice, *other])
    named = [{**one, "context": {**one["context"], "artifact": "minilm-l6 sst2 Q8 seed 0 (abc)"}} for one in twice]
    with pytest.raises(SystemExit, match="twice"):
        damage.changes([*twice, *named])
    with pytest.raises(SystemExit, match="no run of a study"):
        damage.changes([{**one, "context": {**one["context"], "artifact": "folder"}} for one in twice])


def test_intervals_over_seeds_are_those_of_scipy(damage):
    found = damage.changes([row for seed, size in enumerate((0.1, 0.3, 0.2)) for row in planted(seed, size)])
    line = next(
        line for line in damage.by_layer(found) if (line["combination"], line["measure"]) == ("Q8", "linear_cka")
    )
    expected = stats.ttest_1samp([0.1, 0.3, 0.2], 0).confidence_interval()
    assert (line["mean"], line["low"], line["high"]) == pytest.approx((0.2, *expected))
    assert "| Q8 | **" not in damage.table(damage.by_layer(found), "linear_cka", 3)
    less = damage.by_layer(damage.less(found, "KD", "P60"))
    line = next(line for line in less if line["measure"] == "pca_components")
    assert (line["combination"], line["seeds"]) == ("KD less P60", pytest.approx([-0.3, -0.9, -0.6]))
    surer = damage.changes([row for seed, size in enumerate((0.19, 0.21, 0.2)) for row in planted(seed, size)])
    assert "| Q8 | **0.200 ± 0.025** | 0.000 ± 0.000 |" in damage.table(damage.by_layer(surer), "linear_cka", 3)
