"""Which shape keeps to a latency and a size, on models that cost nothing."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from multipress.budget import shapes
from multipress.budget.limits import Budget
from multipress.budget.shapes import Shapes
from multipress.budget.tries import Recipe, Result
from multipress.engines.job import ANYWHERE
from multipress.errors import ModelError, RunError, SettingError
from multipress.size_ahead import SizeAhead
from multipress.spec import MethodSpec

LAYERS = 6


def layers_of(model):
    found = re.match(r".*layers-(\d+)-", model)
    return int(found[1]) if found else LAYERS


class Known:
    """Layers take 1 ms each, and 1 MB in 8 bits; what is left of heads and neurons counts as less of a layer."""

    def __init__(self, scores=()):
        self.tried = []
        self._scores = dict(scores)

    timed_length = 128

    def encoder_latency(self, model):
        return float(LAYERS)

    def size(self, recipe):
        bits = 8 if recipe.rate is None else recipe.rate
        return SizeAhead(0, round(1e6 * layers_of(recipe.model) * bits / 8), False)

    def run(self, recipes):
        assert recipes  # a round of nothing is none
        self.tried += recipes
        found = []
        for recipe in recipes:
            is_cut = bool(recipe.heads)
            ms = layers_of(recipe.model) * (1 - (recipe.heads + recipe.neurons) / 2)
            found.append(Result(recipe, "0", Path("x"), self._scores.get(is_cut, 0.8), 1, ms))
        return found


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Shapes of a model of six layers; whatever is named has the layers that its name says."""

    def identify(model, models_dir):
        config = SimpleNamespace(
            num_hidden_layers=layers_of(model), model_type="bert", hidden_size=8, num_attention_heads=2,
            intermediate_size=16,
        )  # fmt: skip
        return SimpleNamespace(config=config, sha256="0" * 64)

    def shares(methods, config, on_note):
        assert [method.name for method in methods] == ["quantization", "structured"]  # so that integers are timed
        assert methods[1].settings["length"] == Known.timed_length
        speedup = methods[1].settings["speedup"]
        if speedup > 4:
            raise SettingError("no shape is so fast")
        return methods[0], MethodSpec("structured", {"heads": 1 - 1 / speedup, "neurons": 1 - 1 / speedup})

    monkeypatch.setattr(shapes, "identify", identify)
    monkeypatch.setattr(shapes, "shares_for_speedup", shares)
    monkeypatch.setattr(shapes, "check_family", lambda config, source: None)
    monkeypatch.setattr(Shapes, "_bytes_of_a_layer", lambda self, model: 43_750)
    monkeypatch.setattr(shapes, "shrink_encoder", lambda model, shape, place, **others: None)

    def build(budget, known):
        return Shapes("m", budget, known, tmp_path, ANYWHERE, lambda note: None)

    return build


BASE = Recipe("m", rate=None)


def test_what_is_fast_enough_stays_as_it_is_but_not_what_just_is(made):
    """Two measurements differ by some percent."""
    known = Known()
    assert made(Budget(max_ms=6.1), Known()).fast_enough(BASE) != BASE
    assert made(Budget(max_ms=6.5), known).fast_enough(BASE) == BASE
    assert made(Budget(max_mb=1), known).fast_enough(BASE) == BASE
    assert not known.tried


@pytest.mark.parametrize(("better", "layers"), [({True: 0.9}, 6), ({False: 0.9}, 3)])
def test_the_way_that_scores_higher_is_taken(made, better, layers):
    known = Known(better)
    found = made(Budget(max_ms=3.0), known).fast_enough(BASE)
    assert layers_of(found.model) == layers
    assert (found.heads > 0.5) == (layers == 6)
    assert len(known.tried) == 2
    assert found.rate is None


def test_a_way_that_turns_out_too_slow_does_not_win(made):
    class Slow(Known):
        def run(self, recipes):
            return [replace(one, latency_ms=9.0) if one.recipe.heads else one for one in super().run(recipes)]

    found = made(Budget(max_ms=3.0), Slow({True: 0.9})).fast_enough(BASE)
    assert layers_of(found.model) == 3


