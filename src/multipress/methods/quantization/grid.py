"""The integer grid: scales, rounding, and the straight-through gradient."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "QuantizedWeight",
    "fake_quantize",
    "fake_quantize_learned",
    "in_groups",
    "largest_code",
    "quantize_groups",
    "quantize_rows",
    "row_scale",
]

# Best step of a uniform quantizer with 2**bits - 1 levels and one of them zero, for a normal distribution, in units of
# its standard deviation (Max 1960; computed by minimizing the expected squared error, tests repeat it). From 6 bits on
# the largest weight sets the scale, so that none is cut off.
BEST_STEP = {2: 1.2240, 3: 0.6508, 4: 0.3534}
SMALLEST_SCALE = 2.0**-24  # the smallest positive float16


class QuantizedWeight(NamedTuple):
    """Integer codes (int8, the weight's shape) and float16 scales: one a row, a single one, or (rows, groups)."""

    codes: Tensor
    scale: Tensor

    def dense(self) -> Tensor:
        """What the codes stand for, float32 of the weight's shape."""
        scale = self.scale.float()
        if scale.ndim == 1:
            return self.codes.float() * scale.unsqueeze(-1)
        return (self.codes.float().view(*scale.shape, -1) * scale.unsqueeze(-1)).view_as(self.codes)


def largest_code(bits: int) -> int:
    """Largest integer of the symmetric grid: 127 for 8 bits, 1 for 2."""
    return 2 ** (bits - 1) - 1


def row_scale(weight: Tensor, bits: int) -> Tensor:
    """Scale of each row, already rounded to float16, as float32.

    Args:
        weight: (..., D); every vector of the last dimension is a row.
        bits: 2 to 8.

    Returns:
        (..., 1); at least `SMALLEST_SCALE`, so that a row of zeros divides.
    """
    scale = weight.abs().amax(-1, keepdim=True) / largest_code(bits)
    if bits in BEST_STEP:
        num_left = weight.count_nonzero(-1).unsqueeze(-1).clamp_min(1)
        spread = (weight.square().sum(-1, keepdim=True) / num_left).sqrt()
        scale = torch.minimum(scale, BEST_STEP[bits] * spread)
    return scale.half().float().clamp_min(SMALLEST_SCALE)


def quantize_rows(weight: Tensor, bits: int, scale: Tensor | None = None) -> QuantizedWeight:
    """Integer codes of a weight; `codes.float() * scale.float()` is what `fake_quantize` returns, bit for bit.

    Args:
        weight: (R, D).
        bits: 2 to 8.
        scale: (R, 1) or (1, 1), float32 values that float16 can hold; None: `row_scale`.
    """
    scale = row_scale(weight, bits) if scale is None else scale
    limit = largest_code(bits)
    codes = (weight / scale).round_().clamp_(-limit, limit).to(torch.int8)
    return QuantizedWeight(codes, scale.squeeze(-1).half())


def in_groups(weight: Tensor, group: int) -> Tensor:
    """(..., D) as (..., D / group, group); with a group of 0, or one that does not divide D, as (..., 1, D)."""
    width = weight.shape[-1]
    size = group if group and width % group == 0 else width
    return weight.unflatten(-1, (width // size, size))


def quantize_groups(weight: Tensor, bits: int, group: int) -> QuantizedWeight:
    """Integer codes of a weight (R, D) with a scale for each group of a row: (R, groups), or (R,) if there is one."""
    groups = in_groups(weight, group)
    codes, scale = quantize_rows(groups.flatten(0, 1), bits)
    return QuantizedWeight(codes.view_as(weight), scale.view(groups.shape[:2]).squeeze(1))


class _StraightThrough(torch.autograd.Function):
    """Rounds to the grid; the gradient passes as if nothing had been done."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: int) -> Tensor:
        scale = row_scale(weight, bits)
        limit = largest_code(bits)
        return (weight / scale).round_().clamp_(-limit, limit).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _LearnedStep(torch.autograd.Function):
    """Rounds to a grid with a learned step; gradients by Esser et al. 2020, equations 3 and 5, for its logarithm."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, log_step: Tensor, bits: int, gradient_scale: float) -> Tensor:
        scale = learned_scale(log_step)
        limit = largest_code(bits)
        ratio = weight / scale
        codes = ratio.round()
        # Where all lie inside, as they do with many bits, half of the passes over the weight are not needed.
        inside = None if max(ratio.max(), -ratio.min()) <= limit else ratio.abs() <= limit
        if inside is None:
            slope = ratio.neg_().add_(codes)
        else:
            codes.clamp_(-limit, limit)
            slope = torch.where(inside, codes - ratio, codes)
        ctx.save_for_backward(slope, scale, inside)
        ctx.gradient_scale = gradient_scale
        return codes.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        slope, scale, inside = ctx.saved_tensors
        step_gradient = (gradient * slope).sum_to_size(scale.shape) * scale * ctx.gradient_scale
        return gradient if inside is None else gradient * inside, step_gradient, None, None


def learned_scale(log_step: Tensor) -> Tensor:
    """The scale that a learned logarithm stands for, rounded to float16, as float32."""
    return log_step.exp().half().float().clamp_min(SMALLEST_SCALE)


def fake_quantize(weight: Tensor, bits: int, group: int = 0) -> Tensor:
    """The weight rounded to its grid, rows or groups scaled by `row_scale`; the gradient passes straight through."""
    return _StraightThrough.apply(in_groups(weight, group), bits).view_as(weight)


def fake_quantize_learned(weight: Tensor, log_step: Tensor, bits: int, *, plain_gradient: bool = False) -> Tensor:
    """The weight rounded to a grid of learned step.

    Args:
        weight: (..., D).
        log_step: (..., 1), logarithm of the scale of each row, or of all.
        bits: 2 to 8.
        plain_gradient: Whether the gradient of the step stays as it is, to be weighed against another loss; else it is
            scaled as Esser et al. 2020, section 2.2.
    """
    factor = 1.0 if plain_gradient else 1.0 / math.sqrt(weight.shape[-1] * largest_code(bits))
    return _LearnedStep.apply(weight, log_step, bits, factor)
