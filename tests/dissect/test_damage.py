"""Damage by combination over seeds (`benchmarks/damage.py`), on planted changes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "damage.py"
SHAPES = {"Q8": (1, 0, 0, 0), "P60": (0, 1, 2, 0), "KD": (0, 0, 1, -3)}


@pytest.fixture(scope="module")
def damage():
    spec = importlib.util.spec_from_file_location("damage", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name, value, change, layer, label):
    context = {"artifact": label, "against": "dense", "layer": layer, "low": 0, "high": 0, "change": change}
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
    assert all(label.startswith(f"{name} ") for label, name in nearest.items())
    noise = damage.changes([row for seed in range(30) for row in planted(seed, 0.0, 1.0, random)])
    share = np.mean([label.startswith(f"{name} ") for label, name in damage.recognized(damage.profiles(noise)).items()])
    assert 0.15 < share < 0.55


def test_intervals_over_seeds_are_those_of_scipy(damage):
    found = damage.changes([row for seed, size in enumerate((0.1, 0.3, 0.2)) for row in planted(seed, size)])
    line = next(
        line for line in damage.by_layer(found) if (line["combination"], line["measure"]) == ("Q8", "linear_cka")
    )
    expected = stats.ttest_1samp([0.1, 0.3, 0.2], 0).confidence_interval()
    assert (line["mean"], line["low"], line["high"]) == pytest.approx((0.2, *expected))
    assert "| Q8 | **" not in damage.table(damage.by_layer(found), "linear_cka", 3)
    surer = damage.changes([row for seed, size in enumerate((0.19, 0.21, 0.2)) for row in planted(seed, size)])
    assert "| Q8 | **0.200 ± 0.025** | 0.000 ± 0.000 |" in damage.table(damage.by_layer(surer), "linear_cka", 3)
