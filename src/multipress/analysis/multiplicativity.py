"""Do the size reductions of methods multiply? Observed over product, by both estimators, with intervals.

The factor R(S) of a set of methods S for a dense model: how many times smaller than that model can one get with S and
keep its score within a drop (`factors`). Super-multiplicative means R(A+B) > R(A) * R(B).

With the interpolated estimator the drop alone gives the dense models a factor above 1; it stands once in R(A+B) but
twice in R(A) * R(B) and pulls the ratio down. The *net* ratio divides it out of each factor. A censored factor is a
bound and makes the ratio one: it is never multiplied as if it were a value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

from multipress.analysis.cells import MEAN_TASK, SIZES
from multipress.analysis.factors import ESTIMATORS, Curve, Factor, FactorDraws, estimate_factors, mean_factor
from multipress.analysis.interaction import Levels
from multipress.analysis.table import Group

__all__ = ["PAPER_DROP", "Drop", "Multiplicativity", "Scores", "multiplicativity"]

Subset = tuple[str, ...]
Score = TypeVar("Score", float, np.ndarray)
Scores = Mapping[tuple[str, str, Levels], np.ndarray]


@dataclass(frozen=True)
class Drop:
    """How far below the dense score the bar lies.

    Args:
        value: Of the score, a share of 1; the paper takes half a point.
        is_relative: It is a share of the dense score, not of 1.
    """

    value: float = 0.005
    is_relative: bool = False

    def bar(self, score: Score) -> Score:
        """The score to reach. A float difference such as 0.9 - 0.895 must not decide a tie."""
        return score - (self.value * score if self.is_relative else self.value) - 1e-12


PAPER_DROP = Drop()


@dataclass(frozen=True)
class Multiplicativity:
    """Observed over product for one set of methods, model and task.

    Args:
        size: Which bytes (`ideal_bytes`, `weights_bytes`).
        estimator: `discrete` or `interpolated`.
        task: A task, or `mean over tasks`: the mean of the factors over tasks, from which the ratios are then made.
        model: The dense model whose score is the bar.
        methods: The set; a single method has no product.
        factor: Of the set.
        singles: Of each method alone.
        dense: Of no method: what the drop alone gives.
        draws: Ratio and net ratio in each repetition, (2, R), NaN where a factor is no value; R is 0 without any.
    """

    size: str
    estimator: str
    task: str
    model: str
    methods: Subset
    factor: Factor
    singles: dict[str, Factor]
    dense: Factor
    draws: np.ndarray = field(default_factory=lambda: np.empty((2, 0)), repr=False, compare=False)

    @property
    def product(self) -> float | None:
        """Product of the single factors; None if one of them is a bound or was not reached."""
        values = [factor.exact for factor in self.singles.values()]
        known = [value for value in values if value is not None]
        return math.prod(known) if len(known) == len(values) else None

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Smallest and largest that observed over product can be; None: no bound; equal: its value."""
        if len(self.methods) < 2:
            return None, None
        singles = self.singles.values()
        low = self.factor.low / math.prod(factor.high for factor in singles)
        below = math.prod(factor.low for factor in singles)
        high = self.factor.high / below if below else math.inf
        return low or None, high if math.isfinite(high) else None

    @property
    def ratio(self) -> float | None:
        """Observed over product: above 1 is super-multiplicative; None unless all factors are values."""
        if self.product is None or self.factor.exact is None:
            return None
        return self.factor.exact / self.product

    @property
    def net_ratio(self) -> float | None:
        """`ratio` with the dense models' own factor divided out of every factor."""
        if self.ratio is None or self.dense.exact is None:
            return None
        return float(self.ratio * self.dense.exact ** (len(self.methods) - 1))

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        names = ("size", "estimator", "task", "model")
        plain = {name: getattr(self, name) for name in names} | {"methods": list(self.methods)}
        factors = {
            "factor": asdict(self.factor),
            "singles": {name: asdict(one) for name, one in self.singles.items()},
            "dense": asdict(self.dense),
        }
        made = {"product": self.product, "ratio": self.ratio, "net_ratio": self.net_ratio, "bounds": list(self.bounds)}
        return plain | factors | made


