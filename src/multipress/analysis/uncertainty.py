"""How sure an effect is: over other validation rows, other trainings, other tasks.

The variance of a mean effect over models and tasks, each the mean of its seeds, has two parts. *Rows*: rows of each
task are drawn with replacement, paired over all runs (`resampling`). *Seeds*: within each model and task the seeds'
variance over their number, which is what a bootstrap of n - 1 of n seeds gives without drawing. Noise of single rows
also shows between seeds; it is taken out of the seeds' part, so that it counts once. Student's t with Satterthwaite's
degrees of freedom makes the interval: two seeds give a wide one. With one seed the interval is over rows alone and
says so.

References:
    Efron and Tibshirani (1993), chapters 12 and 13; Satterthwaite (1946); Welch (1947); Owen (2007), two-way
    data; Holm (1979).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from multipress.analysis.blocks import Block, by_place
from multipress.analysis.cells import Cell, levels_json
from multipress.analysis.interaction import Levels, inclusion_exclusion
from multipress.analysis.resampling import own_noise

__all__ = [
    "LEVEL",
    "Interval",
    "effect_intervals",
    "ends_over_tasks",
    "holm",
    "mean_ends",
    "percentile_ends",
    "student_quantile",
    "student_tail",
]

LEVEL = 0.95

MOST_SEEDS = 100


@dataclass(frozen=True)
class Interval:
    """Mean effect of some levels, or of several together beyond the sum, and how sure it is.

    Args:
        levels: Methods and their levels.
        by: `all`, `model` or `task`.
        where: Name of the model or the task; empty for all.
        mean: Over models and tasks, each the mean of its seeds; a share of 1.
        low: Lower end, for other rows and, where there are several seeds, other trainings on the same tasks.
        high: Upper end.
        rows: Ends for other rows alone, with these trained models.
        tasks: Ends for other tasks as well, at least as far apart as `low` and `high`; None with one task.
        covers: `rows and seeds`, or `rows` where every model and task has one seed.
        se: Standard error that `low` and `high` are made of.
        dof: Degrees of freedom; None: none are lost.
        num_blocks: How many blocks: each one model, task and seed.
        p: Chance of a mean at least this far from 0 if there were no effect.
        p_holm: The same, corrected for all rows with the same `by`.
        more_seeds: How many seeds more would settle the sign, by `p_holm`, if the mean and the other effects stayed as
            they are; 0: it is settled; None: not known with one seed, or above 100 (the rows are then too few).
    """

    levels: Levels
    by: str
    where: str
    mean: float
    low: float
    high: float
    rows: tuple[float, float]
    tasks: tuple[float, float] | None
    covers: str
    se: float
    dof: float | None
    num_blocks: int
    p: float
    p_holm: float
    more_seeds: int | None

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        ends = {"rows": list(self.rows), "tasks": None if self.tasks is None else list(self.tasks)}
        return asdict(self) | ends | levels_json(self.levels)


def effect_intervals(cells: Sequence[Cell], draws: Mapping[str, np.ndarray], *, level: float = LEVEL) -> list[Interval]:
    """Intervals of every effect and interaction.

    Args:
        cells: Cells of a study.
        draws: What `resampling.draw_rows` gave; a run without draws leaves its blocks out.
        level: Share of the repetitions in which an interval holds the truth.

    Returns:
        For each set of levels an interval over all blocks, one for each model and one for each task.
    """
    blocks: dict[Block, dict[Levels, Any]] = defaultdict(dict)
    for cell in cells:
        if cell.run_id in draws:
            # The first number is the score on all rows as they are; the others follow.
            blocks[cell.model, cell.task, cell.seed][cell.levels] = np.concatenate([[cell.score], draws[cell.run_id]])
    found: list[tuple[Interval, _Variance]] = []
    for levels in sorted({cell.levels: None for cell in cells if cell.levels}, key=len):
        effects = {
            block: value
            for block, scores in blocks.items()
            if (value := inclusion_exclusion(scores, levels)) is not None
        }
        if not effects:
            continue
        found.append(_interval(levels, ("all", ""), effects, level))
        for part, by in enumerate(("model", "task")):
            for name in dict.fromkeys(str(block[part]) for block in effects):
                own = {block: value for block, value in effects.items() if block[part] == name}
                found.append(_interval(levels, (by, name), own, level))
    return _corrected(found, level)


@dataclass(frozen=True)
class _Variance:
    """Parts of the variance of a mean over blocks.

    Args:
        rows: Of drawn rows.
        noise: The part of `rows` that every seed draws anew.
        seeds: Of the seeds, that noise included.
        seeds_dof: Its degrees of freedom; 0: one seed everywhere.
        num_seeds: Mean number of seeds of a model and task.
    """

    rows: float
    noise: float
    seeds: float
    seeds_dof: float
    num_seeds: float

    def after(self, more: int) -> tuple[float, float]:
        """Variance and degrees of freedom with so many seeds more."""
        if not self.seeds_dof:
            return self.rows, np.inf
        share = self.num_seeds / (self.num_seeds + more)
        noise, seeds = self.noise * share, self.seeds * share
        rows = max(self.rows - self.noise, 0.0) + noise
        total = rows + max(seeds - noise, 0.0)
        # Less one seed in each model and task that has several, as it is now.
        dof = self.seeds_dof * (self.num_seeds + more - 1) / max(self.num_seeds - 1, 1e-9)
        return total, total**2 * dof / seeds**2 if seeds else np.inf


def mean_ends(values: Mapping[Block, np.ndarray], level: float = LEVEL) -> tuple[float, float]:
    """Ends of the interval of a mean, for other rows and other trainings on the same tasks.

    Args:
        values: Of each block the number itself and then on drawn rows, (1 + R,).
        level: Share of the repetitions in which the interval holds the truth.
    """
    means = _means(values)
    variance, dof = _variance(values, _spread(means[1:])).after(0)
    reach = float(np.sqrt(variance)) * student_quantile(level, dof)
    return float(means[0]) - reach, float(means[0]) + reach


def _means(values: Mapping[Block, np.ndarray]) -> np.ndarray:
    """Over places (1 + R,)."""
    means: np.ndarray = np.mean([np.mean(own, axis=0) for own in by_place(values).values()], axis=0)
    return means


def _spread(draws: np.ndarray) -> float:
    return float(draws.var(ddof=1)) if len(draws) > 1 else 0.0


def _interval(
    levels: Levels, place: tuple[str, str], effects: Mapping[Block, np.ndarray], level: float
) -> tuple[Interval, _Variance]:
    places = by_place(effects)
    means = _means(effects)
    mean, draws = float(means[0]), means[1:]
    parts = _variance(effects, _spread(draws))
    variance, dof = parts.after(0)
    se = float(np.sqrt(variance))
    reach = se * student_quantile(level, dof)
    tasks = ends_over_tasks([(task, float(np.mean(own, axis=0)[0])) for (_, task), own in places.items()], level)
    rows_low, rows_high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    p = 1.0 if mean == 0 else student_tail(abs(mean) / se, dof) if se else 0.0
    made = Interval(
        levels=levels,
        by=place[0],
        where=place[1],
        mean=mean,
        low=mean - reach,
        high=mean + reach,
        rows=(float(rows_low), float(rows_high)),
        tasks=tasks and (min(tasks[0], mean - reach), max(tasks[1], mean + reach)),
        covers="rows and seeds" if parts.seeds_dof else "rows",
        se=se,
        dof=float(dof) if np.isfinite(dof) else None,
        num_blocks=len(effects),
        p=p,
        p_holm=p,
        more_seeds=None,
    )
    return made, parts


def _variance(effects: Mapping[Block, np.ndarray], rows: float) -> _Variance:
    """Parts of the variance, each model and task with the same weight."""
    places = by_place(effects)
    several = [np.stack(own) for own in places.values() if len(own) > 1]
    if not several:
        return _Variance(rows, 0.0, 0.0, 0.0, 1.0)
    # A place with one seed has the mean variance of the others.
    pooled = float(np.mean([own[:, 0].var(ddof=1) for own in several]))
    pooled_noise = float(np.mean([own_noise(own[:, 1:]) for own in several]))
    seeds = noise = spread = free = 0.0
    share = 1 / len(places)
    for own in places.values():
        num = len(own)
        values = np.stack(own)
        variance = float(values[:, 0].var(ddof=1)) if num > 1 else pooled
        part = share**2 * variance / num
        seeds += part
        noise += share**2 * (own_noise(values[:, 1:]) if num > 1 else pooled_noise) / num
        if num > 1:
            spread += part**2 / (num + 1)
            free += num - 1
    num_seeds = float(np.mean([len(own) for own in places.values()]))
    # Welch's form, which allows for variances that are estimates themselves.
    dof = min(max(seeds**2 / spread - 2, 1.0), free) if spread else 1.0
    return _Variance(rows, min(noise, rows), seeds, dof, num_seeds)


def ends_over_tasks(values: Sequence[tuple[str, float]], level: float = LEVEL) -> tuple[float, float] | None:
    """Ends of the interval of a mean for tasks drawn from many; None with one task.

    What differs between tasks holds the noise of rows and seeds too.

    Args:
        values: Of each model and task, the name of the task and the number.
        level: Share of the draws in which the interval holds the truth.
    """
    by_task: dict[str, list[float]] = defaultdict(list)
    for task, value in values:
        by_task[task].append(value)
    num = len(by_task)
    if num < 2:
        return None
    mean = float(np.mean([value for _, value in values]))
    parts = [len(own) / len(values) * (np.mean(own) - mean) for own in by_task.values()]
    se = float(np.sqrt(num / (num - 1) * np.sum(np.square(parts))))
    reach = se * student_quantile(level, num - 1)
    return mean - reach, mean + reach


def _more_seeds(one: Interval, parts: _Variance, level: float) -> int | None:
    """Until the chance, with the factor by which it is corrected now, is small enough."""
    if one.p_holm < 1 - level:
        return 0
    if not parts.seeds_dof or one.mean == 0:
        return None
    factor = one.p_holm / one.p
    for more in range(1, MOST_SEEDS + 1):
        variance, dof = parts.after(more)
        if factor * student_tail(abs(one.mean) / float(np.sqrt(variance)), dof) < 1 - level:
            return more
    return None


def _corrected(found: Sequence[tuple[Interval, _Variance]], level: float) -> list[Interval]:
    corrected: dict[int, float] = {}
    for by in ("all", "model", "task"):
        own = [i for i, (one, _) in enumerate(found) if one.by == by]
        corrected |= dict(zip(own, holm([found[i][0].p for i in own]), strict=True))
    made = [(replace(one, p_holm=corrected[i]), parts) for i, (one, parts) in enumerate(found)]
    return [replace(one, more_seeds=_more_seeds(one, parts, level)) for one, parts in made]


def holm(p: Sequence[float]) -> list[float]:
    """Chances corrected for their number, so that one of them is wrongly small no more often than it says.

    References:
        Holm (1979).
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def jackknife_error(without: Sequence[float]) -> float:
    """Standard error of a number, from what it is without each group of what it was computed from.

    References:
        Efron and Tibshirani (1993), section 11.5.
    """
    values = np.asarray(without)
    return float(np.sqrt((len(values) - 1) / len(values) * np.sum((values - values.mean()) ** 2)))


def student_quantile(level: float, dof: float) -> float:
    """How many standard errors a two-sided interval reaches; infinite `dof` is the normal distribution's."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(dof, (1 + level) / 2) if np.isfinite(dof) else ndtri((1 + level) / 2))


def student_tail(distance: float, dof: float) -> float:
    """Chance of being so many standard errors from 0 or farther, on either side."""
    from scipy.special import ndtr, stdtr

    return 2 * float(stdtr(dof, -distance) if np.isfinite(dof) else ndtr(-distance))


def percentile_ends(low: np.ndarray, high: np.ndarray, dof: float, level: float = LEVEL) -> tuple[float, float]:
    """Ends of the percentile interval of repetitions, as wide as so few degrees of freedom ask; 0: none are lost.

    Args:
        low: The smallest that the number can be in each repetition (R,).
        high: The largest.
        dof: Degrees of freedom.
        level: Share of the repetitions in which the interval holds the truth.

    References:
        Hesterberg (2015), the expanded percentile interval.
    """
    from scipy.special import ndtr

    tail = float(ndtr(-student_quantile(level, dof or np.inf)))
    return float(np.quantile(low, tail, method="lower")), float(np.quantile(high, 1 - tail, method="higher"))
