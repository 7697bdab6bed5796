"""The rows that compare hidden states and attention of two captures, layer by layer, with their intervals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multipress.dissect.attention import HeadFacts, between, heads_of, pair_facts
from multipress.dissect.capture import Capture
from multipress.dissect.complexity import TWO_NN_POINTS, complexity, two_nn_without
from multipress.dissect.jackknife import GROUPS, group_bounds, intervals
from multipress.dissect.moments import Cross, cross_moments
from multipress.dissect.side import same_depth
from multipress.dissect.similarity import Layer, best_matches, compare, layer_of

__all__ = ["Found", "attention_rows", "state_rows"]

_ONE_SIDED = ("attention_entropy", "attention_distance", "attention_to_special")
_UNITS = {
    "attention_entropy": "bits",
    "attention_distance": "words",
    "attention_degenerate": "count",
    "attention_jensen_shannon": "bits",
    "pca_components": "count",
    "participation_ratio": "count",
    "intrinsic_dimension": "count",
}
_BELOW_ZERO = ("linear_cka_debiased", "attention_maxcorr")  # shares that may be
_DIGITS = 8  # of the numbers without a tenth of the text


@dataclass(frozen=True)
class Found:
    """One number of a comparison.

    Args:
        name: Which measure.
        value: The number.
        unit: `share`, `count`, `bits` or `words`.
        context: `layer`, `against_layer`, and where they are known `low`, `high` (95 %), `without` (the number without
            each tenth of the text, from which differences of layers or models get an interval), `against_value`,
            `change`, `change_low`, `change_high`, `change_without`.
    """

    name: str
    value: float
    unit: str
    context: dict[str, Any] = field(default_factory=dict)


def state_rows(
    reference: Capture, artifact: Capture, on_layer: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[Found], list[np.ndarray]]:
    """Similarity and complexity of every layer.

    Args:
        reference: Hidden states of the reference.
        artifact: Hidden states of the compressed model, of the same words.
        on_layer: Called after each layer with the layers done and all.

    Returns:
        The rows; and for each layer of the artifact how well each neuron of the reference is found in it.
    """
    bounds = np.concatenate([[0], np.cumsum(reference.num_spans)])[group_bounds(len(reference.num_spans))]
    whole = bounds[[0, -1]]
    ours = [layer_of(cross_moments(state, state, whole)) for state in artifact.states]
    theirs = [layer_of(cross_moments(state, state, whole)) for state in reference.states]
    deep = same_depth(len(ours), len(theirs))
    found: list[Found] = []
    matches = []
    for layer, state in enumerate(artifact.states):
        for other, against in enumerate(reference.states):
            context: dict[str, Any] = {"layer": layer, "against_layer": other}
            if other == deep[layer]:
                rows, best = _same_depth_rows(against, state, bounds, context)
                found += rows
                matches.append(best)
            else:
                values = compare(theirs[other], ours[layer], cross_moments(against, state, whole))
                found += [Found(name, value, "share", dict(context)) for name, value in values.items()]
        on_layer(layer + 1, len(ours))
    kept, kept_there = _kept_to_last(artifact, bounds), _kept_to_last(reference, bounds)
    for layer, own in enumerate(kept):
        grains = {"neurons_same_index_in_last": 1 / artifact.states[layer].shape[1]}
        found += _changes(own, kept_there[deep[layer]], grains, {"layer": layer, "against_layer": deep[layer]})
    return found, matches


def _same_depth_rows(
    against: np.ndarray, state: np.ndarray, bounds: np.ndarray, context: dict[str, Any]
) -> tuple[list[Found], np.ndarray]:
    """All measures of two layers of the same depth; and how well each of the reference's neurons is found."""
    sums = [cross_moments(a, b, bounds) for a, b in ((against, against), (state, state), (against, state))]

    def measured(parts: list[Cross]) -> tuple[dict[str, float], dict[str, float], dict[str, float], np.ndarray]:
        reference, artifact = Layer(parts[0]), Layer(parts[1])
        alike = compare(reference, artifact, parts[2])
        (best, where), _ = best_matches(reference, artifact, parts[2])
        if len(reference.deviations) == len(artifact.deviations):
            alike["neurons_same_index"] = float(np.mean(where == np.arange(len(where))))
        return alike, complexity(artifact), complexity(reference), best

    tables = [measured([one.total() for one in sums])]
    tables += [measured([one.without(group) for one in sums]) for group in range(GROUPS)]
    for which, values in ((1, state), (2, against)):
        for table, dimension in zip(tables, _dimensions(values, bounds), strict=True):
            table[which]["intrinsic_dimension"] = dimension
    alike, own, other, best = zip(*tables, strict=True)
    found = list(_values(alike, {"neurons_same_index": 1 / len(best[0])}, context))
    return [*found, *_changes(own, other, {"pca_components": 1.0}, context)], best[0]


_Tables = Sequence[dict[str, float]]  # numbers by name, on all text and then without each tenth of it


def _values(tables: _Tables, grains: Mapping[str, float], context: dict[str, Any]) -> Iterator[Found]:
    """Rows of what two layers are together, with intervals."""
    full, *without = tables
    ends = intervals(full, without, grains)
    for name, value in full.items():
        unit = _UNITS.get(name, "share")
        lowest = -np.inf if unit != "share" else -1.0 if name in _BELOW_ZERO else 0.0
        around = _around(name, ends[name], without, lowest, 1.0 if unit in ("share", "bits") else np.inf)
        yield Found(name, value, unit, {**context, **around})


