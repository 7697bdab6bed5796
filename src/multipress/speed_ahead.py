"""Which shape of an encoder is so many times as fast on this computer, before anything is trained.

The table of a shape is measured once: a batch through the whole encoder with random weights, and with a quarter, half
and three quarters of its heads, and of its neurons, taken out, all in turns on one processor. What the parts save adds
up. Of all shares of heads and neurons that are fast enough by the table, those are taken that leave most of both: the
weights of each kind count by the logarithm of what is left of it, so that neither is used up. A model of just this
shape is timed, and the search goes on where it is slower than was asked for. The table lies in the user's cache folder,
by processor, runtime and shape, so that the same command gives the same run; the shares it gives stand in the recipe,
which makes the same run anywhere.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from multipress.checkpoint import stored_tensors
from multipress.durable import write_json
from multipress.errors import SettingError, StoreError
from multipress.measure.speed import time_in_turns
from multipress.methods import build_method
from multipress.methods.quantization import quantize_activations
from multipress.models.families import config_values, family_of
from multipress.models.graph import trace_graph
from multipress.models.structure import block_shapes_of, drop_blocks, narrow
from multipress.reproducibility import computer, library_versions
from multipress.runtime.decoded import cache_folder
from multipress.runtime.graph_file import read_graph
from multipress.runtime.graph_writer import write_graph
from multipress.runtime.integer_graph import float_graph, integer_graph
from multipress.runtime.session import OnnxSession
from multipress.runtime.simple_graph import simple_graph
from multipress.spec import MethodSpec

__all__ = ["SpeedTable", "choose_shares", "encoder_milliseconds", "shares_for_speedup", "speed_table"]

_TABLE_VERSION = 2
_GRID = (0.25, 0.5, 0.75)  # shares that are timed
_REPEATS = 30
_NUM_WORDS = 64  # the size of a table of words does not change how long a row of it takes
_TRIES = 4
_ENOUGH = 0.98  # of the speed that was asked for; timings differ by more
_STEPS = 24  # in which shares are searched


@dataclass(frozen=True)
class SpeedTable:
    """Milliseconds of one batch, the least of all turns: other programs only make times longer.

    Args:
        whole_ms: All blocks, heads and neurons.
        base_ms: The blocks that stay, all heads and neurons.
        heads_ms: The same without these shares of the heads: share, ms.
        neurons_ms: The same without these shares of the neurons.
    """

    whole_ms: float
    base_ms: float
    heads_ms: tuple[tuple[float, float], ...]
    neurons_ms: tuple[tuple[float, float], ...]

    def estimate(self, heads: float, neurons: float) -> float:
        """Milliseconds without these shares: what each saves, added up."""
        saved = 0.0
        for share, column in ((heads, self.heads_ms), (neurons, self.neurons_ms)):
            shares, times = zip((0.0, self.base_ms), *column, strict=True)
            falling = np.minimum.accumulate(times)  # a wider model is never taken to be faster
            saved += self.base_ms - float(np.interp(share, shares, falling))
        return self.base_ms - saved


def encoder_milliseconds(config: PreTrainedConfig, length: int) -> float:
    """Median milliseconds that an encoder in 8 bits takes for one text of so many tokens, with one thread.

    Measured now, with random weights, products of integers and static scales of activations.
    """
    timing = _Timing(config, 1, length, 0.0, "int8 static")
    return timing.times({"whole": (timing.num_blocks, 0.0, 0.0)}, np.median)["whole"]


def shares_for_speedup(
    methods: tuple[MethodSpec, ...],
    config: PreTrainedConfig,
    on_note: Callable[[str], None] = lambda note: None,
) -> tuple[MethodSpec, ...]:
    """The methods of a run, `structured`'s speed-up turned into shares of heads and neurons where they are not given.

    Args:
        methods: As asked for.
        config: The encoder's config.
        on_note: Called with what was measured and chosen.

    Raises:
        SettingError: no shape with a head and a neuron in each block is fast enough.
    """
    precision = _precision(methods)
    resolved = []
    for method in methods:
        if method.name == "structured":
            settings = build_method(method.name, method.settings).settings()
            if settings["speedup"] is not None and None in (settings["heads"], settings["neurons"]):
                method = MethodSpec(method.name, settings | _shares(settings, config, precision, on_note))
        resolved.append(method)
    return tuple(resolved)


def _precision(methods: tuple[MethodSpec, ...]) -> str:
    """How the model will be computed: `fp32`; or in integers, `int8`, or `int8 static` if activations are so too."""
    for method in methods:
        if method.name == "quantization":
            return "int8 static" if method.settings.get("activation_scale") == "static" else "int8"
    return "fp32"


def _shares(
    settings: dict[str, Any], config: PreTrainedConfig, precision: str, on_note: Callable[[str], None]
) -> dict[str, float]:
    timing = _Timing(config, settings["batch"], settings["length"], settings["layers"], precision)
    found = _kept_result(timing, settings)
    if found is None:
        table = speed_table(timing)
        found = _search(timing, table, settings) | {"table": asdict(table)}
        _keep_result(timing, settings, found)
    shares: dict[str, float] = {name: found[name] for name in ("heads", "neurons")}
    on_note(
        f"Asked for {settings['speedup']:.2f} times as fast at {settings['batch']} x {settings['length']} tokens "
        f"({precision}, one thread of {computer()['cpu']}): {found['ms']:.2f} ms for {found['whole_ms']:.2f} ms, "
        f"{found['whole_ms'] / found['ms']:.2f} times, by taking out {shares['heads']:.0%} of the heads and "
        f"{shares['neurons']:.0%} of the neurons. The same run anywhere: "
        f"--method structured:speedup={settings['speedup']:g},heads={shares['heads']:g},neurons={shares['neurons']:g}"
    )
    return shares


class _Timing:
    """Times models of an encoder's kind and of any shape, with random weights."""

    def __init__(self, config: PreTrainedConfig, batch: int, length: int, layers: float, precision: str) -> None:
        self._config = family_of(config).config(**config_values(config))
        self._config.vocab_size, self._config.num_labels = _NUM_WORDS, 2
        self._config.pad_token_id = 0
        self._config._attn_implementation = "eager"
        limit = self._config.max_position_embeddings - 2  # RoBERTa's positions begin behind the padding's
        self.batch, self.length, self.precision = batch, min(length, limit), precision
        number = self._config.num_hidden_layers
        self.num_blocks, self.num_left = number, number - round(layers * number)
        heads, neurons = self._config.num_attention_heads, block_shapes_of(self._model())[0][1]
        self.block = (int(heads), neurons)
        self.sizes = (4 * self._config.hidden_size**2, 2 * self._config.hidden_size * neurons)

    def key(self) -> dict[str, Any]:
        """What the times depend on."""
        return {
            "version": _TABLE_VERSION,
            "computer": {name: computer()[name] for name in ("cpu", "instruction_sets", "system")},
            "versions": library_versions("onnxruntime"),
            "config": config_values(self._config),
            "blocks_left": self.num_left,
            "batch": self.batch,
            "length": self.length,
            "precision": self.precision,
        }

    def times(
        self, shapes: dict[str, tuple[int, float, float]], which: Callable[[np.ndarray], Any] = np.min
    ) -> dict[str, float]:
        """Least milliseconds by name, of models with so many blocks, without these shares of heads and neurons."""
        sessions = {name: self._session(*shape) for name, shape in shapes.items()}
        shape = (self.batch, self.length)
        found = time_in_turns(sessions, [shape], _NUM_WORDS, threads=1, repeats=_REPEATS)
        return {name: float(which(found[name, shape])) for name in shapes}

    def _model(self) -> Any:
        return family_of(self._config).classifier(copy.deepcopy(self._config)).eval()

    def _session(self, blocks: int, heads: float, neurons: float) -> OnnxSession:
        random = torch.random.get_rng_state()
        model: Any = self._model()
        torch.random.set_rng_state(random)
        count = self._config.num_hidden_layers
        drop_blocks(model, [block < blocks - 1 or block == count - 1 for block in range(count)])
        left = [max(1, round((1 - share) * size)) for share, size in zip((heads, neurons), self.block, strict=True)]
        narrow(model, [(left[0], left[1])] * blocks)
        if self.precision == "int8 static":
            layers = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
            quantize_activations(model, 8, dict.fromkeys(layers, 0.05))  # how long it takes depends on no scale
        graph = simple_graph(read_graph(trace_graph(model)))
        tensors, aliases = stored_tensors(model)
        tensors |= {alias: tensors[name] for alias, name in aliases.items()}
        if self.precision != "fp32":
            whole = integer_graph(graph, tensors, only_here=True)
        else:
            whole = float_graph(graph, {name: tensor.dense() for name, tensor in tensors.items()})
        return OnnxSession(write_graph(whole))


