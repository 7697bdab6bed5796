"""Whether two numbers of a dissection differ, by the numbers without each tenth of the text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from multipress.analysis.uncertainty import holm, jackknife_error

__all__ = ["LEVEL", "chance", "clearly_changed", "least"]

Row = Mapping[str, Any]
LEVEL = 0.05


def chance(difference: float, without: Sequence[float]) -> float:
    """The chance of as large a difference, either way, where there is none: by Student's t.

    Args:
        difference: Of two numbers.
        without: What it is without each part of the text; an even number of parts.

    References:
        Abramowitz and Stegun (1964), 26.7.3: the distribution for an odd number of degrees of freedom.
    """
    error, freedom = jackknife_error(without), len(without) - 1
    if not error:
        return float(difference == 0)
    angle = math.atan(abs(difference) / error / math.sqrt(freedom))
    term, total = math.cos(angle), 0.0
    for odd in range(1, freedom - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (odd + 1) / (odd + 2)
    return 1 - 2 / math.pi * (angle + math.sin(angle) * total)


def clearly_changed(layers: Sequence[Row]) -> list[Row]:
    """The layers whose change against the reference stands when all of them are looked at.

    References:
        Holm (1979).
    """
    found = [row["context"] for row in layers]
    chances = holm([chance(one["change"], one["change_without"]) for one in found])
    beyond = [one["change_low"] > 0 or one["change_high"] < 0 for one in found]
    return [row for row, p, out in zip(layers, chances, beyond, strict=True) if out and p < LEVEL]


def least(layers: Sequence[Row]) -> list[Row]:
    """The layer of the smallest value, then those that it cannot be told apart from, in their order.

    Layers are compared on the same text. Chances are corrected for the number of all pairs, not only of those with the
    smallest: which one that is was seen in the same numbers.

    References:
        Holm (1979).
    """
    lowest = min(range(len(layers)), key=lambda place: float(layers[place]["value"]))
    pairs = list(itertools.combinations(range(len(layers)), 2))
    chances = holm([_chance_between(layers[one], layers[other]) for one, other in pairs])
    apart = {place for pair, p in zip(pairs, chances, strict=True) if lowest in pair and p < LEVEL for place in pair}
    return [layers[lowest], *(row for place, row in enumerate(layers) if place not in {lowest, *apart})]


def _chance_between(one: Row, other: Row) -> float:
    differences = [a - b for a, b in zip(one["context"]["without"], other["context"]["without"], strict=True)]
    return chance(one["value"] - other["value"], differences)
