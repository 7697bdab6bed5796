"""Do the size reductions of methods multiply? Two estimators of the factor, and observed over product.

The factor R(S) of a set of methods S for a dense model: how many times smaller than that model can one get
with S and keep its score within a tolerance. Super-multiplicative means R(A+B) > R(A) * R(B).

*discrete* (Movva et al. 2022, Table 1, as inferred from its numbers): the smallest stored model, of any
architecture and level of S, that reaches the bar. *interpolated*: score is taken as linear in log size
between neighboring models of one level; the first size that reaches the bar, the best of all levels. Nothing
is extrapolated.

A factor whose bar is met by the smallest model is *censored*: a bound, shown as such, and no product is made
of it. With the interpolated estimator the tolerance alone gives the dense models a factor above 1; it stands
once in R(A+B) but twice in R(A) * R(B) and pulls the ratio down. `net_ratio` divides it out of each factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from multipress.analysis.table import Group

__all__ = [
    "ESTIMATORS",
    "Factor",
    "Multiplicativity",
    "discrete_factor",
    "geometric_mean",
    "interpolated_factor",
    "mean_factor",
    "multiplicativity",
]

ESTIMATORS = ("discrete", "interpolated")
Point = tuple[float, float]  # size in bytes, score


@dataclass(frozen=True)
class Factor:
    """How many times smaller, at the same score within the tolerance.

    Args:
        value: The factor; None if no model reached the bar.
        kind: `value`; `at least` (censored: the smallest model reaches the bar); `not reached`.
    """

    value: float | None
    kind: str

    @property
    def exact(self) -> float | None:
        """The factor if it is a value, not a bound; else None."""
        return self.value if self.kind == "value" else None


def discrete_factor(size: float, bar: float, levels: Sequence[Sequence[Point]]) -> Factor:
    """Size of the dense model over the smallest stored model that reaches the bar.

    Args:
        size: Size of the dense model.
        bar: Score to reach.
        levels: Points of each level, one for each model size.
    """
    points = [point for level in levels for point in level]
    reached = [own for own, score in points if score >= bar]
    if not reached:
        return Factor(None, "not reached")
    smallest = min(own for own, _ in points)
    return Factor(size / min(reached), "at least" if min(reached) == smallest else "value")


def interpolated_factor(size: float, bar: float, levels: Sequence[Sequence[Point]]) -> Factor:
    """Size of the dense model over the smallest size at which a level's curve reaches the bar.

    Args:
        size: Size of the dense model.
        bar: Score to reach.
        levels: Points of each level, one for each model size; the curve joins neighbours in log size.

    Returns:
        The best of all levels; `at least` as soon as one level's smallest model reaches the bar.
    """
    crossings = [crossing for level in levels if (crossing := _first_crossing(level, bar)) is not None]
    if not crossings:
        return Factor(None, "not reached")
    censored = any(is_end for _, is_end in crossings)
    return Factor(size / min(own for own, _ in crossings), "at least" if censored else "value")


def _first_crossing(points: Sequence[Point], bar: float) -> tuple[float, bool] | None:
    """Smallest size on the curve that reaches the bar, and whether it is the curve's small end."""
    points = sorted(points)
    for i, (own, score) in enumerate(points):
        if score < bar:
            continue
        if i == 0:
            return own, True
        below, below_score = points[i - 1]
        share = (bar - below_score) / (score - below_score)
        return math.exp((1 - share) * math.log(below) + share * math.log(own)), False
    return None


def mean_factor(factors: Sequence[Factor]) -> Factor:
    """Mean over tasks; a bound if one is a bound; not reached if one is not reached."""
    values = [factor.value for factor in factors if factor.value is not None]
    if len(values) < len(factors) or not values:
        return Factor(None, "not reached")
    censored = any(factor.kind == "at least" for factor in factors)
    return Factor(fmean(values), "at least" if censored else "value")


def geometric_mean(values: Sequence[float]) -> float | None:
    """Geometric mean of positive numbers; None of none."""
    return math.exp(fmean(math.log(value) for value in values)) if values else None


@dataclass(frozen=True)
class Multiplicativity:
    """Observed over product for one set of methods, model and task.

    Args:
        size: Which bytes (`ideal_bytes`, `weights_bytes`).
        estimator: `discrete` or `interpolated`.
        task: A task, or `mean`: the mean of the factors over tasks, from which the ratios are then made.
        model: The dense model whose score is the bar.
        methods: The set; a single method has no product.
        factor: Of the set.
        singles: Of each method alone.
        dense: Of no method: what the tolerance alone gives.
    """

    size: str
    estimator: str
    task: str
    model: str
    methods: tuple[str, ...]
    factor: Factor
    singles: dict[str, Factor]
    dense: Factor

    @property
    def product(self) -> float | None:
        """Product of the single factors; None if one of them is a bound or was not reached."""
        values = [factor.exact for factor in self.singles.values()]
        known = [value for value in values if value is not None]
        return math.prod(known) if len(known) == len(values) else None

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
        made = {"product": self.product, "ratio": self.ratio, "net_ratio": self.net_ratio}
        return {**asdict(self), "methods": list(self.methods), **made}


def multiplicativity(
    groups: Sequence[Group], size: str, estimator: str, tolerance: float = 0.005
) -> list[Multiplicativity]:
    """Factors of every set of methods, for each task and for the mean over tasks.

    Args:
        groups: Groups over seeds; their mean scores are compared. Those without a done run are not there.
        size: Which bytes.
        estimator: One of `ESTIMATORS`.
        tolerance: How far below the dense score the bar lies; the paper takes half a point.
    """
    measured = [group for group in groups if group.score.mean is not None and group.sizes.get(size)]
    tasks = list(dict.fromkeys(group.task for group in measured))
    subsets = sorted({group.methods for group in measured if group.methods}, key=lambda s: (len(s), s))
    subsets = [s for s in subsets if all((name,) in subsets for name in s)]
    found = []
    for model in dict.fromkeys(group.model for group in measured):
        factors = {}
        for task in tasks:
            here = [group for group in measured if group.task == task]
            factors[task] = _factors(here, model, subsets, size, estimator, tolerance)
        known = {task: one for task, one in factors.items() if one}
        if len(tasks) > 1 and len(known) == len(tasks):
            known["mean"] = {s: mean_factor([one[s] for one in factors.values()]) for s in ((), *subsets)}
        for task, one in known.items():
            found += [
                Multiplicativity(size, estimator, task, model, s, one[s], {name: one[name,] for name in s}, one[()])
                for s in subsets
            ]
    return found


def _factors(
    groups: Sequence[Group],
    model: str,
    subsets: Sequence[tuple[str, ...]],
    size: str,
    estimator: str,
    tolerance: float,
) -> dict[tuple[str, ...], Factor]:
    """Factor of each subset on one task; empty without the dense model."""
    dense = next((group for group in groups if group.model == model and not group.methods), None)
    if dense is None:
        return {}
    own, score = _point(dense, size)
    estimate = discrete_factor if estimator == "discrete" else interpolated_factor
    found = {}
    for subset in ((), *subsets):
        levels: dict[str, list[Point]] = {}
        for group in groups:
            if group.methods == subset:
                levels.setdefault(group.label, []).append(_point(group, size))
        # A float difference such as 0.9 - 0.895 must not decide a tie against a model that is just within.
        found[subset] = estimate(own, score - tolerance - 1e-12, list(levels.values()))
    return found


def _point(group: Group, size: str) -> Point:
    own, score = group.sizes[size], group.score.mean
    assert own is not None
    assert score is not None
    return own, score
