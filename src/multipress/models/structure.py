"""Heads, feed-forward neurons and blocks taken out of an encoder of any family; its modules stay transformers' own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from multipress.block_shapes import Axis, axis_of
from multipress.models.families import family_of

__all__ = [
    "block_axes",
    "block_shapes_of",
    "drop_blocks",
    "head_size",
    "keep_units",
    "narrow",
    "shaped_like",
    "unit_indices",
]

_UNITS = ("heads", "neurons")


def block_axes(model: nn.Module) -> dict[str, tuple[nn.Linear, Axis]]:
    """The linear layers of an encoder's blocks by name, each with the axis along which it holds heads or neurons."""
    family_of(model)
    found = {name: (module, axis_of(f"{name}.weight")) for name, module in model.named_modules()}
    return {name: (module, axis) for name, (module, axis) in found.items() if axis and isinstance(module, nn.Linear)}


def head_size(model: nn.Module) -> int:
    """Numbers of a head."""
    config: Any = model.config
    return int(config.hidden_size // config.num_attention_heads)


def block_shapes_of(model: nn.Module) -> list[tuple[int, int]]:
    """Heads and neurons of each block."""
    shapes: dict[int, dict[str, int]] = {}
    for module, axis in block_axes(model).values():
        size = module.weight.shape[axis.number] // axis.parts
        shapes.setdefault(axis.block, {})[axis.unit] = size // (head_size(model) if axis.unit == "heads" else 1)
    return [(shapes[block]["heads"], shapes[block]["neurons"]) for block in sorted(shapes)]


def unit_indices(kept: Tensor, axis: Axis, size: int) -> Tensor:
    """Positions along an axis of the units that are kept.

    Args:
        kept: (H,) or (I,) bool, heads or neurons.
        axis: The axis.
        size: Numbers of a head.
    """
    wide = kept.repeat_interleave(size) if axis.unit == "heads" else kept
    return wide.repeat(axis.parts).nonzero().flatten()


def keep_units(model: nn.Module, kept: list[dict[str, Tensor]]) -> nn.Module:
    """Takes heads and neurons out of the blocks, with their codes and scales; changes `model` and returns it.

    Args:
        model: A classifier of a known family.
        kept: Of each block `heads` (H,) and `neurons` (I,), bool.
    """
    for module, axis in block_axes(model).values():
        indices = unit_indices(kept[axis.block][axis.unit], axis, head_size(model))
        _keep(module, axis.number, indices)
    for block, chosen in zip(family_of(model).block_list(model), kept, strict=True):
        for module in block.modules():
            for name in ("num_attention_heads", "n_heads"):
                if hasattr(module, name):
                    setattr(module, name, int(chosen["heads"].sum()))
    return model


@torch.no_grad()
def _keep(module: Any, axis: int, indices: Tensor) -> None:
    """Cuts a linear layer down to some rows (axis 0) or columns (axis 1)."""
    if len(indices) == module.weight.shape[axis]:
        return
    module.weight = nn.Parameter(module.weight.detach().index_select(axis, indices.to(module.weight.device)))
    module.out_features, module.in_features = module.weight.shape
    if axis == 0 and module.bias is not None:
        module.bias = nn.Parameter(module.bias.detach()[indices])
    if hasattr(module, "weight_codes"):
        assert axis == 0 or module.weight_scale.ndim == 1  # groups and `structured` are refused together
        module.weight_codes = module.weight_codes.index_select(axis, indices)
        if axis == 0 and len(module.weight_scale) > 1:
            module.weight_scale = module.weight_scale[indices]
    module.stored_indices = (axis, indices)


def narrow(model: nn.Module, shapes: list[tuple[int, int]]) -> nn.Module:
    """Gives the blocks of a model these numbers of heads and neurons, the first of each; changes and returns it."""
    kept = []
    for old, new in zip(block_shapes_of(model), shapes, strict=True):
        kept.append({unit: torch.arange(have) < left for unit, have, left in zip(_UNITS, old, new, strict=True)})
    return keep_units(model, kept)


def drop_blocks(model: nn.Module, kept: list[bool]) -> nn.Module:
    """Takes whole blocks out; changes `model` and returns it."""
    family, config = family_of(model), model.config
    blocks = family.block_list(model)
    for block in reversed(range(len(kept))):
        if not kept[block]:
            del blocks[block]
    if "layer_types" in family.keys:
        config.layer_types = [kind for kind, stays in zip(config.layer_types, kept, strict=True) if stays]  # type: ignore[union-attr,arg-type]
    config.num_hidden_layers = len(blocks)  # type: ignore[union-attr,assignment]
    return model


def shaped_like(model: nn.Module, config: dict[str, Any], shapes: list[tuple[int, int]] | None) -> nn.Module:
    """Takes out of an encoder as many blocks, heads and neurons as an artifact of it has lost; which, says nothing.

    Changes `model`, whose weights are about to be replaced, and returns it.

    Args:
        model: A classifier.
        config: The artifact's `config.json`.
        shapes: Heads and neurons of each of its blocks, if any has lost some.
    """
    own: Any = model.config
    left = list(config.get("layer_types") or [None] * config.get("num_hidden_layers", config.get("n_layers", 0)))
    stays = []
    for kind in (own.layer_types if config.get("layer_types") else None) or [None] * own.num_hidden_layers:
        stays.append(bool(left) and left[0] == kind)
        left = left[1:] if stays[-1] else left
    drop_blocks(model, stays)
    return model if shapes is None else narrow(model, shapes)
