"""Probes: many trained at once are each as if trained alone, and find what is there."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression

from multipress.dissect import probes
from multipress.dissect.probe_tasks import DEV, TEST, TRAIN, Examples
from multipress.dissect.probes import Probed, _mean, _rows, _token_counts, _usable, features_of, train_probes
from multipress.dissect.reading import Reading
from multipress.errors import DataError
from multipress.runtime.tokenizer import Encoding


def task_of(num=600, classes=3, seed=0, combine="one"):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=num)
    split = np.repeat([TRAIN, DEV, TEST], [num // 2, num // 4, num - num // 2 - num // 4])
    spans = np.stack([np.arange(num), np.zeros(num, int), np.ones(num, int)], axis=1)[:, None]
    control = random.integers(classes, size=num)
    return Examples("t", combine, spans, labels, control, split, np.arange(num), classes)


def layers_of(task, noise, seed=0):
    """Features (L, N, D) in which the labels are hidden under so much noise."""
    random = np.random.default_rng(seed)
    places = random.standard_normal((task.num_classes, 8))
    return torch.from_numpy(
        np.stack([places[task.labels] + n * random.standard_normal((len(task.labels), 8)) for n in noise])
    ).float()


def test_probes_trained_together_are_those_trained_one_by_one():
    task = task_of()
    features = layers_of(task, (0.5, 2.0, 5.0))
    right, control = train_probes(features, task, [0, 1, 2], 2)
    for layer in range(3):
        alone, alone_control = train_probes(features[layer : layer + 1], task, [layer], 2)
        assert torch.equal(alone[0], right[layer])
        assert torch.equal(alone_control[0], control[layer])
    assert torch.equal(train_probes(features, task, [0, 1, 2], 1)[0][:, 0], right[:, 0])


def test_examples_are_scored_in_parts_as_they_are_at_once(monkeypatch):
    task = task_of()
    features = layers_of(task, (0.5, 2.0))
    at_once = train_probes(features, task, [0, 1], 2)
    monkeypatch.setattr(probes, "SCORED", 7)
    assert all(map(torch.equal, train_probes(features, task, [0, 1], 2), at_once))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells a process its highest memory")
def test_the_memory_of_many_classes_is_foreseen():
    """One layer in a process of its own; what it takes beside the features, by the system's count."""
    script = """
import numpy as np, torch
from multipress.dissect import probes
from multipress.dissect.probe_tasks import Examples
probes.EPOCHS = 1
num, classes, width = 3000, 1000, 256
random = np.random.default_rng(0)
labels, split = random.integers(classes, size=num), np.repeat([0, 1, 2], 1000)
spans = np.zeros((num, 1, 3), int)
task = Examples("t", "one", spans, labels, labels[::-1].copy(), split, np.arange(num), classes)
small = Examples("t", "one", spans[::50], labels[::50] % 2, labels[::50] % 2, split[::50], np.arange(60), 2)
probes.train_probes(torch.randn(1, 60, width), small, [0], 1)
def highest():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
open("/proc/self/clear_refs", "w").write("5")  # the highest so far is that of now
before = highest()
probes.train_probes(torch.randn(1, num, width), task, [0], 3)
print(highest() - before, probes._bytes_of_layer(task, width, 3))
"""
    taken, foreseen = map(
        int, subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout.split()
    )
    assert taken < 1.2 * foreseen
    assert foreseen < 3 * taken


def test_a_probe_finds_as_much_as_scikit_learns_regression():
    task = task_of(num=2000)
    features = layers_of(task, (1.0, 3.0))
    right, control = train_probes(features, task, [0, 1], 3)
    for layer in range(2):
        x = features[layer].numpy()
        train, test = task.split == TRAIN, task.split == TEST
        second = LogisticRegression(C=1e4).fit(x[train], task.labels[train]).score(x[test], task.labels[test])
        assert right[layer].mean().item() == pytest.approx(second, abs=0.02)
    # Control labels that nothing tells are guessed.
    assert control.mean().item() == pytest.approx(1 / 3, abs=0.06)
    assert right[0].mean() > right[1].mean() + 0.2


def test_features_are_on_the_scale_of_the_training_examples():
    random = np.random.default_rng(0)
    state = (5 + 3 * random.standard_normal((40, 4))).astype(np.float32)
    state[:, 3] = 7  # a neuron that never changes
    index = random.integers(40, size=(30, 2))
    split = np.repeat([TRAIN, DEV, TEST], 10)
    task = task_of(num=30)
    pair = features_of(state, index, replace(task, combine="pair", split=split)).numpy()
    assert pair.shape == (30, 12)
    assert pair[:10].mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert pair[:10].std(axis=0)[[0, 1, 2, 4, 5, 6, 8, 9, 10]] == pytest.approx(1, abs=1e-4)
    turned = replace(task, combine="difference", split=split)
    first = features_of(state, index, turned)
    assert torch.equal(features_of(state, index[:, ::-1].copy(), turned), -first)


