"""How many bits integers take when an entropy coder stores them, with a gradient for weights and steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from multipress.methods.quantization.grid import SMALLEST_SCALE, largest_code, learned_scale

__all__ = [
    "FIRST_PRICE",
    "coded_bits",
    "coarser_steps",
    "codes_at_rate",
    "entropy_bits",
    "first_log_step",
    "price_for_rate",
    "price_of",
    "reaching_rate",
]

FIRST_STEP = 0.25  # of the weights' standard deviation: about four bits a weight, harmless to begin with
FIRST_PRICE = 0.3  # with less, the bits hardly fall in the first part of the way
_HUGE = 1e30  # takes all that is not zero beyond one
_PART = 2**16  # how many weights are looked at at a time
_MOST_STEPS = 128  # no integer is as large
_STEP_PARTS = 128  # how fine the threshold is
_FINEST_FACTOR, _MOST_POWERS = 2 ** (1 / 128), 128 * 8  # how much steps grow at a time, and how far
LOWEST_PRICE, HIGHEST_PRICE = 1e-4, 30.0  # above, the price would be all that the weights learn from
MOVED = 0.5  # of Adam's learning rate, in the mean over the steps
# How far the price, and the price from now on, rise with each e-fold of bits above what is wanted; logarithms.
AT_ONCE, LASTING = 3.0, 0.2


def price_of(count: int, others: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What integers cost in a coder that knows how many are zero, and how fast the others fall off.

    Zero has a probability of its own, the others fall by one factor with each step away from it, both signs alike; the
    two numbers are the most likely ones for these integers. Prices never fall with the distance from zero. A histogram
    would be the coder's own model, but its gaps hold integers fast where they are.

    Args:
        count: How many integers there are.
        others: How many of them are not zero.
        total: Sum of their sizes.

    Returns:
        Bits of a zero, of a one beyond a zero's (at least 0), and of each further step away from zero; scalars.
    """
    others = others.clamp(0.5, count - 0.5)  # neither price is infinite
    mean = (total / others).clamp_min(1 + 1.0 / count)
    share = others / count
    zero = -(1 - share).log2()
    first = -(share / mean / 2).log2()
    return zero, (first - zero).clamp_min(0), -(1 - 1 / mean).log2()


