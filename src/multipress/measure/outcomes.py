"""What a run predicted on its validation rows: stored, and read to be scored on other samples of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from multipress.analysis.resampling import Outcome
from multipress.durable import write_bytes, write_json
from multipress.errors import StoreError
from multipress.measure.intervals import change_error, score_error
from multipress.tasks.base import Task
from multipress.tasks.metrics import per_class_recall, score_logits
from multipress.tasks.translations import bleu_of_counts, bleu_rows

__all__ = ["read_error", "read_outcome", "read_recalls", "write_outputs"]

PREDICTIONS = "predictions.safetensors"


def write_outputs(folder: Path, task: Task, outputs: np.ndarray, labels: np.ndarray) -> None:
    """Store what was predicted in `predictions.safetensors`: logits and labels.

    Of translations what BLEU counts in each row; the texts are in `translations.json`.

    Args:
        folder: Of the attempt.
        task: The task.
        outputs: Logits (N, C), or texts (N,).
        labels: (N,).
    """
    if task.target == "text":
        counts = bleu_rows(outputs.tolist(), labels.tolist())
        write_bytes(folder / PREDICTIONS, save({"bleu_counts": counts}))
        write_json(folder / "translations.json", outputs.tolist())
    else:
        write_bytes(folder / PREDICTIONS, save({"logits": outputs, "labels": labels}))


def read_outcome(attempt: Path) -> Outcome:
    """The outcome of a run that is done.

    Args:
        attempt: Folder of its attempt, with `predictions.safetensors` and the artifact.

    Raises:
        StoreError: a file is missing or damaged.
    """
    task, stored = _predicted(attempt)
    if task.target == "text":
        counts = stored["bleu_counts"]
        return Outcome(len(counts), lambda rows: bleu_of_counts(counts[rows].sum(axis=1)) / 100)
    logits, labels = stored["logits"], stored["labels"]
    if task.score == "accuracy":
        right = (logits.argmax(axis=1) == labels).astype(np.float32)
        return Outcome(len(labels), lambda rows: right[rows].mean(axis=1, dtype=np.float64))
    return Outcome(
        len(labels), lambda rows: np.array([score_logits(task, logits[draw], labels[draw]) for draw in rows])
    )


def read_recalls(attempt: Path) -> dict[str, float]:
    """Share of each class's validation rows that a run found, by label; NaN without rows, empty without classes.

    Args:
        attempt: Folder of its attempt, with `predictions.safetensors` and the artifact.

    Raises:
        StoreError: a file is missing or damaged.
    """
    task, stored = _predicted(attempt)
    if task.target != "classes":
        return {}
    found = per_class_recall(stored["logits"].argmax(axis=1), stored["labels"], len(task.labels))
    return dict(zip(task.labels, found.tolist(), strict=True))


def read_error(attempt: Path, reference: np.ndarray | None) -> float:
    """Standard error of a classifier's score over rows, or of how much it differs from another model's.

    Args:
        attempt: Folder of its attempt, with `predictions.safetensors` and the artifact.
        reference: The other model's logits (N, C) on the same rows; None: there is none.

    Raises:
        StoreError: a file is missing or damaged.
    """
    task, stored = _predicted(attempt)
    logits, labels = stored["logits"], stored["labels"]
    if reference is None:
        return score_error(task, logits, labels)
    return change_error(task, reference, logits, labels)


def _predicted(attempt: Path) -> tuple[Task, dict[str, np.ndarray]]:
    """The task, and what was stored."""
    try:
        stored = load_file(attempt / PREDICTIONS)
        facts = json.loads((attempt / "artifact" / "manifest.json").read_text(encoding="utf-8"))["facts"]
        task = Task.from_json(facts["task"])
        lacking = {"bleu_counts"} - set(stored) if task.target == "text" else {"logits", "labels"} - set(stored)
        if lacking:
            raise KeyError(min(lacking))
        return task, stored
    except Exception as error:  # noqa: BLE001 - of json, safetensors and a file that is not there
        raise StoreError(f"{attempt} does not hold what the run predicted: {error}. Try `study verify`.") from None