def test_the_interval_knows_that_examples_of_a_sentence_move_together():
    random = np.random.default_rng(1)
    values = random.random(200)
    alone = _mean(values, np.arange(200), 0.0)
    assert alone == pytest.approx((values.mean(), *stats.ttest_1samp(values, 0).confidence_interval()))
    repeated = _mean(np.repeat(values, 5), np.repeat(np.arange(200), 5), 0.0)
    assert repeated == pytest.approx(alone)


def test_the_interval_of_a_change_holds_what_other_trainings_of_the_probe_would_give():
    """Two probes of one truth: of examples that all are told, only the trainings differ."""
    random = np.random.default_rng(0)
    task, missed = replace(task_of(400), split=np.where(np.arange(400) < 1, TRAIN, TEST)), 0
    for _ in range(300):
        sides = []
        for _ in range(2):
            by_seed = 0.7 + 0.05 * random.standard_normal((1, 3))
            right = np.full((1, 399), by_seed.mean())
            sides.append(Probed(right, np.zeros((1, 399)), by_seed, np.zeros((1, 3))))
        row = next(_rows(task, *sides, 3))
        missed += not row.context["change_low"] <= 0 <= row.context["change_high"]
    assert missed / 300 < 0.06  # of a difference of two such it is a little wide


def probed(task, features, seeds=2):
    """What probes of all layers told, over seeds and over test examples."""
    right, control = (side.numpy() for side in train_probes(features, task, range(len(features)), seeds))
    return Probed(right.mean(axis=1), control.mean(axis=1), right.mean(axis=2), control.mean(axis=2))


def test_selectivity_is_what_the_labels_tell_more_than_the_control_labels():
    task = task_of(num=1200)
    hidden = replace(task, labels=task.control, control=task.labels)
    features = layers_of(task, (0.3, 5.0))
    for asked, told, guessed in ((task, "accuracy", "control"), (hidden, "control", "accuracy")):
        own, other = probed(asked, features), probed(asked, features.flip(0))
        rows = {(row.name, row.context["layer"]): row for row in _rows(asked, own, other, 2)}
        for layer in range(2):
            row = rows["probe_selectivity", layer]
            there = row.context["against_layer"]
            means = {"accuracy": own.right[layer].mean(), "control": own.control[layer].mean()}
            assert rows["probe_accuracy", layer].value == pytest.approx(means["accuracy"])
            assert row.value == pytest.approx(means["accuracy"] - means["control"])
            assert row.context["against_value"] == pytest.approx((other.right - other.control)[there].mean())
            assert row.context["change"] == pytest.approx(row.value - row.context["against_value"])
            if layer == 0:
                assert (means[told], means[guessed]) == pytest.approx((1, 1 / 3), abs=0.08)
                assert row.value == pytest.approx(2 / 3 if told == "accuracy" else -2 / 3, abs=0.1)


def test_trainings_that_move_labels_and_control_labels_alike_do_not_move_selectivity():
    task, by_seed = replace(task_of(400), split=np.where(np.arange(400) < 1, TRAIN, TEST)), np.array([[0.5, 0.7, 0.9]])
    side = Probed(np.full((1, 399), 0.7), np.full((1, 399), 0.4), by_seed, by_seed - 0.3)
    accuracy, selectivity = _rows(task, side, side, 3)
    assert (selectivity.context["low"], selectivity.context["high"]) == pytest.approx((0.3, 0.3))
    assert accuracy.context["high"] - accuracy.context["low"] > 0.1


def read(num_words, words):
    """A row of so many words of which these have a token, between special tokens."""
    units = np.array([0, *(word + 1 for word in words), num_words + 1])
    return Reading(Encoding([0] * len(units), [0] * len(units)), units, num_words)


@pytest.mark.parametrize("combine", ["one", "pair"])
def test_an_example_is_used_if_both_models_read_a_word_of_each_of_its_spans(combine):
    random = np.random.default_rng(0)
    has = [random.random((40, 9)) < 0.6 for _ in range(2)]
    readings = [[read(9, np.flatnonzero(row)) for row in side] for side in has]
    ends = [np.sort(random.choice(10, size=2, replace=False)) for _ in range(600)]
    spans = np.array([[random.integers(40), *one] for one in ends]).reshape(-1, 1 if combine == "one" else 2, 3)
    task = replace(task_of(len(spans), combine=combine), spans=spans)
    usable = _usable(task, [_token_counts(*pair) for pair in zip(*readings, strict=True)])
    slow = [
        all(any(has[0][row, word] and has[1][row, word] for word in range(start, end)) for row, start, end in one)
        for one in spans.tolist()
    ]
    assert 0.3 < np.mean(slow) < 0.9
    assert usable.cluster.tolist() == np.flatnonzero(slow).tolist()
    for name in ("spans", "labels", "control", "split"):
        assert np.array_equal(getattr(usable, name), getattr(task, name)[usable.cluster])


def test_a_split_of_which_nothing_is_read_is_an_error():
    task = task_of(40)
    counts = [np.array([0, int(split != DEV)]) for split in task.split]
    with pytest.raises(DataError, match="no example"):
        _usable(task, counts)
