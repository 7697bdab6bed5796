"""How sure a score is, and the change from one model's to another's on the same rows: over other rows, not seeds.

Of the accuracy there are closed forms that also hold where few rows or none differ, and where nearly all are right: a
resampled interval has no width there. Of other scores the percentiles over rows drawn anew with replacement (Efron and
Tibshirani 1993, section 13.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from multipress.tasks import Task
from multipress.tasks.metrics import score_logits
from multipress.tasks.translations import score_on_rows

__all__ = ["change_error", "change_interval", "score_error", "score_interval"]

RESAMPLES = 1000
_Z = 1.959964  # of the normal distribution, 95 % on both sides


def score_interval(task: Task, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Ends of the 95 % interval of a score; of the accuracy Wilson's (1927).

    Args:
        task: Says what the score is.
        outputs: Logits (N, C); of a translator texts (N,).
        labels: (N,); of a translator the texts that were to be written.
    """
    if task.target == "text":
        score_on = score_on_rows(task.score, outputs.tolist(), labels.tolist())
        return _ends(_drawn(len(labels), lambda rows: score_on(rows) / 100))
    if task.score != "accuracy":
        return _ends(_drawn(len(labels), lambda rows: score_logits(task, outputs[rows], labels[rows])))
    count, share = len(labels), float(np.mean(outputs.argmax(axis=1) == labels))
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def score_error(task: Task, logits: np.ndarray, labels: np.ndarray) -> float:
    """Standard error of a score; of the accuracy with two right and two wrong rows added (Agresti and Coull 1998)."""
    if task.score != "accuracy":
        return float(_drawn(len(labels), lambda rows: score_logits(task, logits[rows], labels[rows])).std())
    count = len(labels) + 4
    share = (np.sum(logits.argmax(axis=1) == labels) + 2) / count
    return float(np.sqrt(share * (1 - share) / count))


def change_interval(task: Task, before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Ends of the 95 % interval of the second model's score less the first one's, on the same rows.

    Of the accuracy half a row is added to each of the four kinds: right or wrong before and after (Agresti and Min
    2005, Statistics in Medicine 24).

    Args:
        task: Says what the score is.
        before: Logits (N, C) of the first.
        after: Of the second.
        labels: (N,).
    """
    if task.score != "accuracy":
        return _ends(_drawn_changes(task, before, after, labels))
    middle, error = _matched(before, after, labels)
    return max(-1.0, middle - _Z * error), min(1.0, middle + _Z * error)


def change_error(task: Task, before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> float:
    """Standard error of the second model's score less the first one's, on the same rows; as `change_interval`."""
    if task.score != "accuracy":
        return float(_drawn_changes(task, before, after, labels).std())
    return _matched(before, after, labels)[1]


def _matched(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Change of the accuracy and its standard error, half a row added to each kind of rows."""
    gained, lost = (
        float(np.sum((one.argmax(axis=1) != labels) & (other.argmax(axis=1) == labels))) + 0.5
        for one, other in ((before, after), (after, before))
    )
    count = len(labels) + 2
    change = (gained - lost) / count
    return change, math.sqrt((gained + lost) / count - change**2) / math.sqrt(count)


def _drawn_changes(task: Task, before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> np.ndarray:
    def change(rows: np.ndarray) -> float:
        first, second = (score_logits(task, logits[rows], labels[rows]) for logits in (before, after))
        return second - first

    return _drawn(len(labels), change)


def _drawn(count: int, value: Callable[[np.ndarray], float]) -> np.ndarray:
    """A value on each of `RESAMPLES` samples of so many rows."""
    random = np.random.default_rng(0)
    return np.array([value(random.integers(count, size=count)) for _ in range(RESAMPLES)])


def _ends(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)
