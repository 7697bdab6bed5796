"""How many bits integers take when an entropy coder stores them, with a gradient for weights and steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multipress.methods.quantization.grid import SMALLEST_SCALE, largest_code, learned_scale

__all__ = ["coded_bits", "first_log_step", "price_of"]

FIRST_STEP = 0.25  # of the weights' standard deviation: about four bits a weight, harmless to begin with


def price_of(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What integers cost in a coder that knows how many are zero, and how fast the others fall off.

    Zero has a probability of its own, the others fall by one factor with each step away from it, both signs alike; the
    two numbers are the most likely ones for these integers. Prices never fall with the distance from zero. A histogram
    would be the coder's own model, but its gaps hold integers fast where they are.

    Args:
        codes: Integers as floats; any shape.

    Returns:
        Bits of a zero, of a one beyond a zero's (at least 0), and of each further step away from zero; scalars.
    """
    count = codes.numel()
    sizes = codes.abs()
    others = sizes.count_nonzero().clamp(0.5, count - 0.5)  # neither price is infinite
    mean = (sizes.sum() / others).clamp_min(1 + 1.0 / count)
    share = others / count
    zero = -(1 - share).log2()
    first = -(share / mean / 2).log2()
    return zero, (first - zero).clamp_min(0), -(1 - 1 / mean).log2()


class _CodedBits(torch.autograd.Function):
    """The bits of all rounded weights; between two integers their price changes linearly, and that is the gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, log_step: Tensor, bits: int) -> Tensor:
        scale = learned_scale(log_step)
        limit = largest_code(bits)
        ratio = (weight / scale).clamp_(-limit, limit)
        codes = ratio.round()
        zero, first, further = price_of(codes)
        sizes = codes.abs_()
        ctx.save_for_backward(torch.where(ratio.abs() <= 1, first, further), ratio, scale)
        return zero * codes.numel() + first * sizes.count_nonzero() + further * (sizes - 1).clamp_(min=0).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        slope, ratio, scale = ctx.saved_tensors
        slope = gradient * slope * ratio.sign()  # away from zero costs, at zero nothing pulls
        return slope / scale, -(slope * ratio).sum_to_size(scale.shape), None


def coded_bits(weight: Tensor, log_step: Tensor, bits: int) -> Tensor:
    """Bits of a rounded weight in an entropy coder, a scalar: at least the order-0 entropy of its integers.

    The prices (`price_of`) are taken as given; the gradient says what it saves to move a weight towards zero, or to
    widen the step.

    Args:
        weight: (R, D).
        log_step: (R, 1) or (1, 1), logarithm of the scale.
        bits: 2 to 8; integers beyond that grid are cut off.
    """
    return _CodedBits.apply(weight, log_step, bits)


def first_log_step(weight: Tensor, per: str) -> Tensor:
    """Where learned steps of coded weights begin: (R, 1), or (1, 1) where `per` is `tensor`."""
    spread = weight.square().mean(-1, keepdim=True).sqrt()
    if per == "tensor":
        spread = weight.square().mean().sqrt().view(1, 1)
    return (FIRST_STEP * spread).clamp_min(SMALLEST_SCALE).log()
