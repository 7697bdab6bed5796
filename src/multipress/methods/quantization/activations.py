"""Rounding what goes into linear layers: one scale a token, computed as the token passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["quantize_activations"]


def quantize_activations(model: nn.Module, bits: int) -> nn.Module:
    """Changes `model` so that the input of each linear layer is rounded to `bits`; returns it.

    The scale of a token depends on that token alone, so results do not depend on batch mates or padding.
    """
    limit = 2 ** (bits - 1) - 1

    def round_input(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_round_tokens(inputs[0], limit), *inputs[1:])

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(round_input)
    model.activation_bits = bits  # type: ignore[assignment]
    return model


def _round_tokens(values: Tensor, limit: int) -> Tensor:
    """(..., D) rounded, one scale a vector of the last dimension; the gradient passes straight through."""
    largest = values.detach().abs().amax(-1, keepdim=True)
    scale = (largest / limit).clamp_min(1e-12)
    rounded = torch.round(values.detach() / scale) * scale
    if not torch.is_grad_enabled():
        return rounded
    return values + (rounded - values.detach())
