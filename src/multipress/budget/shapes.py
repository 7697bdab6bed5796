"""Which shape of a model keeps to limits of size and latency: all of it, fewer heads and neurons, or fewer layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from multipress.budget.limits import Budget
from multipress.budget.sizes import FEWEST_BITS, Sizes, fewest_bytes, line_by_words
from multipress.budget.tries import Recipe, Result, Tries, cut_folder
from multipress.engines.job import Places
from multipress.errors import ModelError, RunError, SettingError
from multipress.models.catalogue import Shape
from multipress.models.encoder import expected_shapes
from multipress.models.pretrained import identify
from multipress.shrink import check_family, shrink_encoder
from multipress.spec import MethodSpec
from multipress.speed_ahead import shares_for_speedup

__all__ = ["Shapes"]

SHRINK_STEPS = 200
BYTES_A_TENSOR = 370  # in the manifest and in the header of the weights: 39 kB for the 105 of minilm-l6
UNSURE = 1.3  # what is said of a model with fewer layers before there is one may be so much too high
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
        shape = Recipe(base.model, heads=base.heads, neurons=base.neurons, static=base.static)
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
        limit, whole = self._budget.max_bytes, self._num_layers(base.model)
        smallest = fewest_bytes(self._tries, base)
        if smallest <= limit:
            return base.model
        each = self._bytes_of_a_layer(base.model) if self._loses_layers(base.model) else 0.0
        about, layers = smallest, whole
        while each and layers > 1:
            layers //= 2
            about = smallest - (whole - layers) * each
            if about <= UNSURE * limit:
                cut = self._with_layers(base.model, layers)
                about = fewest_bytes(self._tries, replace(base, model=cut))
                if about <= limit:
                    return cut
        at_its_smallest = "at its smallest" + (", with one layer" if layers < whole else "")
        raise SettingError(
            f"The model cannot be made as small as {self._budget.max_mb:g} MB: {at_its_smallest}, it has about "
            f"{math.ceil(about / 1e4) / 100:.2f} MB. Take a higher limit or a smaller model."
        )

    def check_speed(self, model: str) -> None:
        """Raise `SettingError` where no shape of the model can be as fast as the limit, before anything is trained.

        Args:
            model: As `small_enough` gives it.
        """
        limit = self._budget.max_ms
        if limit is None:
            return
        latency, layers = self._tries.encoder_latency(self._model), self._num_layers(self._model)
        length = self._tries.timed_length
        took = f"In 8 bits the model takes about {latency:.2f} ms for one text of {length} tokens"
        if latency / layers * self._num_layers(model) <= FASTER_THAN_ASKED * limit:
            self._note(f"{took}, which keeps to the limit of {limit:g} ms with all its layers, heads and neurons.")
            return
        self._note(f"{took}; the limit is {limit:g} ms.")
        if not self._loses_layers(model):
            if not self._faster(Recipe(model), latency / layers, limit):
                raise SettingError(
                    f"The model cannot be made as fast as {limit:g} ms by fewer heads and neurons. Take a smaller one."
                )
        elif latency / layers > limit:
            raise SettingError(
                f"One of {layers} layers alone takes about {latency / layers:.2f} ms, above the limit of {limit:g} ms. "
                "Take a smaller model."
            )

    def fast_enough(self, base: Recipe) -> Recipe:
        """The base, with fewer heads and neurons or with fewer layers where its model is slower than the limit.

        Both are tried in 8 bits, and the one that is fast enough and scores higher is taken; where none is, once more
        with what is to be faster by as much.

        Args:
            base: Its model may have fewer layers already.

        Raises:
            RunError: what should have been fast enough is not.
        """
        limit = self._budget.max_ms
        if limit is None:
            return base
        each = self._tries.encoder_latency(self._model) / self._num_layers(self._model)
        if each * self._num_layers(base.model) <= FASTER_THAN_ASKED * limit:
            return base
        asked, tried = limit, set[Recipe]()
        found: list[Result] = []
        for _ in range(2):
            ways = [way for way in self._faster(base, each, asked) if way not in tried]
            tried |= set(ways)
            found += self._tries.run(ways) if ways else []
            fast = [result for result in found if (result.latency_ms or math.inf) <= limit]
            if fast:
                return max(fast, key=lambda result: result.score).recipe
            if not ways or not found:
                break
            asked *= FASTER_THAN_ASKED * limit / min(result.latency_ms or math.inf for result in found)
        took = f": the fastest took {min(result.latency_ms or math.inf for result in found):.2f} ms" if found else ""
        raise RunError(f"No shape that was tried keeps to {limit:g} ms{took}. Allow more, or take a smaller model.")

    def _faster(self, base: Recipe, each: float, limit: float) -> list[Recipe]:
        """Ways to keep to the limit of latency, given the milliseconds of a layer."""
        ways = []
        config = identify(base.model, self._places.models_dir).config
        speedup = math.ceil(100 * each * self._num_layers(base.model) / (FASTER_THAN_ASKED * limit)) / 100
        asked = {"speedup": speedup, "batch": 1, "length": self._tries.timed_length}
        try:
            # Computed in integers.
            quantized = MethodSpec("quantization", {"activation_bits": 8, "activation_scale": "static"})
            found = shares_for_speedup((quantized, MethodSpec("structured", asked)), config, self._note)
            ways.append(replace(base, heads=found[1].settings["heads"], neurons=found[1].settings["neurons"]))
        except SettingError:
            pass  # no shape with all its layers is so fast
        fewer = math.floor(limit / each)
        if fewer >= 1 and self._loses_layers(base.model):
            ways.append(replace(base, model=self._with_layers(base.model, fewer)))
        return ways

    def _loses_layers(self, model: str) -> bool:
        """Whether an encoder of its family can be made with fewer layers."""
        try:
            check_family(identify(model, self._places.models_dir).config, model)
        except ModelError:
            return False
        return True

    def _num_layers(self, model: str) -> int:
        config: Any = identify(model, self._places.models_dir).config
        return int(config.num_hidden_layers)

    def _bytes_of_a_layer(self, model: str) -> float:
        """About what a layer takes at the fewest bits."""
        config: Any = copy.deepcopy(identify(model, self._places.models_dir).config)
        shapes = expected_shapes(config)
        config.num_hidden_layers -= 1
        kept = expected_shapes(config)
        gone = [shape for name, shape in shapes.items() if name not in kept]
        bits = sum((FEWEST_BITS if len(shape) > 1 else 16) * math.prod(shape) for shape in gone)
        return bits / 8 + BYTES_A_TENSOR * len(gone)

    def _with_layers(self, model: str, layers: int) -> str:
        """An encoder with fewer layers, made once."""
        checked = identify(model, self._places.models_dir)
        config: Any = checked.config
        place = self._folder / cut_folder(layers, SHRINK_STEPS, checked.sha256)
        if not place.is_dir():
            self._note(f"An encoder with {layers} of {config.num_hidden_layers} layers is made.")
            shape = Shape(layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
            shrink_encoder(model, shape, place, steps=SHRINK_STEPS, models_dir=self._places.models_dir)
        return str(place)
