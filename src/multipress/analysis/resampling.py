"""Imagined repetitions of a study: other validation rows, and other trainings.

Rows of a task are drawn with replacement, the same for all runs of the task, so that what is hard for all of them
cancels. Seeds are drawn within each model and task, the same for all combinations of methods: n - 1 of n with
replacement, which gives the mean of the draws the variance s^2 / n; all n would give too small a one. Where a model and
task has one seed and others have several, its scores move by the mean variance of those.

References:
    Efron and Tibshirani (1993), chapters 8 and 13. McCarthy and Snowden (1985): n - 1 of n.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from multipress.analysis.blocks import Block
from multipress.analysis.cells import Cell
from multipress.analysis.interaction import Levels

__all__ = ["GroupDraws", "Outcome", "draw_groups", "draw_rows", "own_noise"]

Key = tuple[str, str, Levels]  # of a group: model, task, levels
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
class GroupDraws:
    """Mean scores of groups over seeds in each repetition.

    Args:
        scores: (R,) by model, task and levels.
        blocks: By the same, each seed's score and then those on drawn rows, (1 + R,).
        dof: Degrees of freedom of the spread over seeds: seeds less one, summed over models and tasks; 0 with one seed.
    """

    scores: dict[Key, np.ndarray]
    blocks: dict[Key, dict[Block, np.ndarray]]
    dof: int


def draw_rows(
    cells: Sequence[Cell], outcomes: Mapping[str, Outcome], resamples: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Scores (R,) on drawn rows of each run that is done, by its id; the draws of a task are the same for all runs.

    Args:
        cells: Cells of a study.
        outcomes: Of the runs, by id; a run without one is left out.
        resamples: R, how often rows are drawn.
        seed: Seed of the draws.
    """
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    by_rows: dict[tuple[str, int], list[str]] = defaultdict(list)
    for cell in cells:
        if cell.is_done and cell.run_id in outcomes:
            by_rows[cell.task, outcomes[cell.run_id].num_rows].append(cell.run_id)
    for (task, num_rows), run_ids in by_rows.items():
        random = _random(seed, task)
        at_once = max(1, _MOST_DRAWN // num_rows)
        for first in range(0, resamples, at_once):
            rows = random.integers(num_rows, size=(min(at_once, resamples - first), num_rows), dtype=np.int32)
            for run_id in run_ids:
                found[run_id].append(outcomes[run_id].score_on(rows))
    return {run_id: np.concatenate(parts) for run_id, parts in found.items()}


def draw_groups(cells: Sequence[Cell], draws: Mapping[str, np.ndarray], seed: int = 0) -> GroupDraws:
    """Scores of groups over drawn rows and drawn seeds.

    What drawn rows change differs between seeds, so that it also shows in the spread over seeds; drawn seeds move the
    scores by so much less, one share for the whole study, and it counts once.

    Args:
        cells: Cells of a study.
        draws: What `draw_rows` gave.
        seed: Seed of the draws.
    """
    by_place: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    blocks: dict[Key, dict[Block, np.ndarray]] = defaultdict(dict)
    for cell in cells:
        if cell.run_id in draws:
            by_place[cell.model, cell.task].append(cell)
            own = np.concatenate([[cell.score], draws[cell.run_id]])
            blocks[cell.model, cell.task, cell.levels][cell.model, cell.task, cell.seed] = own
    share = _share_of_seeds(by_place.values(), draws)
    spread = _spread_of_seeds(by_place.values())
    scores: dict[Key, np.ndarray] = {}
    dof = 0
    for (model, task), runs in by_place.items():
        seeds = list(dict.fromkeys(cell.seed for cell in runs))
        num_draws = len(draws[runs[0].run_id])
        random = _random(seed, f"{model}\n{task}")
        picked = random.integers(len(seeds), size=(num_draws, max(1, len(seeds) - 1)))
        counts = (picked[:, :, None] == np.arange(len(seeds))).sum(axis=1)  # (R, S)
        dof += len(seeds) - 1
        for levels in dict.fromkeys(cell.levels for cell in runs):
            own_runs = [cell for cell in runs if cell.levels == levels]
            rows = np.mean([draws[cell.run_id] for cell in own_runs], axis=0)
            own_scores = np.array([cell.score for cell in own_runs], dtype=float)
            weights = counts[:, [seeds.index(cell.seed) for cell in own_runs]]  # (R, S')
            total = weights.sum(axis=1)
            # Where no drawn seed has this run, all its seeds stand in.
            weights = np.where(total[:, None] > 0, weights, 1)
            moved = weights @ own_scores / weights.sum(axis=1) - own_scores.mean()
            if len(seeds) == 1:
                moved = spread * random.standard_normal(num_draws)
            scores[model, task, levels] = rows + share * moved
    return GroupDraws(scores, dict(blocks), dof)


def _spread_of_seeds(places: Iterable[Sequence[Cell]]) -> float:
    """Standard deviation of a score over seeds, pooled over models, tasks and combinations; 0 with one seed."""
    variances = []
    for runs in places:
        scores: dict[Levels, list[float]] = defaultdict(list)
        for cell in runs:
            scores[cell.levels].append(cell.score or 0.0)
        variances += [np.var(own, ddof=1) for own in scores.values() if len(own) > 1]
    return float(np.sqrt(np.mean(variances))) if variances else 0.0


def own_noise(draws: np.ndarray) -> float:
    """Variance over drawn rows of one seed (S, R) that its mean over seeds does not share."""
    num, alone, together = len(draws), draws.var(axis=1, ddof=1).mean(), draws.mean(axis=0).var(ddof=1)
    return max(float(alone - together) * num / (num - 1), 0.0)


def _share_of_seeds(places: Iterable[Sequence[Cell]], draws: Mapping[str, np.ndarray]) -> float:
    """Share of the spread between seeds, as a standard deviation, that is not the noise of drawn rows.

    Of scores less the mean over the combinations of their seed: what all of them share cancels in every comparison.
    """
    spread = noise = 0.0
    for runs in places:
        by_seed: dict[int | None, dict[Levels, np.ndarray]] = defaultdict(dict)
        for cell in runs:
            by_seed[cell.seed][cell.levels] = np.concatenate([[cell.score], draws[cell.run_id]])
        common = [
            levels for levels in dict.fromkeys(c.levels for c in runs) if all(levels in s for s in by_seed.values())
        ]
        if len(by_seed) < 2 or len(common) < 2:
            continue
        values = np.array([[own[levels] for own in by_seed.values()] for levels in common])  # (L, S, 1 + R)
        values -= values.mean(axis=0)
        spread += float(values[:, :, 0].var(axis=1, ddof=1).sum())
        noise += sum(own_noise(level[:, 1:]) for level in values)
    return float(np.sqrt(max(0.0, 1 - noise / spread))) if spread else 1.0


def _random(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, crc32(name.encode(errors="replace"))]))