def speed_table(timing: _Timing) -> SpeedTable:
    """Measures the table of an encoder's shape; some seconds."""
    left = timing.num_left
    shapes = {"whole": (timing.num_blocks, 0.0, 0.0)}
    if left < timing.num_blocks:
        shapes["base"] = (left, 0.0, 0.0)
    shapes |= {f"heads {share}": (left, share, 0.0) for share in _GRID}
    shapes |= {f"neurons {share}": (left, 0.0, share) for share in _GRID}
    times = timing.times(shapes)
    columns = [tuple((share, times[f"{unit} {share}"]) for share in _GRID) for unit in ("heads", "neurons")]
    return SpeedTable(times["whole"], times.get("base", times["whole"]), *columns)


def choose_shares(
    table: SpeedTable, target_ms: float, sizes: tuple[int, int], most: float, given: dict[str, float | None]
) -> tuple[float, float] | None:
    """Shares of heads and neurons to take out, such that the table says `target_ms` or less and most is left.

    Args:
        table: Measured times.
        target_ms: Most milliseconds.
        sizes: Weights of all heads, and of all neurons, of a whole block.
        most: The largest share that leaves each block one of each.
        given: `heads` and `neurons`; a share that is given stays.

    Returns:
        Shares in steps of a 24th, or None where none is fast enough.
    """
    steps = [step / _STEPS for step in range(_STEPS) if step / _STEPS <= most]
    columns = [steps if (share := given[name]) is None else [share] for name in ("heads", "neurons")]
    fast = [
        (-sizes[0] * math.log(1 - heads) - sizes[1] * math.log(1 - neurons), heads, neurons)
        for heads in columns[0]
        for neurons in columns[1]
        if table.estimate(heads, neurons) <= target_ms
    ]
    return min(fast)[1:] if fast else None


