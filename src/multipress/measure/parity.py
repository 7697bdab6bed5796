"""Whether a file gives the answers of its artifact: labels, logits and score on the same rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from multipress.measure.intervals import change_interval
from multipress.tasks import Split, Task
from multipress.tasks.metrics import score_logits

__all__ = ["EXACT", "ROUNDED", "Bound", "Parity", "compare_logits", "drift"]

_NEAR = 0.05  # numbers are equal where they differ by less than this share of their spread
_TIE = 1e-4  # classes are as good as equal where their logits differ by less, as a share of the largest logit or of 1


@dataclass(frozen=True)
class Parity:
    """How a file differs from its artifact on some rows.

    Args:
        rows: How many rows.
        agreement: Share of rows with the artifact's label, or one that is as good as equal to it there; of a task of
            numbers, with a number that differs by less than a twentieth of the spread of the artifact's numbers.
        largest_difference: Largest absolute difference of a logit.
        score: The artifact's score; None where the rows have no labels.
        score_change: The file's score less the artifact's.
        change_low: Lower end of the 95 % interval of the change, over other rows.
        change_high: Its upper end.
    """

    rows: int
    agreement: float
    largest_difference: float
    score: float | None = None
    score_change: float | None = None
    change_low: float | None = None
    change_high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)

    def describe(self) -> str:
        """The record in words, on one line."""
        text = (
            f"{self.agreement:.2%} of {self.rows:,} rows agree, logits differ by at most {self.largest_difference:.2g}"
        )
        if self.score_change is None or self.change_low is None or self.change_high is None:
            return text
        ends = f"{100 * self.change_low:+.2f} to {100 * self.change_high:+.2f}"
        return f"{text}, score {100 * self.score_change:+.2f} points ({ends})"


@dataclass(frozen=True)
class Bound:
    """How far a file may be from its artifact.

    Args:
        agreement: Least share of rows that agree.
        score_drop: Most that the score may fall.
        difference: Most that a logit may differ, as a share of the largest logit or of 1; None: any.
    """

    agreement: float
    score_drop: float
    difference: float | None = None


# Floats in another order of additions; and 8-bit activations or 16-bit floats.
EXACT = Bound(agreement=1.0, score_drop=0.001, difference=1e-4)
ROUNDED = Bound(agreement=0.98, score_drop=0.01)


def compare_logits(reference: np.ndarray, found: np.ndarray, task: Task, split: Split | None = None) -> Parity:
    """Compare two models' logits, float32 (N, C), on the same rows.

    Args:
        reference: The artifact's.
        found: The file's.
        task: The task of both.
        split: The rows with their labels; None: there are none.
    """
    if task.target == "classes":
        chosen = np.take_along_axis(reference, found.argmax(axis=1)[:, None], axis=1)[:, 0]
        largest = max(1.0, float(np.abs(reference).max(initial=0)))
        same = reference.max(axis=1) - chosen <= _TIE * largest
    else:
        same = np.abs(reference - found)[:, 0] <= _NEAR * max(float(reference.std()), 1e-6)
    parity = Parity(len(found), float(same.mean()), float(np.abs(reference - found).max(initial=0)))
    if split is None:
        return parity

    labels = split.labels
    score, other = (score_logits(task, logits, labels) for logits in (reference, found))
    low, high = change_interval(task, reference, found, labels)
    return replace(parity, score=score, score_change=other - score, change_low=low, change_high=high)


def drift(parity: Parity, bound: Bound, largest_logit: float) -> list[str]:
    """In what a file is further from its artifact than it may be, in words; empty where it is near enough.

    Args:
        parity: How it differs.
        bound: How far it may.
        largest_logit: Of the artifact, absolute.
    """
    faults = []
    if parity.agreement < bound.agreement:
        faults.append(f"{parity.agreement:.2%} of the rows agree, not {bound.agreement:.2%}")
    if parity.score_change is not None and parity.score_change < -bound.score_drop:
        faults.append(f"the score falls by {-100 * parity.score_change:.2f} points, not {100 * bound.score_drop:.2f}")
    if bound.difference is not None and parity.largest_difference > bound.difference * max(1.0, largest_logit):
        faults.append(f"a logit differs by {parity.largest_difference:.2g}")
    return faults