def multiplicativity(
    groups: Sequence[Group],
    drop: Drop = PAPER_DROP,
    *,
    sizes: Sequence[str] = SIZES,
    estimators: Sequence[str] = ESTIMATORS,
    drawn: Scores | None = None,
) -> list[Multiplicativity]:
    """Factors of every set of methods, for each task and for the mean over tasks.

    Args:
        groups: Groups over seeds; their mean scores are compared. Those without a done run are not there.
        drop: Where the bar lies.
        sizes: Which bytes.
        estimators: Some of `ESTIMATORS`.
        drawn: Scores of the groups in repetitions (`resampling.draw_groups`).
    """
    found = []
    for size in sizes:
        measured = [group for group in groups if group.score.mean is not None and group.sizes.get(size)]
        tables = {task: _table([g for g in measured if g.task == task], size, drawn) for task in _tasks(measured)}
        for estimator in estimators:
            found += _of_one_size(measured, tables, (size, estimator, drop))
    return found


@dataclass(frozen=True)
class _Table:
    """The groups of one task: of each dense model its bytes and scores (1 + R,), and the curves of each set."""

    dense: dict[str, tuple[float, np.ndarray]]
    curves: dict[Subset, list[Curve]]


def _tasks(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.task for group in groups))


def _table(groups: Sequence[Group], size: str, drawn: Scores | None) -> _Table:
    scores = {group.key: _scores(group, drawn) for group in groups}
    levels: dict[Subset, dict[Levels, list[Group]]] = {}
    for group in groups:
        levels.setdefault(group.methods, {}).setdefault(group.levels, []).append(group)
    curves = {
        subset: [
            Curve(np.array([one.sizes[size] for one in own]), np.stack([scores[one.key] for one in own], axis=1))
            for own in by_level.values()
        ]
        for subset, by_level in levels.items()
    }
    dense = {group.model: (group.sizes[size] or 0.0, scores[group.key]) for group in groups if not group.levels}
    return _Table(dense, curves)


def _scores(group: Group, drawn: Scores | None) -> np.ndarray:
    """The measured score, then those of the repetitions (1 + R,)."""
    measured = np.array([group.score.mean])
    if not drawn:
        return measured
    num = len(next(iter(drawn.values())))
    # A group whose rows could not be read stays as it is.
    return np.concatenate([measured, drawn.get(group.key, np.repeat(measured, num))])


def _of_one_size(
    groups: Sequence[Group], tables: Mapping[str, _Table], how: tuple[str, str, Drop]
) -> list[Multiplicativity]:
    size, estimator, drop = how
    subsets = sorted({group.methods for group in groups if group.methods}, key=lambda s: (len(s), s))
    subsets = [s for s in subsets if all((name,) in subsets for name in s)]
    found = []
    for model in dict.fromkeys(group.model for group in groups):
        factors = {
            task: {s: _factor(table, model, s, (estimator, drop)) for s in ((), *subsets)}
            for task, table in tables.items()
            if model in table.dense
        }
        if 1 < len(tables) == len(factors):
            factors[MEAN_TASK] = {s: mean_factor([one[s] for one in factors.values()]) for s in ((), *subsets)}
        for task, one in factors.items():
            found += [_one(one, s, (size, estimator, task, model)) for s in subsets]
    return found


def _factor(table: _Table, model: str, subset: Subset, how: tuple[str, Drop]) -> FactorDraws:
    """Factor of a set on one task, for the bar of a dense model."""
    estimator, drop = how
    own, scores = table.dense[model]
    bar = drop.bar(scores)
    if subset not in table.curves:
        return FactorDraws(np.zeros(len(bar)), np.full(len(bar), np.inf))
    return estimate_factors(own, bar, table.curves[subset], estimator)


def _one(factors: Mapping[Subset, FactorDraws], methods: Subset, place: tuple[str, str, str, str]) -> Multiplicativity:
    own, dense = factors[methods], factors[()]
    singles = {name: factors[name,] for name in methods}
    draws = np.empty((2, 0))
    if len(methods) > 1 and len(own.low) > 1:
        product = np.prod([one.values()[1:] for one in singles.values()], axis=0)
        ratio = own.values()[1:] / product
        draws = np.stack([ratio, ratio * dense.values()[1:] ** (len(methods) - 1)])
    return Multiplicativity(
        *place, methods, own.first(), {name: one.first() for name, one in singles.items()}, dense.first(), draws
    )
