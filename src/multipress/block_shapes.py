"""Blocks of different shapes: which axis of a tensor belongs to heads or neurons; removed ones as zeros and back.

An artifact whose blocks have lost heads or neurons says so in its `config.json`, as `block_shapes` of the
`quantization_config`: of each block how many heads and how many feed-forward neurons are left. All else of the config
is that of the whole model, so that transformers' own classes hold it once the removed parts are filled with zeros: a
head or neuron whose way in and way out are zero adds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from multipress.errors import ArtifactError

__all__ = ["Axis", "axis_of", "cut", "padded", "read_block_shapes", "whole_block"]

BlockShapes = list[tuple[int, int]]  # of each block its heads and neurons


class Axis(NamedTuple):
    """The axis of a tensor along which heads or neurons lie.

    Args:
        block: Which block, from 0.
        unit: `heads` or `neurons`.
        number: The axis: 0 for what leads in, 1 for what leads out.
        parts: How many tensors are stacked along it, such as query, key and value.
    """

    block: int
    unit: str
    number: int
    parts: int = 1


# BERT's names and those of its kind, DistilBERT's, ModernBERT's; no name fits two.
_AXES = tuple(
    (re.compile(rf"\.(\d+)\.({names})\.({kinds})"), unit, number, parts)
    for names, kinds, unit, number, parts in (
        (r"attention\.self\.(query|key|value)|attention\.[qkv]_lin", "weight|bias", "heads", 0, 1),
        (r"attn\.Wqkv", "weight|bias", "heads", 0, 3),
        (r"attention\.output\.dense|attention\.out_lin|attn\.Wo", "weight", "heads", 1, 1),
        (r"intermediate\.dense|ffn\.lin1", "weight|bias", "neurons", 0, 1),
        (r"mlp\.Wi", "weight|bias", "neurons", 0, 2),
        (r"output\.dense|ffn\.lin2|mlp\.Wo", "weight", "neurons", 1, 1),
    )
)


def axis_of(name: str) -> Axis | None:
    """The axis along which a tensor of an encoder's block holds heads or neurons; None for all other tensors."""
    for pattern, unit, number, parts in _AXES:
        found = pattern.search(name)
        if found is not None and found.end() == len(name):
            return Axis(int(found[1]), unit, number, parts)
    return None


def read_block_shapes(config: Mapping[str, Any]) -> BlockShapes | None:
    """Heads and neurons of each block, as an artifact's `config.json` says; None where all are whole.

    Raises:
        ArtifactError: what it says cannot be.
    """
    stored = config.get("quantization_config")
    found = stored.get("block_shapes") if isinstance(stored, dict) else None
    if found is None:
        return None
    blocks = config.get("num_hidden_layers", config.get("n_layers"))
    fits = isinstance(found, list) and len(found) == blocks
    if not fits or not all(_is_shape(shape, whole_block(config)) for shape in found):
        raise ArtifactError(f"config.json states the block_shapes {str(found)[:200]}, which cannot be.")
    return [(shape[0], shape[1]) for shape in found]


def _is_shape(shape: Any, largest: tuple[int, int]) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(size) is int and 1 <= size <= limit for size, limit in zip(shape, largest, strict=True))
    )


def whole_block(config: Mapping[str, Any]) -> tuple[int, int]:
    """Heads and neurons of a whole block, by what a `config.json` holds."""
    return _size(config, "num_attention_heads", "n_heads"), _size(config, "intermediate_size", "hidden_dim")


def _size(config: Mapping[str, Any], *names: str) -> int:
    """The first of these that is a whole number; 0 where none is."""
    return next((config[name] for name in names if type(config.get(name)) is int), 0)


def padded(weights: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights of the whole model: heads and neurons that were removed are zeros, behind those that are left.

    Args:
        weights: Every weight by name, as `Artifact.dense_weights` gives them.
        config: The artifact's `config.json`.
    """
    return _resized(weights, config, to_whole=True)


def cut(weights: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What `padded` was given, of what it gave."""
    return _resized(weights, config, to_whole=False)


def _resized(weights: Mapping[str, np.ndarray], config: Mapping[str, Any], *, to_whole: bool) -> dict[str, np.ndarray]:
    shapes = read_block_shapes(config)
    if shapes is None:
        return dict(weights)
    heads, neurons = whole_block(config)
    hidden = _size(config, "hidden_size", "dim")
    size = hidden // heads
    resized = dict(weights)
    for name, weight in weights.items():
        axis = axis_of(name)
        if axis is not None:
            left = shapes[axis.block][0] * size if axis.unit == "heads" else shapes[axis.block][1]
            whole = hidden if axis.unit == "heads" else neurons
            resized[name] = _sized(weight, axis, whole if to_whole else left)
    return resized


def _sized(weight: np.ndarray, axis: Axis, size: int) -> np.ndarray:
    """The tensor with each of its parts cut or filled to a size along the axis."""
    parts = np.split(weight, axis.parts, axis=axis.number)
    if parts[0].shape[axis.number] >= size:
        kept = [part.take(np.arange(size), axis=axis.number) for part in parts]
    else:
        missing = [(0, 0)] * weight.ndim
        missing[axis.number] = (0, size - parts[0].shape[axis.number])
        kept = [np.pad(part, missing) for part in parts]
    return np.ascontiguousarray(np.concatenate(kept, axis=axis.number))
