"""Scales and ticks of a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale", "linear_scale", "log_scale"]


_LOG_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), (1, 1.2, 1.5, 1.7, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9))
_ENOUGH_TICKS = 3


@dataclass(frozen=True)
class Scale:
    """From numbers to places along an axis.

    Args:
        low: Number at `start`.
        high: Number at `end`.
        start: Place of `low`, in the drawing's units.
        end: Place of `high`.
        is_log: Whether equal ratios, not equal differences, are equally far apart.
        ticks: Round numbers between `low` and `high`.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The place of a number."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def log_scale(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale on which all positive numbers have room; ticks at powers of ten, and between them if these are few."""
    low, high = min(values) / 1.25, max(values) * 1.25
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in _LOG_STEPS:
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= _ENOUGH_TICKS:
            break
    return Scale(low, high, start, end, True, tuple(ticks))


def linear_scale(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale on which all numbers have room, with three to eight ticks at round numbers."""
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or 0.01
    low, high = low - room, high + room
    rough = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return Scale(low, high, start, end, False, tuple(i * step for i in range(first, last + 1)))
