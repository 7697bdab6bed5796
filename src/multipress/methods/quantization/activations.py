"""Rounding what goes into linear layers: with a scale a token, computed as it passes, or one a layer, fixed before."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multipress.errors import ArtifactError
from multipress.models.graph import INPUT_SCALE

__all__ = ["activation_scales", "quantize_activations", "round_by_layer", "round_by_token"]

_MEMORY = 0.99  # of the largest values: about the last 100 batches count
_SMALLEST, _LARGEST = 1e-12, 1e30


def quantize_activations(model: nn.Module, bits: int, scales: Any = None) -> nn.Module:
    """Changes a stored model so that the input of each linear layer is rounded as in its training; returns it.

    Args:
        model: A model of floats.
        bits: Of an activation.
        scales: As `activation_scales` gave them; None: one a token, which depends on that token alone.

    Raises:
        ArtifactError: there are other than 8 bits, or the scales are not those of the model's linear layers.
    """
    if type(bits) is not int or bits != 8:
        raise ArtifactError(f"activation_bits is {str(bits)[:40]!r}, but activations have 8 bits.")
    if scales is None:
        return round_by_token(model, bits)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    have = scales if isinstance(scales, dict) else {}
    wrong = sorted(have.keys() ^ layers.keys()) or [name for name, value in have.items() if not _is_scale(value)]
    if wrong:
        raise ArtifactError(
            f"The scales of activations are not those of the linear layers: {', '.join(wrong[:5])}. An artifact "
            "opens as the class that was trained, with its head."
        )
    round_by_layer(model, bits, is_trained=False)
    for name, module in layers.items():
        module.input_scale.fill_(have[name])  # type: ignore[operator, union-attr]
    return model


def _is_scale(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def round_by_token(model: nn.Module, bits: int) -> nn.Module:
    """Changes `model` so that the input of each linear layer is rounded, one scale a token; returns it.

    The scale of a token depends on that token alone, so results do not depend on batch mates or padding.
    """
    limit = 2 ** (bits - 1) - 1

    def round_input(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        largest = inputs[0].detach().abs().amax(-1, keepdim=True)
        scale = (largest / limit).clamp_min(_SMALLEST)
        return (_straight_through(inputs[0], torch.round(inputs[0].detach() / scale) * scale), *inputs[1:])

    return _attach(model, bits, round_input)


def round_by_layer(model: nn.Module, bits: int, *, is_trained: bool = True) -> nn.Module:
    """Changes `model` so that the input of each linear layer is rounded, one scale a layer; returns it.

    In training mode the scale follows the largest absolute value of the batches, as a moving average (Jacob et al.
    2018, section 3.1); in evaluation mode it stays. Until a layer has seen a batch its scale is 0, and nothing is
    rounded. Values beyond the largest integer are cut off and learn nothing.

    Args:
        model: Is changed.
        bits: Of an activation.
        is_trained: Whether the scales are a part of its `state_dict`, with which a training goes on; one that is opened
            has the `state_dict` of its class.
    """
    limit = 2.0 ** (bits - 1) - 1

    def round_input(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        values = inputs[0].detach()
        if module.training and torch.is_grad_enabled():
            seen = (values.abs().amax().float() / limit).clamp_min(_SMALLEST)
            module.input_scale.copy_(
                torch.where(module.input_scale > 0, module.input_scale.lerp(seen, 1 - _MEMORY), seen)
            )
        scale = module.input_scale
        if not scale > 0:
            return inputs
        # From -128, as an unsigned byte with its zero at 128 has it.
        rounded = torch.clamp(torch.round(values / scale), -limit - 1, limit) * scale
        inside = inputs[0] if not torch.is_grad_enabled() else inputs[0].clamp((-limit - 1) * scale, limit * scale)
        return (_straight_through(inside, rounded), *inputs[1:])

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_buffer(INPUT_SCALE, torch.zeros((), device=module.weight.device), persistent=is_trained)
    return _attach(model, bits, round_input)


def activation_scales(model: nn.Module) -> dict[str, float] | None:
    """The scale of each linear layer's input, by the module's name; None where there are none."""
    layers = {name: module for name, module in model.named_modules() if hasattr(module, INPUT_SCALE)}
    # In the fewest digits that give the same 32-bit number again.
    return {name: float(str(np.float32(module.input_scale))) for name, module in layers.items()} or None


def _attach(model: nn.Module, bits: int, round_input: Any) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(round_input)
    model.activation_bits = bits  # type: ignore[assignment]
    return model


def _straight_through(values: Tensor, rounded: Tensor) -> Tensor:
    """What was rounded; its gradient is that of `values`."""
    if not torch.is_grad_enabled():
        return rounded
    return values + (rounded - values.detach())
