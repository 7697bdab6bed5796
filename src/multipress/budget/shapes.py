"""Which shape of a model keeps to limits of size and latency: all of it, fewer heads and neurons, or fewer layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from multipress.budget.limits import Budget
from multipress.budget.search import Sizes, line_by_words, smallest_bytes
from multipress.budget.tries import Recipe, Tries
from multipress.engines.job import Places
from multipress.errors import SettingError
from multipress.models.catalogue import Shape
from multipress.models.pretrained import identify
from multipress.shrink import check_family, shrink_encoder
from multipress.spec import MethodSpec
from multipress.speed_ahead import shares_for_speedup

__all__ = ["Shapes"]

SHRINK_STEPS = 200
FASTER_THAN_ASKED = 0.95  # of the limit of latency: timings differ by some percent


class Shapes:
    """The shapes of one model, those with fewer layers made once.

    Args:
        model: The model.
        budget: The limits.
        tries: Knows sizes and latencies, and tries.
        folder: Where models with fewer layers are put.
        places: Where models are found.
        on_note: Called with what happens, in words.
    """

    def __init__(
        self, model: str, budget: Budget, tries: Tries, folder: Path, places: Places, on_note: Callable[[str], None]
    ) -> None:
        self._model = model
        self._budget = budget
        self._tries = tries
        self._folder = folder
        self._places = places
        self._note = on_note
        self._lines: dict[Recipe, dict[str, Sizes]] = {}

    def sizes(self, base: Recipe) -> dict[str, Sizes]:
        """The sizes of a shape by the words that stay, looked at once."""
        shape = Recipe(base.model, heads=base.heads, neurons=base.neurons)
        if shape not in self._lines:
            self._lines[shape] = line_by_words(self._tries, shape)
        return self._lines[shape]

    def small_enough(self, base: Recipe) -> str:
        """The model, or one with half of its layers, or half of those: the first that can be made small enough.

        Raises:
            SettingError: none can.
        """
        if self._budget.max_mb is None:
            return base.model
        smallest = smallest_bytes(self.sizes(base))
        layers = self._num_layers(base.model)
        while smallest > self._budget.max_bytes:
            if layers == 1:
                raise SettingError(
                    f"The model cannot be made as small as {self._budget.max_mb:g} MB: at its smallest, with one "
                    f"layer, it has {math.ceil(smallest / 1e4) / 100:.2f} MB. Take that limit or a smaller model."
                )
            layers //= 2
            cut = self._with_layers(base.model, layers, 0)
            smallest = smallest_bytes(self.sizes(replace(base, model=cut)))
        return base.model if layers == self._num_layers(base.model) else self._with_layers(base.model, layers)

    def fast_enough(self, base: Recipe, before: Path) -> Recipe:
        """The base, with fewer heads and neurons or with fewer layers where its model is slower than the limit.

        Both are tried in 8 bits, and the one that is fast enough and scores higher is taken.

        Args:
            base: Its model may have fewer layers already.
            before: The model before as an artifact, whose latency is that of all its layers.

        Raises:
            SettingError: not even one layer is fast enough.
        """
        limit = self._budget.max_ms
        if limit is None:
            return base
        latency = self._tries.latency(before)
        each = latency / self._num_layers(self._model)
        self._note(f"The model before takes {latency:.2f} ms for one text; the limit is {limit:g} ms.")
        if each * self._num_layers(base.model) <= limit:
            return base
        ways = self._faster(base, each, limit)
        if not ways:
            raise SettingError(
                f"One of {self._num_layers(self._model)} layers alone takes about {each:.2f} ms, above the limit of "
                f"{limit:g} ms. Take a smaller model."
            )
        if len(ways) == 1:
            return ways[0]
        found = self._tries.run(ways)
        for result in found:
            self._note(f"{result.recipe.text()}: score {result.score:.4f}, {result.latency_ms or math.inf:.2f} ms")
        return max(found, key=lambda result: ((result.latency_ms or math.inf) <= limit, result.score)).recipe

    def _faster(self, base: Recipe, each: float, limit: float) -> list[Recipe]:
        """Ways to keep to the limit of latency, given the milliseconds of a layer."""
        ways = []
        config = identify(base.model, self._places.models_dir).config
        speedup = each * self._num_layers(base.model) / (FASTER_THAN_ASKED * limit)
        try:
            (found,) = shares_for_speedup((MethodSpec("structured", {"speedup": speedup}),), config, self._note)
            ways.append(replace(base, heads=found.settings["heads"], neurons=found.settings["neurons"]))
        except SettingError:
            pass  # no shape with all its layers is so fast
        fewer = math.floor(limit / each)
        if fewer >= 1 and config.model_type == "bert":
            ways.append(replace(base, model=self._with_layers(base.model, fewer)))
        return ways

    def _num_layers(self, model: str) -> int:
        config: Any = identify(model, self._places.models_dir).config
        return int(config.num_hidden_layers)

    def _with_layers(self, model: str, layers: int, steps: int = SHRINK_STEPS) -> str:
        """An encoder with fewer layers, made once; without recovery steps it is only to be weighed."""
        checked = identify(model, self._places.models_dir)
        check_family(checked.config, model)
        config: Any = checked.config
        place = self._folder / f"layers-{layers}-{steps}-{checked.sha256[:12]}"
        if not place.is_dir():
            if steps:
                self._note(f"An encoder with {layers} of {config.num_hidden_layers} layers is made.")
            shape = Shape(layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
            shrink_encoder(model, shape, place, steps=steps, models_dir=self._places.models_dir)
        return str(place)
