"""Heads: what they look at, and which is like which; against scipy and loops."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, pearsonr

from multipress.dissect.attention import between, heads_of, pair_facts
from multipress.dissect.capture import Capture

SIZES = (4, 7, 5, 6)


def capture_of(maps):
    """A capture of one block from a list of maps (H, U, U), one a row."""
    cells = np.concatenate([one.reshape(len(one), -1) for one in maps], axis=1).astype(np.float32)
    return Capture([], [cells], np.array([one.shape[1] for one in maps]), np.zeros(len(maps)))


def random_maps(seed, heads):
    random = np.random.default_rng(seed)
    return [random.dirichlet(np.ones(size), size=(heads, size)) for size in SIZES]


def special():
    return [np.isin(np.arange(size), (0, size - 1)) for size in SIZES]


def test_what_a_head_does_is_what_loops_find():
    maps = random_maps(0, 3)
    facts = heads_of(capture_of(maps), 0, special())
    for row, one in enumerate(maps):
        for head, lines in enumerate(one):
            size = len(lines)
            assert facts.entropy[row, head] == pytest.approx(np.mean([entropy(p, base=2) for p in lines]), abs=1e-5)
            away = sum(lines[q, k] * abs(q - k) for q in range(size) for k in range(size)) / size
            assert facts.distance[row, head] == pytest.approx(away, abs=1e-5)
            assert facts.to_special[row, head] == pytest.approx((lines[:, 0] + lines[:, -1]).mean(), abs=1e-5)
            told = np.mean([entropy(p, lines.mean(0), base=2) for p in lines])
            assert facts.dependence[row, head] == pytest.approx(told, abs=1e-5)


def test_how_heads_compare_is_what_scipy_finds():
    x, y = random_maps(1, 2), random_maps(2, 3)
    pair = pair_facts(capture_of(x), capture_of(y), 0, 0)
    for row in range(len(SIZES)):
        for h in range(2):
            for k in range(3):
                a, b = x[row][h], y[row][k]
                assert pair.correlation[row, h, k] == pytest.approx(pearsonr(a.ravel(), b.ravel())[0], abs=1e-5)
                slow = np.mean([jensenshannon(p, q, base=2) ** 2 for p, q in zip(a, b, strict=True)])
                assert pair.divergence[row, h, k] == pytest.approx(slow, abs=1e-5)


def whole(x, y):
    sides = [capture_of(x), capture_of(y)]
    facts = [heads_of(side, 0, special()) for side in sides]
    return between(pair_facts(*sides, 0, 0), *facts, np.arange(len(SIZES)))


def test_exchanged_heads_are_found_again():
    x = random_maps(3, 3)
    found = whole(x, [one[[1, 0, 2]] for one in x])
    assert found["attention_maxcorr"] == pytest.approx(1, abs=1e-5)
    assert found["attention_jensen_shannon"] == pytest.approx(0, abs=1e-5)
    assert found["attention_cka"] == pytest.approx(1, abs=1e-5)
    assert found["attention_same_index"] == pytest.approx(1 / 3)


def test_cka_of_heads_is_that_of_a_kernel_over_cells():
    x, y = random_maps(4, 2), random_maps(5, 3)
    flat = [
        np.concatenate([(one - 1 / one.shape[1]).reshape(len(one), -1) for one in side], axis=1).T for side in (x, y)
    ]
    k, m = (side @ side.T for side in flat)
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    assert whole(x, y)["attention_cka"] == pytest.approx(expected, abs=1e-5)


def looks_at_first(maps):
    """Maps of the same shapes whose first head looks at the first unit always."""
    changed = [one.copy() for one in maps]
    for one in changed:
        one[0] = 0
        one[0, :, 0] = 1
    return changed


def test_a_head_that_looks_at_one_place_always_is_no_match_and_is_not_matched():
    x = looks_at_first(random_maps(6, 3))
    facts = heads_of(capture_of(x), 0, special())
    assert facts.degenerate(np.arange(len(SIZES))).tolist() == [True, False, False]
    y = looks_at_first(random_maps(7, 3))
    # Taken as they are, the two first heads would be called equal.
    assert pair_facts(capture_of(x), capture_of(y), 0, 0).correlation[:, 0, 0] == pytest.approx(1)
    others = whole([one[1:] for one in x], [one[1:] for one in y])
    assert whole(x, y)["attention_maxcorr"] == pytest.approx(others["attention_maxcorr"])
    assert whole(x, y)["attention_jensen_shannon"] == pytest.approx(others["attention_jensen_shannon"])


def test_with_no_head_left_there_is_nothing_to_compare():
    one, two = looks_at_first(random_maps(8, 1)), random_maps(9, 1)
    for x, y in ((one, one), (one, two), (two, one)):
        assert list(whole(x, y)) == ["attention_cka"]


def test_a_head_that_looks_everywhere_alike_correlates_with_nothing():
    x = [np.full((1, size, size), 1 / size) for size in SIZES]
    pair = pair_facts(capture_of(x), capture_of(random_maps(9, 1)), 0, 0)
    assert pair.correlation == pytest.approx(0, abs=1e-4)


def causal_maps(seed, heads, scale=1.0):
    """Softmax of random numbers over what each unit sees: itself and those before it."""
    random = np.random.default_rng(seed)
    found = []
    for size in SIZES * 6:
        logits = scale * random.normal(size=(heads, size, size)) + np.log(np.maximum(np.tri(size), 1e-300))
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        found.append(weights / weights.sum(axis=2, keepdims=True))
    return found


def causal(maps):
    return replace(capture_of(maps), is_causal=True)


def of_causal(x, y):
    specials = special() * 6
    facts = [heads_of(side, 0, specials) for side in (causal(x), causal(y))]
    return between(pair_facts(causal(x), causal(y), 0, 0), *facts, np.arange(len(x)))


def test_what_a_decoder_cannot_see_makes_no_heads_alike():
    x, y = causal_maps(10, 4), causal_maps(11, 4)
    unlike, alike = of_causal(x, y), of_causal(x, x)
    assert unlike["attention_cka"] < 0.1
    assert unlike["attention_maxcorr"] < 0.3
    assert (alike["attention_cka"], alike["attention_maxcorr"]) == pytest.approx((1, 1), abs=1e-5)
    # As if all could be seen, they would be called alike.
    specials = special() * 6
    sides = [capture_of(x), capture_of(y)]
    naive = between(pair_facts(*sides, 0, 0), *(heads_of(side, 0, specials) for side in sides), np.arange(len(x)))
    assert naive["attention_cka"] > 0.5


def test_a_decoders_head_that_looks_evenly_or_at_the_first_is_degenerate_and_others_are_not():
    maps = causal_maps(12, 3, scale=3.0)
    for one in maps:
        size = one.shape[1]
        one[0] = np.tri(size) / np.arange(1, size + 1)[:, None]
        one[1] = 0
        one[1, :, 0] = 1
    facts = heads_of(causal(maps), 0, special() * 6)
    assert facts.degenerate(np.arange(len(maps))).tolist() == [True, True, False]
    assert facts.dependence[:, :2] == pytest.approx(0, abs=1e-5)
