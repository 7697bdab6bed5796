"""Rows of captures in which it was planted what is found, with and without each tenth of the text."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from multipress.dissect.capture import Capture
from multipress.dissect.jackknife import group_bounds
from multipress.dissect.layers import attention_rows, state_rows
from multipress.dissect.run import smallest_matches

WIDTH = 6
SPANS = np.tile([3, 5, 4, 6], 6)
SIZES = np.tile([4, 7, 5, 6], 6)
SPECIAL = [np.isin(np.arange(size), (0, size - 1)) for size in SIZES]


def read(*states):
    """A capture of these layers (N, D)."""
    return Capture([state.astype(np.float32) for state in states], [], SPANS + 2, SPANS)


def noise(seed, width=WIDTH):
    return np.random.default_rng(seed).standard_normal((SPANS.sum(), width))


def looked_at(*blocks):
    """A capture of these blocks, each a list of maps (H, U, U) a row."""
    cells = [np.concatenate([one.reshape(len(one), -1) for one in maps], axis=1) for maps in blocks]
    return Capture([], [one.astype(np.float32) for one in cells], SIZES, SIZES - 2)


def maps_of(seed, heads, constant=()):
    """Random maps (H, U, U) of each row; the constant heads look at one place, whichever unit looks."""
    random = np.random.default_rng(seed)
    found = [random.dirichlet(np.ones(size), size=(heads, size)) for size in SIZES]
    for one in found:
        for head in constant:
            one[head] = np.eye(one.shape[1])[head]
    return found


def named(rows, name):
    """By layer, of the same depth."""
    return {row.context["layer"]: row for row in rows if row.name == name and "low" in row.context}


def slow_matches(x, y):
    """The largest absolute correlation of each neuron of x with one of y, and which that is."""
    found = np.array([[abs(np.corrcoef(a, b)[0, 1]) for b in y.T] for a in x.T])
    return found.max(axis=1), found.argmax(axis=1)


def slow_share(x, y):
    return np.mean(slow_matches(x, y)[1] == np.arange(x.shape[1]))


def tenths():
    """Places of all words, then of those that are left without each tenth of the rows."""
    ends = np.concatenate([[0], np.cumsum(SPANS)])[group_bounds(len(SPANS))]
    places = np.arange(ends[-1])
    return [places, *(np.delete(places, np.arange(low, high)) for low, high in itertools.pairwise(ends))]


def test_neurons_that_changed_their_number_are_counted():
    orders = ([0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5], [1, 2, 0, 3, 5, 4], [5, 4, 3, 2, 1, 0])
    reference = [noise(seed) for seed in range(len(orders))]
    artifact = [state[:, order] + 0.1 * noise(9) for state, order in zip(reference, orders, strict=True)]
    rows = named(state_rows(read(*reference), read(*artifact))[0], "neurons_same_index")
    assert [row.value for row in rows.values()] == pytest.approx([1, 4 / 6, 1 / 6, 0])


def test_neurons_of_the_same_number_are_those_of_a_loop_without_any_tenth_too():
    reference, artifact = noise(0), 0.3 * noise(0) + noise(1)
    row = named(state_rows(read(reference), read(artifact))[0], "neurons_same_index")[0]
    slow = [slow_share(reference[left], artifact[left]) for left in tenths()]
    assert len(set(slow)) > 1
    assert [row.value, *row.context["without"]] == pytest.approx(slow)


def test_of_layers_of_other_width_no_neuron_has_the_same_number():
    rows, _ = state_rows(read(noise(0)), read(noise(1, WIDTH + 1)))
    assert not named(rows, "neurons_same_index")
    assert len(named(rows, "neurons_same_index_in_last")) == 1


def test_neurons_that_keep_their_number_to_the_last_layer_are_counted_on_both_sides():
    last, last_there = noise(0), noise(1)
    own = [last[:, [1, 2, 0, 4, 5, 3]], last[:, [0, 1, 2, 4, 5, 3]], last]
    there = [last_there[:, [0, 1, 2, 3, 5, 4]], last_there[:, [1, 0, 3, 2, 4, 5]], last_there]
    rows = named(state_rows(read(*there), read(*own))[0], "neurons_same_index_in_last")
    assert [row.value for row in rows.values()] == pytest.approx([0, 3 / 6, 1])
    assert [row.context["against_value"] for row in rows.values()] == pytest.approx([4 / 6, 2 / 6, 1])
    assert [row.context["change"] for row in rows.values()] == pytest.approx([-4 / 6, 1 / 6, 0])


def test_neurons_kept_to_the_last_layer_are_those_of_a_loop_without_any_tenth_too():
    sides = [[0.15 * noise(seed) + noise(seed + 1), noise(seed)] for seed in (0, 5)]
    row = named(state_rows(read(*sides[0]), read(*sides[1]))[0], "neurons_same_index_in_last")[0]
    there, own = ([slow_share(first[left], last[left]) for left in tenths()] for first, last in sides)
    assert len(set(own)) > 1
    assert [row.value, *row.context["without"]] == pytest.approx(own)
    changes = np.subtract(own, there)
    assert [row.context["change"], *row.context["change_without"]] == pytest.approx(changes.tolist())


def test_the_worst_of_several_artifacts_decides_how_well_a_neuron_is_found():
    reference = [noise(0), noise(1)]
    artifacts = [
        [np.where(np.isin(np.arange(WIDTH), kept), state, noise(seed)) for state in reference]
        for seed, kept in ((2, (0, 1, 2, 3)), (3, (2, 3, 4, 5)), (4, (1, 2, 3, 4)))
    ]
    matches = [state_rows(read(*reference), read(*states))[1] for states in artifacts]
    found = smallest_matches(matches, ["a", "b", "c"], "reference")
    assert [one.context["layer"] for one in found] == [0, 1]
    for layer, one in enumerate(found):
        per_artifact = [slow_matches(reference[layer], states[layer])[0] for states in artifacts]
        smallest = np.min(per_artifact, axis=0)
        assert one.value == pytest.approx(smallest.mean(), abs=1e-6)
        assert smallest[[2, 3]] == pytest.approx(1)
        assert smallest[[0, 1, 4, 5]].max() < 0.6
        assert np.max(per_artifact, axis=0).mean() == pytest.approx(1)
    assert smallest_matches([matches[0], matches[1][:1]], ["a", "b"], "reference") == []


def test_heads_that_look_at_one_place_are_counted_in_each_block_of_both_sides():
    artifact = looked_at(maps_of(0, 3, constant=(1,)), maps_of(1, 3), maps_of(2, 3, constant=(0, 1, 2)))
    reference = looked_at(maps_of(3, 3), maps_of(4, 3, constant=(0, 2)), maps_of(5, 3, constant=(1,)))
    rows = named(attention_rows(reference, artifact, SPECIAL), "attention_degenerate")
    assert {layer: row.value for layer, row in rows.items()} == {1: 1, 2: 0, 3: 3}
    assert [row.context["against_value"] for row in rows.values()] == [0, 2, 1]
    assert [row.context["change"] for row in rows.values()] == [1, -2, 2]
    assert rows[1].context["without"] == [1] * 10


def test_a_head_that_looks_at_one_place_on_a_tenth_of_the_rows_is_not_counted_without_the_others():
    maps = maps_of(0, 2)
    low, high = group_bounds(len(SIZES))[:2]
    for row, one in enumerate(maps):
        if not low <= row < high:
            one[0] = np.eye(one.shape[1])[0]
    (row,) = named(attention_rows(looked_at(maps), looked_at(maps), SPECIAL), "attention_degenerate").values()
    assert [row.value, *row.context["without"]] == [0, 1, *[0] * 9]


def test_exchanged_heads_are_named_and_those_that_look_at_one_place_are_not():
    maps = maps_of(0, 4, constant=(2,))
    found = attention_rows(looked_at(maps), looked_at([one[[3, 0, 2, 1]] for one in maps]), SPECIAL)
    heads = [row for row in found if row.name == "attention_head_match"]
    assert {row.context["head"]: row.context["match"] for row in heads} == {1: 2, 2: 4, 4: 1}
    assert [row.value for row in heads] == pytest.approx([1] * 3, abs=1e-5)


@pytest.mark.parametrize("counted", [(1, 3), (3, 1), (2, 5)])
def test_blocks_are_compared_with_the_block_as_deep_as_they(counted):
    own, there = (looked_at(*(maps_of(block, 2) for block in range(count))) for count in counted)
    rows = named(attention_rows(there, own, SPECIAL), "attention_cka")
    assert list(rows) == list(range(1, counted[0] + 1))
    pairs = {layer: row.context["against_layer"] for layer, row in rows.items()}
    assert pairs[counted[0]] == counted[1]
    for layer, other in pairs.items():
        assert (rows[layer].value > 0.99) == (layer == other)


def test_a_capture_of_another_text_has_no_distance():
    maps = maps_of(0, 2)
    own = looked_at(maps)
    seen = replace(own, num_seen=SIZES)
    assert named(attention_rows(own, own, SPECIAL), "attention_distance")
    assert not named(attention_rows(seen, seen, SPECIAL), "attention_distance")
