"""The score of an artifact on labelled rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from multipress.artifact import Artifact
from multipress.errors import DataError
from multipress.records import Measurement
from multipress.runtime import open_predictor
from multipress.runtime.tokenizer import TextEncoder
from multipress.tasks import Split, Task, evaluate_outputs
from multipress.tasks.translations import signatures

__all__ = ["measure_parts", "measure_quality"]


def measure_quality(
    artifact: Artifact,
    split: Split,
    task: Task,
    *,
    threads: int = 1,
    precision: str = "fp32",
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Measurement], np.ndarray]:
    """Predict the rows from the artifact's folder and score them.

    Args:
        artifact: The artifact.
        split: The rows; their labels are in the class order of `task`.
        task: The task, with the artifact's labels in the artifact's order.
        threads: Threads of the runtime.
        precision: `fp32` or `int8`; see `Predictor`.
        on_progress: Called after each batch with the rows done and all rows.

    Returns:
        One measurement for each metric and one named `score`, and the logits float32 (N, C), or of a translator its
        translations (N,) as objects.

    Raises:
        DataError: the task's labels are not the artifact's, or the rows have another number of texts.
        ArtifactError: the artifact cannot be opened.
    """
    stored = artifact.facts["task"]
    if (stored["target"], list(stored["labels"])) != (task.target, list(task.labels)):
        raise DataError(f"The rows have the labels {list(task.labels)}, but the artifact {stored['labels']}.")
    predictor = open_predictor(artifact, threads=threads, precision=precision)
    context: dict[str, Any] = {
        "task": task.name,
        "rows": len(split),
        "max_length": predictor.max_length,
    }
    own: dict[str, dict[str, Any]] = {}
    if task.target == "text":
        outputs = predictor.outputs(split.texts, on_progress)
        context |= predictor.decoding
        own = {name: {"signature": signature} for name, signature in signatures().items()}
    else:
        outputs = predictor.logits(split.texts, split.pairs, on_progress)
    context |= {"truncated_rows": predictor.num_truncated, "precision": precision}
    run_id = str(artifact.facts.get("run_id", ""))
    return [
        Measurement(run_id, name, value, "points" if name in own else "share", context | own.get(name, {}))
        for name, value in evaluate_outputs(task, outputs, split.labels).items()
    ], outputs


def measure_parts(
    artifact: Artifact, rows: Split, outputs: np.ndarray, unseen: np.ndarray, tokenizer_json: str
) -> list[Measurement]:
    """The score on some of the rows alone, for each kind that there is some of.

    `score_unseen`: on rows that are not in the training rows too, where some are. `score_dropped_words`: on rows with
    words that the artifact's tokenizer has lost.

    Args:
        artifact: The artifact.
        rows: N labelled rows.
        outputs: What it gave for them, as `measure_quality` returned.
        unseen: Which rows are not in the training rows, (N,) bool.
        tokenizer_json: The tokenizer with all words; empty where it was learned with the model.
    """
    task = Task.from_json(artifact.facts["task"])
    broken = _with_dropped_words(artifact, rows, tokenizer_json)
    parts: list[tuple[str, np.ndarray, dict[str, Any]]] = []
    if 0 < unseen.sum() < len(unseen):
        parts.append(("score_unseen", unseen, {"left_out": "rows that are also in train"}))
    if broken.any():
        parts.append(("score_dropped_words", broken, {"of": len(broken)}))
    found = []
    for name, which, context in parts:
        score = evaluate_outputs(task, outputs[which], rows.labels[which])["score"]
        context = {"rows": int(which.sum()), **context}
        found.append(Measurement(str(artifact.facts["run_id"]), name, score, "share", context))
    return found


def _with_dropped_words(artifact: Artifact, rows: Split, tokenizer_json: str) -> np.ndarray:
    """Which rows hold a word that the artifact's tokenizer has lost, (N,) bool."""
    if not tokenizer_json:
        return np.zeros(len(rows), dtype=bool)
    max_length = int(artifact.facts["max_length"])
    before, after = TextEncoder(tokenizer_json, max_length), TextEncoder(artifact.tokenizer_json(), max_length)
    if before.vocab_size == after.vocab_size:
        return np.zeros(len(rows), dtype=bool)
    old, new = (encoder.tokens(rows.texts, rows.pairs) for encoder in (before, after))
    return np.array([first != second for first, second in zip(old, new, strict=True)])