def _changes(own: _Tables, other: _Tables, grains: Mapping[str, float], context: dict[str, Any]) -> Iterator[Found]:
    """Rows of what a layer is on its own, beside what the reference's is, with intervals of both value and change."""
    change, *change_without = [{k: a[k] - b[k] for k in a} for a, b in zip(own, other, strict=True)]
    full, *without = own
    ends, moved = intervals(full, without, grains), intervals(change, change_without, grains)
    for name, value in full.items():
        unit = _UNITS.get(name, "share")
        most = 1.0 if unit == "share" else np.inf
        around = _around(name, ends[name], without, 0.0, most)
        around |= {"against_value": other[0][name], "change": change[name]}
        changed = _around(name, moved[name], change_without, -most, most)
        around |= {f"change_{key}": value for key, value in changed.items()}
        yield Found(name, value, unit, {**context, **around})


def _around(
    name: str, ends: tuple[float, float], without: Sequence[Mapping[str, float]], lowest: float, most: float
) -> dict[str, Any]:
    """The interval, within what the number can be, and the number without each tenth of the text."""
    values = [round(one[name], _DIGITS) for one in without]
    value = sum(ends) / 2  # which rounding may put just outside of what it can be
    return {"low": max(ends[0], min(lowest, value)), "high": min(ends[1], max(most, value)), "without": values}


def _dimensions(state: np.ndarray, bounds: np.ndarray) -> list[float]:
    """Intrinsic dimension of words spread evenly over the text, then without each group."""
    places = np.unique(np.linspace(0, len(state) - 1, min(len(state), TWO_NN_POINTS)).round().astype(int))
    return two_nn_without(state[places], np.searchsorted(bounds, places, side="right") - 1)


def _kept_to_last(capture: Capture, bounds: np.ndarray) -> list[list[dict[str, float]]]:
    """For each layer the share of its neurons whose best match in the last layer is the neuron of the same number.

    On all words, then without each group.
    """

    def share(own: Cross, last: Cross, both: Cross) -> dict[str, float]:
        (_, where), _ = best_matches(Layer(own), Layer(last), both)
        return {"neurons_same_index_in_last": float(np.mean(where == np.arange(len(where))))}

    end = capture.states[-1]
    last, found = cross_moments(end, end, bounds), []
    for state in capture.states:
        sums = (cross_moments(state, state, bounds), last, cross_moments(state, end, bounds))
        without = [share(*(one.without(group) for one in sums)) for group in range(GROUPS)]
        found.append([share(*(one.total() for one in sums)), *without])
    return found


def attention_rows(
    reference: Capture,
    artifact: Capture,
    is_special: list[np.ndarray],
    on_block: Callable[[int, int], None] = lambda done, total: None,
) -> list[Found]:
    """What heads look at, how that changed, and which head matches which, of every block.

    Args:
        reference: Maps of the reference.
        artifact: Maps of the compressed model, between the same units.
        is_special: Which units that are looked at are special tokens, of each row.
        on_block: Called after each block with the blocks done and all.
    """
    num_rows = len(is_special)
    bounds = group_bounds(num_rows)
    every = np.arange(num_rows)
    left = [np.concatenate([every[:low], every[high:]]) for low, high in itertools.pairwise(bounds)]
    deep = same_depth(len(artifact.maps) + 1, len(reference.maps) + 1)
    found: list[Found] = []
    for block in range(len(artifact.maps)):
        other = max(1, deep[block + 1]) - 1
        own, their = heads_of(artifact, block, is_special), heads_of(reference, other, is_special)
        pair = pair_facts(reference, artifact, other, block)
        context = {"layer": block + 1, "against_layer": other + 1}
        here, there = ([_means(facts, rows) for rows in (every, *left)] for facts in (own, their))
        found += _changes(here, there, {"attention_degenerate": 1.0}, context)
        alike = [between(pair, their, own, rows) for rows in (every, *left)]
        found += _values(alike, {"attention_same_index": 1 / pair.correlation.shape[1]}, context)
        found += _head_rows(pair.correlation.mean(axis=0), their.degenerate(every), own.degenerate(every), context)
        on_block(block + 1, len(artifact.maps))
    return found


def _means(facts: HeadFacts, rows: np.ndarray) -> dict[str, float]:
    """Means over heads and rows, and how many heads are degenerate."""
    values = zip(_ONE_SIDED, (facts.entropy, facts.distance, facts.to_special), strict=True)
    found = {name: float(value[rows].mean()) for name, value in values if value is not None}
    return {**found, "attention_degenerate": float(facts.degenerate(rows).sum())}


def _head_rows(
    correlation: np.ndarray, degenerate_there: np.ndarray, degenerate: np.ndarray, context: dict[str, Any]
) -> Iterator[Found]:
    """For each head of the reference, counted from 1, the head of the artifact that looks most like it."""
    usable = np.where(~degenerate, correlation, -1.0)
    for head, row in enumerate(usable):
        if degenerate_there[head] or degenerate.all():
            continue
        match = int(row.argmax())
        yield Found(
            "attention_head_match", float(row[match]), "share", {**context, "head": head + 1, "match": match + 1}
        )
