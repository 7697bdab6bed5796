"""What a linear classifier reads off each frozen layer: trained for all layers, seeds and controls at once.

A difference of two models in what is read off says what was lost or gained, if the control, whose labels only words
learned by heart can give, did not move with it (Hewitt and Liang, 2019: selectivity).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multipress.analysis.uncertainty import student_quantile
from multipress.checkpoint import load_model
from multipress.dissect.capture import Capture, Wanted, capture
from multipress.dissect.layers import Found
from multipress.dissect.probe_tasks import DEV, TEST, TRAIN, Examples, Source, load_source, sources_of
from multipress.dissect.reading import Reading, Span, read_words
from multipress.dissect.side import Side, same_depth
from multipress.errors import DataError
from multipress.reproducibility import seed_for

__all__ = ["Probed", "Prober", "features_of", "train_probes"]

EPOCHS = 25
PATIENCE = 3
BATCH = 256
LEARNING_RATE = 3e-3
SCORED = 1024  # examples whose scores are held at once
_LEVEL = 0.95


@dataclass(frozen=True)
class Probed:
    """What probes of one task told on the test examples.

    Args:
        right: Share of the seeds that were right, of each layer and test example (L, N).
        control: The same of the control labels (L, N).
        by_seed: Accuracy (L, S).
        control_by_seed: The same of the control labels (L, S).
    """

    right: np.ndarray
    control: np.ndarray
    by_seed: np.ndarray
    control_by_seed: np.ndarray


class Prober:
    """Probes artifacts against a reference; what was told of the reference is kept while the examples stay the same.

    Args:
        reference: The artifact that others are compared with.
        names: Probe tasks.
        data_dir: The data folder.
        seeds: How many times each probe is trained.
        memory_mb: Most memory for features and for a model's activations.
    """

    def __init__(
        self, reference: Side, names: Sequence[str], data_dir: Path | None, seeds: int, memory_mb: int
    ) -> None:
        self._reference, self._seeds, self._memory_mb = reference, seeds, memory_mb
        # All data is read first, so that what is missing shows before anything is computed.
        self._sources = {source: load_source(source, tasks, data_dir) for source, tasks in sources_of(names).items()}
        self._known: dict[str, tuple[np.ndarray, Probed]] = {}

    @property
    def sha256(self) -> str:
        """Hash of all examples, of the names and the texts."""
        digest = hashlib.sha256()
        for source in self._sources.values():
            digest.update(json.dumps([source.rows, sorted(source.tasks)]).encode())
            for _, task in sorted(source.tasks.items()):
                for values in (task.spans, task.labels, task.control, task.split, task.cluster):
                    digest.update(np.ascontiguousarray(values, dtype=np.int64).data)
        return digest.hexdigest()

    def rows_of(self, side: Side, folder: Path, show: Callable[[str, int, int | None], None]) -> Iterator[Found]:
        """The rows of all tasks for one artifact; files of the moment go into `folder`."""
        for source in self._sources.values():
            readings = [read_words(one.artifact, source.rows) for one in (self._reference, side)]
            there = [_token_counts(first, second) for first, second in zip(*readings, strict=True)]
            tasks = {name: _usable(task, there) for name, task in source.tasks.items()}
            own = self._probe(side, readings[1], source, tasks, folder, show)
            known = {name: self._known[name] for name in tasks if name in self._known}
            fresh = {
                name: task
                for name, task in tasks.items()
                if name not in known or not np.array_equal(known[name][0], task.spans)
            }
            if fresh:
                probed = self._probe(self._reference, readings[0], source, fresh, folder, show)
                self._known |= {name: (task.spans, probed[name]) for name, task in fresh.items()}
            for name, task in tasks.items():
                yield from _rows(task, own[name], self._known[name][1], self._seeds)

    def _probe(
        self,
        side: Side,
        readings: list[Reading],
        source: Source,
        tasks: dict[str, Examples],
        folder: Path,
        show: Callable[[str, int, int | None], None],
    ) -> dict[str, Probed]:
        spans: list[set[Span]] = [set() for _ in source.rows]
        for task in tasks.values():
            for row, start, end in task.spans.reshape(-1, 3).tolist():
                spans[row].add((start, end))
        ordered = [sorted(one) for one in spans]
        reads = partial(show, f"{side.label}: reads for {', '.join(tasks)}")
        model, wanted = load_model(side.artifact.folder), Wanted(readings, ordered)
        captured = capture(model, wanted, folder / "probes", memory_mb=self._memory_mb, on_progress=reads)
        places: dict[tuple[int, ...], int] = {
            (row, *span): i for i, (row, span) in enumerate((r, s) for r, own in enumerate(ordered) for s in own)
        }
        found = {}
        for number, (name, task) in enumerate(tasks.items()):
            show(f"{side.label}: trains probes", number, len(tasks))
            found[name] = self._train(captured, task, places)
        shutil.rmtree(folder / "probes")
        return found

    def _train(self, captured: Capture, task: Examples, places: dict[tuple[int, ...], int]) -> Probed:
        index = np.array([[places[row, start, end] for row, start, end in one] for one in task.spans.tolist()])
        width = captured.states[0].shape[1] * (3 if task.combine == "pair" else 1)
        at_once = max(1, int(self._memory_mb * 1e6 / _bytes_of_layer(task, width, self._seeds)))
        parts = []
        for first in range(0, len(captured.states), at_once):
            layers = range(first, min(first + at_once, len(captured.states)))
            features = torch.stack([features_of(captured.states[layer], index, task) for layer in layers])
            parts.append(train_probes(features, task, list(layers), self._seeds))
        right, control = (torch.cat(side).numpy() for side in zip(*parts, strict=True))  # (L, S, N)
        return Probed(right.mean(axis=1), control.mean(axis=1), right.mean(axis=2), control.mean(axis=2))


def _bytes_of_layer(task: Examples, width: int, seeds: int) -> int:
    """Most memory that the probes of one layer take: its features twice, weights and what Adam keeps, scores."""
    examples = [int(np.sum(task.split == part)) for part in (TRAIN, DEV, TEST)]
    outputs = 2 * task.num_classes
    numbers = 2 * sum(examples) * width + 8 * seeds * width * outputs + 2 * seeds * BATCH * width
    return 4 * (numbers + 4 * seeds * max(BATCH, *(min(SCORED, count) for count in examples[1:])) * outputs)


def _token_counts(first: Reading, second: Reading) -> np.ndarray:
    """How many of the first w words have a token in both readings (words + 1,)."""
    units = np.intersect1d(first.units, second.units)
    has = np.zeros(first.num_words + 1, dtype=int)
    has[units[(units > 0) & (units <= first.num_words)]] = 1
    return np.cumsum(has)


def _usable(task: Examples, counts: list[np.ndarray]) -> Examples:
    """The examples of which both models read something of each span."""
    kept = np.array(
        [all(counts[row][end] > counts[row][start] for row, start, end in one) for one in task.spans.tolist()]
    )
    split = task.split[kept]
    if any(not np.any(split == part) for part in (TRAIN, DEV, TEST)):
        raise DataError(f"The probe {task.name} has a split of which the models read no example; their texts are cut.")
    return replace(
        task, spans=task.spans[kept], labels=task.labels[kept], control=task.control[kept], split=split,
        cluster=task.cluster[kept],
    )  # fmt: skip


def features_of(state: np.ndarray, index: np.ndarray, task: Examples) -> Tensor:
    """A layer's features of each example (N, D'), on the scale of the training examples.

    Args:
        state: Vectors of spans (S, D).
        index: The spans of each example (N, K).
        task: Says how two vectors become one.
    """
    vectors = [np.asarray(state)[index[:, side]] for side in range(index.shape[1])]
    if task.combine == "pair":
        vectors = [np.concatenate([vectors[0], vectors[1], vectors[0] * vectors[1]], axis=1)]
    elif task.combine == "difference":
        vectors = [vectors[0] - vectors[1]]
    features = vectors[0]
    of_train = features[task.split == TRAIN]
    # The difference of two sentences has no mean to take off: turned around, it is as good an example.
    mean = 0.0 if task.combine == "difference" else of_train.mean(axis=0)
    scale = of_train.std(axis=0)
    return torch.from_numpy(((features - mean) / np.where(scale > 1e-8, scale, 1.0)).astype(np.float32))


def train_probes(features: Tensor, task: Examples, layers: Sequence[int], seeds: int) -> tuple[Tensor, Tensor]:
    """Train a multinomial logistic regression on each layer, seed, and kind of label, all in the same steps.

    Each is a training of its own: it stops after `PATIENCE` epochs without a lower loss on the development examples,
    and the weights of its best epoch are used.

    Args:
        features: (L, N, D).
        task: Labels, control labels and splits.
        layers: Number of each layer, which with the seed decides its first weights.
        seeds: How many seeds, from 0; a seed also decides the order of the examples.

    Returns:
        Whether each test example was right, for the labels and for the control labels (L, S, N) as 0 or 1.
    """
    num_layers, _, width = features.shape
    train, dev, test = (torch.from_numpy(np.flatnonzero(task.split == part)) for part in (TRAIN, DEV, TEST))
    targets = torch.from_numpy(np.stack([task.labels, task.control], axis=1)).long()  # (N, 2)
    outputs = 2 * task.num_classes
    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    weights = torch.stack(
        [torch.stack([_first(width, outputs, layer, seed) for seed in range(seeds)]) for layer in layers]
    )
    state = [weights.requires_grad_(), torch.zeros(num_layers, seeds, 1, outputs, requires_grad=True)]
    optimizer = torch.optim.Adam(state, lr=LEARNING_RATE)
    best = [value.detach().clone() for value in state]
    lowest = torch.full((num_layers, seeds, 2), torch.inf)
    waited = torch.zeros(num_layers, seeds, 2)
    for _ in range(EPOCHS):
        orders = torch.stack([train[torch.randperm(len(train), generator=one)] for one in generators])  # (S, N)
        for first in range(0, len(train), BATCH):
            rows = orders[:, first : first + BATCH]
            # One index for all seeds takes a third of the time of one with two axes.
            batch = features.index_select(1, rows.flatten()).unflatten(1, rows.shape)  # (L, S, B, D)
            loss = _losses(batch, targets[rows], *state).mean(dim=2).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            parts = [_losses(features[:, rows][:, None], targets[rows][None], *state) for rows in dev.split(SCORED)]
            losses = torch.cat(parts, dim=2).mean(dim=2)  # (L, S, 2)
            better = (losses < lowest) & (waited < PATIENCE)
            waited = torch.where(better, 0.0, waited + 1)
            lowest = torch.where(better, losses, lowest)
            chosen = better.repeat_interleave(task.num_classes, dim=2)[:, :, None]  # (L, S, 1, 2C)
            best = [torch.where(chosen, value, old) for value, old in zip(state, best, strict=True)]
        if bool((waited >= PATIENCE).all()):
            break
    told = [_scores(features[:, rows][:, None], *best).argmax(dim=-1) for rows in test.split(SCORED)]
    right = (torch.cat(told, dim=2) == targets[test]).float()  # (L, S, N, 2)
    return right[..., 0], right[..., 1]


def _first(width: int, outputs: int, layer: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed_for("probe", layer, seed) % 2**63)
    return torch.empty(width, outputs).normal_(0.0, 0.01, generator=generator)


def _scores(features: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Scores of every class (L, S, B, 2, C) from features (L, S or 1, B, D)."""
    return (features @ weights + bias).unflatten(-1, (2, -1))


