"""What a task is and what its rows look like in memory. No torch, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from multipress.errors import DataError

__all__ = ["TARGETS", "Split", "Task", "TaskData"]

TARGETS = ("classes", "number", "text")


@dataclass(frozen=True)
class Split:
    """Rows of one split, in order.

    Args:
        texts: One text a row, N of them.
        pairs: The second text of each row; None for a task of single texts.
        labels: int64 class indices (N,), float32 numbers (N,), or texts (N,) as objects.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray

    def __post_init__(self) -> None:
        assert self.labels.shape == (len(self.texts),)
        assert self.pairs is None or len(self.pairs) == len(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def every_text(self) -> list[str]:
        """The texts of all rows, then the second texts where there are some."""
        return [*self.texts, *(self.pairs or ())]

    def take(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The rows at these positions, in the given order."""
        positions = np.asarray(indices, dtype=np.int64)
        return Split(
            texts=[self.texts[i] for i in positions],
            pairs=None if self.pairs is None else [self.pairs[i] for i in positions],
            labels=self.labels[positions],
        )


@dataclass(frozen=True)
class Task:
    """What is predicted, and how a prediction is scored.

    Args:
        name: A registered name such as `sst2`; `text` for the user's own files.
        target: `classes`, `number`, or `text`: a text is written, such as a translation.
        labels: Names of the classes in class order; empty where there are none.
        metrics: The official metrics, by their names in `multipress.tasks.metrics`.
        score: The metric that is `score`, from 0 to 1.
        is_pair: Whether a row has two texts.
    """

    name: str
    target: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    score: str
    is_pair: bool = False

    @property
    def num_outputs(self) -> int:
        """Outputs of a model's head: one a class, or 1 for a number; a writer of text has no such head."""
        return len(self.labels) if self.target == "classes" else 1

    def to_json(self) -> dict[str, Any]:
        """The task as plain JSON values."""
        return asdict(self) | {"labels": list(self.labels), "metrics": list(self.metrics)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Task:
        """The task that `to_json` wrote; more keys than a task's are left aside.

        Raises:
            DataError: a key is missing or has a value of the wrong kind.
        """
        try:
            task = cls(
                name=value["name"],
                target=value["target"],
                labels=tuple(value["labels"]),
                metrics=tuple(value["metrics"]),
                score=value["score"],
                is_pair=bool(value.get("is_pair", False)),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"The task {value!r} lacks something or is of the wrong kind: {error}.") from None
        words = (task.name, task.score, *task.labels, *task.metrics)
        if task.target not in TARGETS or not all(isinstance(word, str) for word in words):
            raise DataError(f"{value!r} is not a task: target is {', '.join(TARGETS)}, names are texts.")
        return task


@dataclass(frozen=True)
class TaskData:
    """A task with the rows that are used.

    Args:
        task: The task.
        train: Rows to train on.
        dev: Rows to score on.
        notes: What a user should know: rows refused, dev rows that are also in train, ...
        facts: Counts for each split (`rows_found` = `rows_refused` + `rows_left_out` + `rows_used`, where
            left out are those that a sample did not draw), the columns, `dev_rows_also_in_train`, and
            `dev_indices_also_in_train`, their positions in `dev`.
        sha256: Hash of the rows used (texts, pairs, labels, both splits) and of the label names.
    """

    task: Task
    train: Split
    dev: Split
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def written_texts(self) -> list[str]:
        """All texts of `train` that a translator reads or is to write; none where nothing is written."""
        return [*self.train.texts, *self.train.labels.tolist()] if self.task.target == "text" else []

    @property
    def dev_unseen(self) -> np.ndarray:
        """Mask (N,) over the rows of `dev`: True where the row is not also in `train`."""
        mask = np.ones(len(self.dev), dtype=bool)
        mask[np.asarray(self.facts.get("dev_indices_also_in_train", []), dtype=np.int64)] = False
        return mask
