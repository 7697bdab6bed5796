"""Where an artifact's zero weights sit, by block and matrix: counted in the stored integers, no model is run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from multipress.artifact import Artifact

__all__ = ["MATRICES", "Zeros", "count_zeros"]

_BLOCK = re.compile(r"\.(?:layer|layers)\.(\d+)\.(.+)\.(weight|bias)$")
# A decoder's attention to what the encoder read.
_CROSS = {"query": "q", "key": "k", "value": "v", "output": "out"}
# The first that fits, by what follows the block's number in a tensor's name, in any of the families.
_KINDS = (
    ("norm", re.compile(r"LayerNorm|layer_norm|norm")),
    *((f"cross {kind}", re.compile(rf"encoder_attn\.{name}_proj")) for kind, name in _CROSS.items()),
    ("query", re.compile(r"query|q_lin|q_proj")),
    ("key", re.compile(r"key|k_lin|k_proj")),
    ("value", re.compile(r"value|v_lin|v_proj")),
    ("query, key and value", re.compile(r"Wqkv")),
    ("attention output", re.compile(r"attention\.output|out_lin|attn\.Wo|out_proj")),
    ("feed-forward in", re.compile(r"intermediate|lin1|mlp\.Wi|fc1")),
    ("feed-forward out", re.compile(r"output|lin2|mlp\.Wo|fc2")),
)
# In the order in which a block computes them.
MATRICES = (
    *("embeddings", "query", "key", "value", "query, key and value"),
    "attention output",
    *(f"cross {kind}" for kind in _CROSS),
    *("feed-forward in", "feed-forward out", "norm", "other", "head"),
)


@dataclass(frozen=True)
class Zeros:
    """The zeros of one stored tensor.

    Args:
        tensor: Its name.
        layer: Its block from 1, a decoder's counted on after the encoder's; 0 for the embeddings, None for the head.
        matrix: One of `MATRICES`.
        is_bias: Whether it is a bias.
        size: Its weights.
        zeros: Of them zero, whether pruned or rounded to zero.
        pruned: Of them removed by pruning.
    """

    tensor: str
    layer: int | None
    matrix: str
    is_bias: bool
    size: int
    zeros: int
    pruned: int


def count_zeros(artifact: Artifact) -> Iterator[Zeros]:
    """The zeros of every stored tensor, in the order in which the model computes with them."""
    pruned = artifact.facts.get("pruned", {})
    tensors = artifact.tensors()
    num_read = int(artifact.config.get("encoder_layers", 0))
    for name in sorted(tensors, key=lambda name: _order(name, num_read)):
        tensor, (layer, matrix) = tensors[name], _place(name, num_read)
        size = int(tensor.values.size)
        zeros = size - tensor.nonzeros
        yield Zeros(name, layer, matrix, name.endswith("bias"), size, zeros, int(pruned.get(name, 0)))


def _order(name: str, num_read: int) -> tuple[float, int, str]:
    layer, matrix = _place(name, num_read)
    return math.inf if layer is None else layer, MATRICES.index(matrix), name


def _place(name: str, num_read: int = 0) -> tuple[int | None, str]:
    """Layer and matrix of a tensor; `num_read` are the blocks of a translator's encoder."""
    found = _BLOCK.search(name)
    if found:
        before = num_read if ".decoder." in name else 0
        return before + int(found[1]) + 1, next((kind for kind, pattern in _KINDS if pattern.search(found[2])), "other")
    return (0, "embeddings") if "embeddings" in name or ".shared." in name else (None, "head")