def _losses(features: Tensor, targets: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Cross entropy of every example (L, S, B, 2); `targets` are (S or 1, B, 2)."""
    shares = _scores(features, weights, bias).log_softmax(dim=-1)
    index = targets[None, ..., None].expand(*shares.shape[:-1], 1)
    return -shares.gather(-1, index)[..., 0]


def _rows(task: Examples, own: Probed, other: Probed, seeds: int) -> Iterator[Found]:
    """Accuracy and selectivity of each layer, with intervals over test sentences and over trainings of the probe."""
    test = task.split == TEST
    clusters = task.cluster[test]
    most_frequent = np.bincount(task.labels[task.split == TRAIN]).argmax()
    facts = {
        "probe": task.name,
        "classes": task.num_classes,
        "majority": float(np.mean(task.labels[test] == most_frequent)),
        "train_examples": int(np.sum(task.split == TRAIN)),
        "test_examples": int(test.sum()),
        "seeds": seeds,
    }
    deep = same_depth(len(own.right), len(other.right))
    for layer, there in enumerate(deep):
        around: dict[str, Any] = {**facts, "layer": layer, "against_layer": there}
        sides = ((own, layer), (other, there))
        pairs = {
            "probe_accuracy": [(one.right[n], one.by_seed[n]) for one, n in sides],
            "probe_selectivity": [
                (one.right[n] - one.control[n], one.by_seed[n] - one.control_by_seed[n]) for one, n in sides
            ],
        }
        for name, ((values, trained), (others, trained_there)) in pairs.items():
            spread, spread_there = _seed_variance(trained), _seed_variance(trained_there)
            value, low, high = _mean(values, clusters, spread)
            change, change_low, change_high = _mean(values - others, clusters, spread + spread_there)
            context = {
                **around,
                "low": low,
                "high": high,
                "against_value": float(others.mean()),
                "change": change,
                "change_low": change_low,
                "change_high": change_high,
            }
            if name == "probe_accuracy" and seeds > 1:
                context["seed_sd"] = float(own.by_seed[layer].std(ddof=1))
            yield Found(name, value, "share", context)


def _seed_variance(by_seed: np.ndarray) -> float:
    """Variance, over trainings of the probe, of their mean accuracy; 0 where there was one."""
    seeds = len(by_seed)
    return float(by_seed.var(ddof=1)) / seeds * _of_few(seeds) if seeds > 1 else 0.0


def _of_few(number: int) -> float:
    """How many times larger a variance must be taken that so few numbers tell, that 95 % intervals are Student's."""
    return (student_quantile(_LEVEL, number - 1) / student_quantile(_LEVEL, np.inf)) ** 2


def _mean(values: np.ndarray, clusters: np.ndarray, more: float) -> tuple[float, float, float]:
    """Mean and its 95 % interval, where examples of one cluster (sentence, document) move together.

    Args:
        values: (N,).
        clusters: Number of the cluster of each (N,).
        more: Variance of the mean that the examples do not show.

    References:
        Miller (2024), equation 4: standard errors of clustered questions.
    """
    mean = float(values.mean())
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values - mean)
    num = max(2, len(sums))  # one cluster shows no spread
    of_clusters = float(np.sum(sums**2)) / len(values) ** 2 * num / (num - 1)
    reach = student_quantile(_LEVEL, np.inf) * float(np.sqrt(of_clusters * _of_few(num) + more))
    return mean, mean - reach, mean + reach
