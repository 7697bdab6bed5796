"""How sure an effect is: what it might have been on other validation rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

import numpy as np

from multipress.analysis.cells import Cell, levels_json
from multipress.analysis.interaction import Levels, inclusion_exclusion

__all__ = ["Interval", "Outcome", "example_intervals"]

_MOST_DRAWN = 1 << 21  # rows drawn at once, so that a million validation rows fit the memory


@dataclass(frozen=True)
class Outcome:
    """How a run did on its validation rows.

    Args:
        num_rows: How many there are.
        score_on: The scores (R,) on R samples of rows, given as indices (R, N).
    """

    num_rows: int
    score_on: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """Mean effect of some levels, or of several together beyond the sum, and the range it has on other rows.

    Args:
        levels: Methods and their levels.
        by: `all`, `model` or `task`.
        where: Name of the model or the task; empty for all.
        mean: Over the blocks, a share of 1; a block is one model, task and seed.
        low: Lower end.
        high: Upper end.
        num_blocks: How many blocks.
    """

    levels: Levels
    by: str
    where: str
    mean: float
    low: float
    high: float
    num_blocks: int

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self) | levels_json(self.levels)


def example_intervals(
    cells: Sequence[Cell], outcomes: Mapping[str, Outcome], *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> list[Interval]:
    """Intervals of every effect and interaction over validation rows, by the paired percentile bootstrap.

    The rows of a task are drawn anew with replacement, the same rows for all cells, so that what is hard for all
    of them cancels. Seeds, tasks and models stay as they are: the interval says what other rows of these tasks would
    give with these trained models, not what other trainings or tasks would.

    Args:
        cells: Cells of a study.
        outcomes: Of each run that is done, by its id.
        resamples: How often rows are drawn.
        level: Share of the draws inside the interval.
        seed: Seed of the draws.

    Returns:
        For each set of levels an interval over all blocks, one for each model and one for each task.

    References:
        Efron and Tibshirani (1993), sections 8.3 and 13.3.
    """
    draws = _scores(cells, outcomes, resamples, seed)
    blocks: dict[tuple[str, str, int | None], dict[Levels, Any]] = defaultdict(dict)
    for cell in cells:
        if cell.run_id in draws:
            # The first number is the score on all rows as they are; the others follow.
            blocks[cell.model, cell.task, cell.seed][cell.levels] = np.concatenate([[cell.score], draws[cell.run_id]])
    found = []
    for levels in sorted({cell.levels: None for cell in cells if cell.levels}, key=len):
        effects = {
            block: value
            for block, scores in blocks.items()
            if (value := inclusion_exclusion(scores, levels)) is not None
        }
        if not effects:
            continue
        found.append(_interval(levels, ("all", ""), list(effects.values()), level))
        for part, by in enumerate(("model", "task")):
            for name in dict.fromkeys(str(block[part]) for block in effects):
                own = [value for block, value in effects.items() if block[part] == name]
                found.append(_interval(levels, (by, name), own, level))
    return found


def _interval(levels: Levels, place: tuple[str, str], effects: Sequence[Any], level: float) -> Interval:
    means = np.mean(effects, axis=0)
    low, high = np.quantile(means[1:], [(1 - level) / 2, (1 + level) / 2])
    return Interval(levels, *place, float(means[0]), float(low), float(high), len(effects))


def _scores(cells: Sequence[Cell], outcomes: Mapping[str, Outcome], resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Scores (R,) of each run that is done; the draws of a task are the same for all its runs."""
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    by_rows: dict[tuple[str, int], list[str]] = defaultdict(list)
    for cell in cells:
        if cell.is_done and cell.run_id in outcomes:
            by_rows[cell.task, outcomes[cell.run_id].num_rows].append(cell.run_id)
    for (task, num_rows), run_ids in by_rows.items():
        random = np.random.Generator(np.random.PCG64([seed, crc32(task.encode())]))
        at_once = max(1, _MOST_DRAWN // num_rows)
        for first in range(0, resamples, at_once):
            rows = random.integers(num_rows, size=(min(at_once, resamples - first), num_rows), dtype=np.int32)
            for run_id in run_ids:
                found[run_id].append(outcomes[run_id].score_on(rows))
    return {run_id: np.concatenate(parts) for run_id, parts in found.items()}