def test_what_is_too_slow_is_made_faster_by_as_much_once_more(made, monkeypatch):
    class Slow(Known):
        def run(self, recipes):
            return [replace(one, latency_ms=1.2 * one.latency_ms) for one in super().run(recipes)]

    known = Slow({True: 0.9})
    found = made(Budget(max_ms=3.0), known).fast_enough(BASE)
    heads = [recipe.heads for recipe in known.tried if recipe.heads]
    assert len(heads) == 2
    assert heads[1] > heads[0]
    assert found.heads == heads[1]
    assert len(known.tried) == 4 - (layers_of(known.tried[1].model) == layers_of(known.tried[-1].model))

    class Slower(Known):
        def run(self, recipes):
            return [replace(one, latency_ms=9.0) for one in super().run(recipes)]

    with pytest.raises(RunError, match=r"keeps to 3 ms: the fastest took 9\.00 ms"):
        made(Budget(max_ms=3.0), Slower()).fast_enough(BASE)

    # Nothing else to try the second time: the same share of a model that loses no layers.
    monkeypatch.setattr(Shapes, "_loses_layers", lambda self, model: False)
    monkeypatch.setattr(
        shapes,
        "shares_for_speedup",
        lambda methods, config, on_note: (methods[0], MethodSpec("structured", {"heads": 0.5, "neurons": 0.5})),
    )
    with pytest.raises(RunError, match=r"the fastest took 9\.00 ms"):
        made(Budget(max_ms=3.0), Slower()).fast_enough(BASE)

    class Failing(Known):
        def run(self, recipes):
            return []

    with pytest.raises(RunError, match="No shape that was tried keeps to 3 ms"):
        made(Budget(max_ms=3.0), Failing()).fast_enough(BASE)


def test_a_model_cut_for_its_size_is_not_cut_again_for_the_same_latency(made, tmp_path):
    known = Known()
    shapes_of = made(Budget(max_mb=0.2, max_ms=3.2), known)
    small = shapes_of.small_enough(BASE)
    assert layers_of(small) == 3
    assert shapes_of.fast_enough(replace(BASE, model=small)) == replace(BASE, model=small)
    assert not known.tried


def test_where_no_shape_is_fast_enough_layers_go_and_less_than_one_is_an_error(made):
    known = Known()
    shapes_of = made(Budget(max_ms=1.2), known)
    shapes_of.check_speed("m")
    assert layers_of(shapes_of.fast_enough(BASE).model) == 1
    assert [layers_of(recipe.model) for recipe in known.tried] == [1]
    with pytest.raises(SettingError, match=r"One of 6 layers alone takes about 1\.00 ms"):
        made(Budget(max_ms=0.9), known).check_speed("m")


def test_of_a_family_that_loses_no_layers_the_fewest_heads_and_neurons_are_the_limit(made, monkeypatch):
    def refuse(config, source):
        raise ModelError("only BERT encoders")

    monkeypatch.setattr(shapes, "check_family", refuse)
    known = Known()
    made(Budget(max_ms=6.5), known).check_speed("m")
    made(Budget(max_ms=3.0), known).check_speed("m")
    assert made(Budget(max_ms=3.0), known).fast_enough(BASE).heads > 0.5
    with pytest.raises(SettingError, match=r"as fast as 1\.2 ms by fewer heads and neurons"):
        made(Budget(max_ms=1.2), known).check_speed("m")
    with pytest.raises(SettingError, match=r"at its smallest, it has about 0\.27 MB"):
        made(Budget(max_mb=0.01), known).small_enough(BASE)


def test_a_size_that_one_layer_does_not_keep_is_an_error_that_says_what_could_be(made):
    with pytest.raises(SettingError, match=r"at its smallest, with one layer, it has about 0\.05 MB"):
        made(Budget(max_mb=0.01), Known()).small_enough(BASE)