class _CodedBits(torch.autograd.Function):
    """The bits of all rounded weights; between two integers their price changes linearly, and that is the gradient.

    Works on a part of the rows at a time, twice: memory is slow, and a part stays in the processor's cache. The
    gradient is made on the way; there is one backward pass.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, log_step: Tensor, bits: int) -> Tensor:
        scale, limit = learned_scale(log_step), largest_code(bits)
        scales = scale.expand(len(weight), 1)
        size = len(weight) if weight.is_cuda else max(1, _PART // weight.shape[1])
        parts = list(zip(weight.split(size), scales.split(size), strict=True))
        ratio, far = torch.empty_like(weight[:size]), torch.empty_like(weight[:size])
        total, others = torch.zeros((), device=weight.device), torch.zeros((), device=weight.device)
        for rows, steps in parts:
            sizes = torch.div(rows, steps, out=ratio[: len(rows)]).clamp_(-limit, limit).round_().abs_()
            total += sizes.sum()
            others += sizes.clamp_(max=1).sum()
        zero, first, further = price_of(weight.numel(), others, total)
        slope, by_row = torch.empty_like(weight), torch.empty_like(scales)
        for (rows, steps), out, pulls in zip(parts, slope.split(size), by_row.split(size), strict=True):
            part = torch.div(rows, steps, out=ratio[: len(rows)]).clamp_(-limit, limit)
            # Away from zero costs, at zero nothing pulls. `sign` and `where` take several times as long as these do,
            # `trunc` thirty times as long as what it is made of here.
            torch.mul(part, _HUGE, out=out).clamp_(-1, 1).mul_(first)
            if limit > 1:  # of 2 bits there is no integer beyond one
                whole = torch.sub(part, torch.frac(part, out=far[: len(rows)]), out=far[: len(rows)])
                out += whole.clamp_(-1, 1).mul_(further - first)
            torch.sum(part.mul_(out), -1, keepdim=True, out=pulls)
            out /= steps
        ctx.save_for_backward(slope, by_row.neg_().sum_to_size(scale.shape))
        return zero * weight.numel() + first * others + further * (total - others)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        slope, by_step = ctx.saved_tensors
        return slope.mul_(gradient), by_step.mul_(gradient), None


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


def price_for_rate(
    lasting: Tensor, bits: Tensor, first_bits: Tensor, rate: float, progress: float
) -> tuple[Tensor, Tensor]:
    """What a bit a weight costs in the loss, so that the bits fall to `rate` as the training goes.

    They are to fall by equal factors, from what they were at first, until `progress` is 1. Where they are above that
    line the price rises, below it falls: at once, and in its lasting part.

    Args:
        lasting: The lasting part of the price until now; scalar.
        bits: Mean bits of a weight now; scalar.
        first_bits: Mean bits at first; scalar.
        rate: Mean bits that are wanted at the end.
        progress: Share of the way, 0 to 1.

    Returns:
        The price now, and its lasting part; scalars.
    """
    above = bits / (first_bits ** (1 - progress) * rate**progress)
    lasting = (lasting * above**LASTING).clamp(LOWEST_PRICE, HIGHEST_PRICE)
    return lasting * above**AT_ONCE, lasting


def reaching_rate(first_bits: float, rate: float, num_steps: float) -> float:
    """Learning rate of the steps' logarithms that lets them get from so many bits to so many in `num_steps` steps.

    Each doubling of a step saves about a bit. Adam moves a parameter by its learning rate at most, here by
    `MOVED` of it, because the learning rate falls as the training goes.
    """
    way = math.log(2) * max(0.0, first_bits - rate)
    return way / (MOVED * max(1.0, num_steps))


def entropy_bits(codes: Tensor) -> float:
    """Order-0 entropy of integers (int8), bits each."""
    counts = torch.bincount(codes.flatten().long() + 128)
    shares = counts[counts > 0] / codes.numel()
    return float(-(shares * shares.log2()).sum())


def codes_at_rate(part: Tensor, codes: Tensor, rate: float) -> Tensor:
    """Integers that take at most `rate` bits each: those of the smallest weights, measured in steps, become zero.

    Args:
        part: Weights divided by their steps, (R, D).
        codes: Their integers, int8.
        rate: Order-0 entropy that is allowed, bits.

    Returns:
        The integers that are left, zeros elsewhere, under the lowest threshold that will do; those given, if they do.
    """
    sizes = part.abs().clamp_(max=_MOST_STEPS)
    half = _STEP_PARTS // 2  # of a step: what is below is zero already
    enough = (_bits_by_threshold(sizes, codes)[half:] <= rate).nonzero()
    threshold = (half + int(enough[0])) / _STEP_PARTS if len(enough) else math.inf
    return codes * (sizes >= threshold)


def coarser_steps(parts: list[Tensor], rate: float, stored: list[int]) -> float:
    """The smallest factor by which all steps must grow for the integers to take at most `rate` bits each.

    Coarser steps for all keep more than zeros alone do: those would take the weights of the layers that have the
    fewest bits already, while the words keep theirs.

    Args:
        parts: Weights divided by their steps; each (R, D).
        rate: Mean order-0 entropy that is allowed, bits.
        stored: How many of the weights of each will be stored, for the mean.
    """
    counts = [_count_sizes(part) for part in parts]

    def is_more(power: int) -> bool:
        factor = _FINEST_FACTOR**power
        bits = [count * _bits_at_factor(own, factor) for own, count in zip(counts, stored, strict=True)]
        return sum(bits) > rate * sum(stored)

    low, high = -1, 0
    while is_more(high) and high < _MOST_POWERS:
        low, high = high, max(1, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_more(middle) else (low, middle)
    return float(_FINEST_FACTOR**high)


def _count_sizes(part: Tensor) -> Tensor:
    """How many weights lie in each part of a step: (2, bins), those below zero and the others."""
    places = (part.abs().clamp_(max=_MOST_STEPS) * _STEP_PARTS).long()
    num = int(places.max()) + 1
    return torch.bincount((places + num * (part > 0)).flatten(), minlength=2 * num).view(2, num)


def _bits_at_factor(counts: Tensor, factor: float) -> float:
    """Order-0 entropy of the integers where steps are so many times as large, by the middles of the bins."""
    codes = ((torch.arange(counts.shape[1]) + 0.5) / _STEP_PARTS / factor).round().long()
    sides = torch.zeros(2, int(codes.max()) + 1, dtype=torch.float64).index_add_(1, codes, counts.double())
    shares = torch.cat([sides[:, 0].sum().view(1), sides[:, 1:].flatten()]) / counts.sum()
    return float(-torch.xlogy(shares, shares).sum() / math.log(2))


def _bits_by_threshold(sizes: Tensor, codes: Tensor) -> Tensor:
    """Order-0 entropy of the integers that a threshold leaves, for every threshold at once.

    Args:
        sizes: (R, D), in steps.
        codes: int8 of the same shape.

    Returns:
        (T,), bits each; thresholds are multiples of 1 / `_STEP_PARTS` from 0 on, the last one leaves nothing.
    """
    places = (sizes * _STEP_PARTS).long()
    num = int(places.max()) + 2
    zero = max(0, -int(codes.min()))  # its place among the integers
    width = zero + max(0, int(codes.max())) + 1
    counts = torch.bincount(places.mul_(width).add_(codes).add_(zero).flatten(), minlength=num * width)
    left = counts.view(num, width).flip(0).cumsum(0).flip(0).double()  # (T, width), of at least so many steps
    left[:, zero] += codes.numel() - left.sum(1)
    shares = left / codes.numel()
    return -torch.xlogy(shares, shares).sum(1) / math.log(2)
