"""Whether two numbers of a dissection differ, by the numbers without each tenth of the text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from multipress.analysis.uncertainty import holm, jackknife_error

__all__ = ["LEVEL", "chance", "clearly_changed", "least"]

Row = Mapping[str, Any]
LEVEL = 0.05
_GROUPS = 10  # tenths of the text


def chance(difference: float, error: float) -> float:
    """The chance of as large a difference, either way, where there is none: Student's t of nine degrees of freedom.

    References:
        Abramowitz and Stegun (1964), 26.7.3: the distribution for an odd number of degrees of freedom.
    """
    if not error:
        return float(difference == 0)
    freedom = _GROUPS - 1
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
    chances = holm([chance(one["change"], jackknife_error(one["change_without"])) for one in found])
    beyond = [one["change_low"] > 0 or one["change_high"] < 0 for one in found]
    return [row for row, p, out in zip(layers, chances, beyond, strict=True) if out and p < LEVEL]


def least(layers: Sequence[Row]) -> list[Row]:
    """The layer of the smallest value, then those that it cannot be told apart from, in their order.

    Each other layer is compared on the same text; chances are corrected for their number.

    References:
        Holm (1979).
    """
    lowest = min(layers, key=lambda row: float(row["value"]))
    others = [row for row in layers if row is not lowest]
    chances = holm([_chance_between(lowest, row) for row in others])
    return [lowest, *(row for row, p in zip(others, chances, strict=True) if p >= LEVEL)]


def _chance_between(one: Row, other: Row) -> float:
    differences = [a - b for a, b in zip(one["context"]["without"], other["context"]["without"], strict=True)]
    return chance(one["value"] - other["value"], jackknife_error(differences))