def _search(timing: _Timing, table: SpeedTable, settings: dict[str, Any]) -> dict[str, Any]:
    """Shares by the table, checked by timing their very shape, and asked for more where that is too slow."""
    speedup, asked = settings["speedup"], table.whole_ms / settings["speedup"]
    most = min(_GRID[-1], 1 - 1 / timing.block[0])
    given = {name: settings[name] for name in ("heads", "neurons")}
    for _ in range(_TRIES):
        shares = choose_shares(table, asked, timing.sizes, most, given)
        if shares is None:
            break
        times = timing.times({"whole": (timing.num_blocks, 0.0, 0.0), "cut": (timing.num_left, *shares)})
        reached = times["whole"] / times["cut"]
        if reached >= _ENOUGH * speedup:
            heads, neurons = (round(share, 4) for share in shares)
            return {"heads": heads, "neurons": neurons, "ms": times["cut"], "whole_ms": times["whole"]}
        asked *= reached / speedup
    fastest = table.whole_ms / table.estimate(*(most if given[n] is None else given[n] for n in ("heads", "neurons")))
    raise SettingError(
        f"structured.speedup is {speedup:g}, but {most:.0%} fewer heads and neurons make this model only about "
        f"{fastest:.1f} times as fast at {timing.batch} x {timing.length} tokens. Ask for less, add layers=0.5 (fewer "
        "blocks), or take a smaller model."
    )


def _path(timing: _Timing, settings: dict[str, Any]) -> Any:
    folder = cache_folder()
    key = {**timing.key(), **{name: settings[name] for name in ("speedup", "heads", "neurons")}}
    text = json.dumps(key, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:24]
    return None if folder is None else folder.parent / "speed" / f"{name}.json"


def _kept_result(timing: _Timing, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What was found before for the same computer, runtime and shape; None where there is nothing that can be read."""
    path = _path(timing, settings)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["found"]
        usable = all(math.isfinite(found[name]) for name in ("heads", "neurons", "ms", "whole_ms"))
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
        return None
    return found if usable and max(found["heads"], found["neurons"]) < 1 else None


def _keep_result(timing: _Timing, settings: dict[str, Any], found: dict[str, Any]) -> None:
    path = _path(timing, settings)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"found": found, "of": timing.key()})
    except (OSError, StoreError):
        return
