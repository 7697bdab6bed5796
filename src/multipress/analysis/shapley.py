"""Who earned what: the Shapley share of each method in log size and in score.

A method's value is its mean effect over all orders in which the methods of a combination may be added. The values of a
combination add up to what it does together, whether methods interact or not.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from multipress.analysis.blocks import Block, by_place
from multipress.analysis.cells import SIZES, Cell, levels_json
from multipress.analysis.interaction import Levels

__all__ = ["Shapley", "shapley_shares", "shapley_values"]

_SCORE = "score"


@dataclass(frozen=True)
class Shapley:
    """Shares of the methods of one combination, as means over models and tasks, each the mean of its seeds.

    Args:
        levels: The combination.
        factors: By size, how many times smaller each method makes a model; their product is the whole.
        shares: By size, each method's share of the logarithm of the whole; they add up to 1. None if nothing shrank.
        score: Each method's part of the score's change, a share of 1.
        num_blocks: Blocks (one model, task and seed) in which every subset of the combination is done.
    """

    levels: Levels
    factors: dict[str, list[float]]
    shares: dict[str, list[float] | None]
    score: list[float]
    num_blocks: int

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        made = {"factors": self.factors, "shares": self.shares, "score": self.score, "num_blocks": self.num_blocks}
        return made | levels_json(self.levels)


def shapley_values(values: Mapping[Levels, float], levels: Levels) -> list[float]:
    """The value of each level, in their order.

    Args:
        values: What each subset of the levels gives, the empty one under `()`.
        levels: The levels, in the order of the keys.

    References:
        Shapley (1953).
    """
    num = len(levels)
    found = []
    for one in levels:
        others = [level for level in levels if level != one]
        total = 0.0
        for size in range(num):
            weight = 1 / (num * math.comb(num - 1, size))
            for subset in combinations(others, size):
                joined = tuple(level for level in levels if level == one or level in subset)
                total += weight * (values[joined] - values[subset])
        found.append(total)
    return found


def shapley_shares(cells: Sequence[Cell]) -> list[Shapley]:
    """Shares in every combination of two methods or more whose subsets are all done somewhere."""
    blocks: dict[Block, dict[Levels, Cell]] = defaultdict(dict)
    for cell in cells:
        if cell.is_done and all(cell.sizes.get(size) for size in SIZES):
            blocks[cell.model, cell.task, cell.seed][cell.levels] = cell
    found = []
    for levels in sorted({cell.levels: None for cell in cells if len(cell.levels) > 1}, key=len):
        subsets = [subset for size in range(len(levels) + 1) for subset in combinations(levels, size)]
        whole = {block: own for block, own in blocks.items() if all(subset in own for subset in subsets)}
        if whole:
            found.append(_shapley(whole, subsets, levels))
    return found


def _shapley(blocks: Mapping[Block, Mapping[Levels, Cell]], subsets: Sequence[Levels], levels: Levels) -> Shapley:
    means = {}
    for name in (*SIZES, _SCORE):
        values = {
            block: shapley_values({s: _value(own[s], name) for s in subsets}, levels) for block, own in blocks.items()
        }
        means[name] = np.mean([np.mean(own, axis=0) for own in by_place(values).values()], axis=0)
    sums = {size: float(means[size].sum()) for size in SIZES}
    return Shapley(
        levels=levels,
        factors={size: np.exp(means[size]).tolist() for size in SIZES},
        shares={size: (means[size] / sums[size]).tolist() if abs(sums[size]) > 1e-9 else None for size in SIZES},
        score=means[_SCORE].tolist(),
        num_blocks=len(blocks),
    )


def _value(cell: Cell, name: str) -> float:
    """The score, or how small the cell is on a logarithmic scale."""
    if name == _SCORE:
        return cell.score or 0.0
    return -math.log(cell.sizes[name] or 1.0)
