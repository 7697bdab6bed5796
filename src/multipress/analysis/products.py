"""Observed over product in one number for each set of methods, how sure it is, and at which drops it holds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from multipress.analysis.cells import MEAN_TASK
from multipress.analysis.multiplicativity import Drop, Multiplicativity, Scores, multiplicativity
from multipress.analysis.table import Group
from multipress.analysis.uncertainty import LEVEL, ends_over_tasks, holm, percentile_ends, student_tail

__all__ = ["DROPS", "Product", "geometric_mean", "is_net", "products", "products_by_drop"]

DROPS = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05)

_OF_DROPS = (
    "size",
    "estimator",
    "ratio",
    "low",
    "high",
    "net_ratio",
    "net_low",
    "net_high",
    "covers",
    "num_values",
    "num_left_out",
)


@dataclass(frozen=True)
class Product:
    """Observed over product of a set of methods, as the geometric mean over pairs of a dense model and a task.

    The paper takes the mean of the factors over tasks first; here a pair one of whose factors is a bound takes no other
    with it. The rows with task `mean over tasks` of `multiplicativity` follow the paper.

    Args:
        size: Which bytes.
        estimator: `discrete` or `interpolated`.
        methods: The set.
        ratio: Above 1 is super-multiplicative; None if no pair has all its factors.
        net_ratio: The same with the dense models' own factor divided out.
        num_values: Pairs that are in it.
        num_left_out: Pairs one of whose factors is a bound or was not reached.
        low: Lower end of the interval of `ratio` for other rows and, where there are several seeds, other trainings
            on the same tasks; None: no bound.
        high: Upper end.
        net_low: Lower end of `net_ratio`.
        net_high: Upper end.
        tasks_low: Lower end of the ratio one judges by (net, where interpolated) for other tasks, at most that for the
            same tasks; None with one task, or no bound.
        tasks_high: Upper end.
        covers: What `low` and `high` cover: `rows and seeds`, `rows` with one seed, or nothing without repetitions.
        p_holm: Chance of a (net, where interpolated) ratio so far from 1 if reductions multiplied, corrected for the
            sets; None without repetitions.
        verdict: `super`, `sub`, `not settled`, or `unknown`: no pair has all its factors. Of the discrete estimator
            `no verdict`: a step function is far from 1 also where reductions multiply (docs/log.md), so that neither
            the number nor its interval is evidence.
    """

    size: str
    estimator: str
    methods: tuple[str, ...]
    ratio: float | None
    net_ratio: float | None
    num_values: int
    num_left_out: int
    low: float | None = None
    high: float | None = None
    net_low: float | None = None
    net_high: float | None = None
    tasks_low: float | None = None
    tasks_high: float | None = None
    covers: str = ""
    p_holm: float | None = None
    verdict: str = "unknown"

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self) | {"methods": list(self.methods)}


def geometric_mean(values: Sequence[float]) -> float | None:
    """Geometric mean of positive numbers; None of none."""
    return math.exp(fmean(math.log(value) for value in values)) if values else None


def products(rows: Sequence[Multiplicativity], dof: int = 0, level: float = LEVEL) -> list[Product]:
    """One row for each size, estimator and set of two methods or more.

    Args:
        rows: What `multiplicativity` gave.
        dof: Degrees of freedom of the repetitions' spread over seeds; 0: there is one seed, so that there is none.
        level: Share of the repetitions in which an interval holds the truth.
    """
    rows = [row for row in rows if row.task != MEAN_TASK]
    by_set: dict[tuple[str, str, tuple[str, ...]], list[Multiplicativity]] = defaultdict(list)
    for row in rows:
        if len(row.methods) > 1:
            by_set[row.size, row.estimator, row.methods].append(row)
    found = [_product(own, dof, level) for own in by_set.values()]
    return _with_verdicts(found, level)


def _product(rows: Sequence[Multiplicativity], dof: int, level: float) -> Product:
    first = rows[0]
    known = [row for row in rows if row.ratio is not None]
    net = [row for row in known if row.net_ratio is not None]
    made = Product(
        size=first.size,
        estimator=first.estimator,
        methods=first.methods,
        ratio=geometric_mean([row.ratio for row in known if row.ratio is not None]),
        net_ratio=geometric_mean([row.net_ratio for row in net if row.net_ratio is not None]),
        num_values=len(known),
        num_left_out=len(rows) - len(known),
    )
    if not known or not first.draws.shape[1]:
        return made
    told = [(row.task, row.net_ratio if is_net(first.estimator) else row.ratio) for row in known]
    ends = ends_over_tasks([(task, math.log(ratio)) for task, ratio in told if ratio is not None], level)
    low, high, _ = _ends(rows, 0, dof, level)
    net_low, net_high, p = _ends(rows, 1, dof, level)
    if ends is not None:
        here = (net_low, net_high) if is_net(first.estimator) else (low, high)
        made = replace(
            made,
            tasks_low=None if here[0] is None else min(here[0], math.exp(ends[0])),
            tasks_high=None if here[1] is None else max(here[1], math.exp(ends[1])),
        )
    return replace(
        made,
        low=low,
        high=high,
        net_low=net_low,
        net_high=net_high,
        covers="rows and seeds" if dof else "rows",
        p_holm=p if is_net(first.estimator) else None,
    )


def is_net(estimator: str) -> bool:
    """Whether the net ratio is the one to judge by: the drop alone moves the interpolated factors, not the discrete."""
    return estimator == "interpolated"


def _ends(
    rows: Sequence[Multiplicativity], which: int, dof: int, level: float
) -> tuple[float | None, float | None, float]:
    """Ends of the interval of the geometric mean, and the chance of one so far from 1.

    In each repetition the mean is over the pairs that have all their factors there; one without any bounds nothing.
    """
    from scipy.special import ndtri

    logs = np.log(np.stack([row.draws[which] for row in rows]))  # (pairs, R)
    counts = np.isfinite(logs).sum(axis=0)
    means = np.nansum(logs, axis=0) / np.maximum(counts, 1)
    low, high = (np.where(counts > 0, means, end) for end in (-np.inf, np.inf))
    ends = percentile_ends(low, high, dof, level)
    num = len(means)
    share = min((np.sum(low <= 0) + 1) / (num + 1), (np.sum(high >= 0) + 1) / (num + 1), 0.5)
    p = student_tail(-float(ndtri(share)), dof or np.inf)
    first, last = (float(np.exp(end)) if np.isfinite(end) else None for end in ends)
    return first, last, min(1.0, p)


def _with_verdicts(found: Sequence[Product], level: float) -> list[Product]:
    """Corrected for the sets of each size and estimator."""
    made = []
    for place in dict.fromkeys((one.size, one.estimator) for one in found):
        own = [one for one in found if (one.size, one.estimator) == place]
        corrected = holm([1.0 if one.p_holm is None else one.p_holm for one in own])
        made += [_judged(one, p, level) for one, p in zip(own, corrected, strict=True)]
    return made


def _judged(one: Product, p: float, level: float) -> Product:
    told = one.net_ratio if is_net(one.estimator) else one.ratio
    if told is None:
        return replace(one, p_holm=None)
    if not is_net(one.estimator):
        return replace(one, verdict="no verdict")
    if one.p_holm is None:
        return replace(one, verdict="not settled")
    settled = p < 1 - level
    return replace(one, p_holm=p, verdict=("super" if told > 1 else "sub") if settled else "not settled")


def products_by_drop(
    groups: Sequence[Group], is_relative: bool = False, drawn: Scores | None = None, dof: int = 0
) -> list[dict[str, Any]]:
    """The products at several drops: does the answer hang on the drop?

    Args:
        groups: Groups over seeds.
        is_relative: The drops are shares of the dense score.
        drawn: Scores of the groups in repetitions, for the intervals; these are not corrected for their number.
        dof: As for `products`.
    """
    return [
        {"drop": value, "methods": list(one.methods)} | {key: getattr(one, key) for key in _OF_DROPS}
        for value in DROPS
        for one in products(multiplicativity(groups, Drop(value, is_relative), drawn=drawn), dof)
    ]
