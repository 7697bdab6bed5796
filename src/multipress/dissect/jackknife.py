"""How far a number would move on other text of the same kind: the jackknife that leaves out a group at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from multipress.analysis.uncertainty import jackknife_error, student_quantile

__all__ = ["GROUPS", "group_bounds", "intervals"]

GROUPS = 10


def group_bounds(num_rows: int, groups: int = GROUPS) -> np.ndarray:
    """Where each group of neighboring rows begins and ends (groups + 1,); neighbors depend on each other.

    Args:
        num_rows: How many rows of words there are, at least as many as groups.
        groups: How many groups.
    """
    return np.linspace(0, num_rows, groups + 1).round().astype(int)


def intervals(
    full: Mapping[str, float], without: Sequence[Mapping[str, float]], grains: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Ends of the 95 % interval of each number.

    Args:
        full: The numbers on all text, by name.
        without: The same on all text but one group, for each group.
        grains: The step of numbers that come in steps, such as counts, by name. Leaving out a little text may not move
            them at all; their interval has one step to each side at least.
    """
    found, quantile = {}, student_quantile(0.95, GROUPS - 1)
    for name, value in full.items():
        reach = max(quantile * jackknife_error([one[name] for one in without]), grains.get(name, 0.0))
        found[name] = (value - reach, value + reach)
    return found
