"""What each method does to the score, and what methods do together beyond the sum of their own effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from multipress.analysis.blocks import Block, by_place
from multipress.analysis.cells import Cell, levels_json
from multipress.analysis.table import Summary, summarize

__all__ = ["Interaction", "interactions", "inclusion_exclusion"]

Levels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Interaction:
    """Effect of one level, or interaction of several, on the score (a share, so 0.01 is one point).

    Args:
        levels: Methods and their levels.
        overall: Over all places; a place is a model and a task, its value the mean of its seeds.
        by_model: The same for each model.
        by_task: The same for each task.
        num_blocks: Blocks that are in it; a block is one model, task and seed.
        num_missing: Blocks that were asked for but lack a cell, because one is not done.
    """

    levels: Levels
    overall: Summary
    by_model: dict[str, Summary]
    by_task: dict[str, Summary]
    num_blocks: int
    num_missing: int

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self) | levels_json(self.levels)


def inclusion_exclusion(scores: Mapping[Levels, Any], levels: Levels) -> Any:
    """Effect of `levels` beyond all effects of fewer of them: the alternating sum over all their subsets.

    For one level A: y(A) - y(dense); for two: y(AB) - y(A) - y(B) + y(dense); and so on. A sum of effects
    gives 0 for every interaction.

    Args:
        scores: Score, or an array of scores, by levels; the dense control under `()`.
        levels: The levels, in the order of the keys.

    Returns:
        The effect; None if a score is missing.
    """
    total: Any = 0.0
    for size in range(len(levels) + 1):
        for subset in combinations(levels, size):
            if subset not in scores:
                return None
            total += (-1) ** (len(levels) - size) * scores[subset]
    return total


def interactions(cells: Sequence[Cell]) -> list[Interaction]:
    """Effects and interactions of every combination of levels that the grid asks for, singles first.

    References:
        Movva et al. (2022), accuracy effects: means over architectures of the score's changes. Differs: here
        a block is one model, task and seed, and the seeds of each model and task are averaged first.
    """
    blocks: dict[Block, dict[Levels, float | None]] = {}
    for cell in cells:
        score = cell.score if cell.is_done else None
        blocks.setdefault((cell.model, cell.task, cell.seed), {})[cell.levels] = score
    asked = {cell.levels: None for cell in cells if cell.levels}
    found = [_interaction(blocks, levels) for levels in sorted(asked, key=len)]
    return [one for one in found if one.overall.n or one.num_missing]


def _interaction(blocks: Mapping[Block, Mapping[Levels, float | None]], levels: Levels) -> Interaction:
    subsets = [c for size in range(len(levels) + 1) for c in combinations(levels, size)]
    values: dict[Block, float] = {}
    num_missing = 0
    for block, cells in blocks.items():
        if any(subset not in cells for subset in subsets):
            continue  # the grid never asked for it
        scores = {key: score for key, score in cells.items() if score is not None}
        value = inclusion_exclusion(scores, levels)
        if value is None:
            num_missing += 1
        else:
            values[block] = value
    places = [(*place, fmean(own)) for place, own in by_place(values).items()]
    return Interaction(
        levels=levels,
        overall=summarize([value for *_, value in places]),
        by_model={
            name: summarize([value for model, _, value in places if model == name])
            for name in dict.fromkeys(model for model, *_ in places)
        },
        by_task={
            name: summarize([value for _, task, value in places if task == name])
            for name in dict.fromkeys(task for _, task, _ in places)
        },
        num_blocks=len(values),
        num_missing=num_missing,
    )
