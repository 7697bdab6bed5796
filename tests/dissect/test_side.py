"""Which layers of two models are compared."""

import itertools

import pytest

from multipress.dissect.side import same_depth


@pytest.mark.parametrize(("count", "of"), [(7, 7), (13, 7), (7, 13), (7, 4), (4, 7), (2, 25), (25, 2), (1, 5)])
def test_layers_as_deep_are_compared_and_embeddings_with_embeddings_alone(count, of):
    deep = same_depth(count, of)
    away = [abs(layer / max(1, count - 1) - there / (of - 1)) for layer, there in enumerate(deep)]
    assert max(away) <= 0.5 / (of - 1) + 1e-9
    assert deep == sorted(deep)
    steps = {after - before for before, after in itertools.pairwise(deep)}
    assert not steps or max(steps) - min(steps) <= 1  # none is passed over more than another
    assert deep[0] == 0
    if of <= count <= 2 * of - 1:
        assert deep.count(0) == 1
