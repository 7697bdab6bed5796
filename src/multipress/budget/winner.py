"""The winner before the user: on rows that no choice has seen, beside the model before and the one-line rival."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multipress.artifact import Artifact, open_artifact
from multipress.budget.rows import SearchRows
from multipress.measure import measure_size
from multipress.measure.intervals import score_interval
from multipress.measure.parity import compare_logits
from multipress.measure.rival import rival_model
from multipress.measure.speed import time_in_turns
from multipress.records import Measurement
from multipress.report.card import Recalls, model_card
from multipress.reproducibility import computer
from multipress.runtime import Predictor
from multipress.runtime.session import OnnxSession
from multipress.tasks import Split, Task
from multipress.tasks.metrics import evaluate_logits, per_class_recall, score_logits

__all__ = ["Comparison", "Row", "compare", "winners_card"]

NAMES = ("before", "dynamic int8 of before", "after", "after, in integers")
EXAMPLES = 3
LENGTH, REPEATS = 128, 20


@dataclass(frozen=True)
class Row:
    """One model in the comparison.

    Args:
        name: One of `NAMES`.
        score: On the rows to report on.
        low: Lower end of its 95 % interval over other rows (`multipress.measure.intervals`).
        high: Upper end.
        package_bytes: All that must be shipped to predict; of the model before as it was given, of the rival its ONNX
            file and the tokenizer.
        latency_ms: Median for one text of 128 tokens (of `max_length`, where that is less), one thread, in turns.
    """

    name: str
    score: float
    low: float
    high: float
    package_bytes: int
    latency_ms: float


@dataclass(frozen=True)
class Comparison:
    """Before, after and the rival on the same rows.

    Args:
        rows: The four, in the order of `NAMES`.
        num_rows: How many rows they were scored on.
        length: Tokens of the text that was timed.
        metric: Name of the score.
        is_labeled: Whether the labels are true; else the model before has given them, and the score says how far a
            model agrees with it.
        unseen: Scores before and after without those rows that are also among the others, and how many are left; None
            where there are none such.
        metrics: Of the winner, by name, `score` among them.
        change: Score after less score before, in words, with its interval and the share of rows that agree.
        recall: Of each class before and after; empty for a number.
        examples: Texts where before and after differ, with both labels and the right one.
    """

    rows: list[Row]
    num_rows: int
    length: int
    metric: str
    is_labeled: bool
    unseen: tuple[float, float, int] | None
    metrics: dict[str, float]
    change: str
    recall: dict[str, tuple[float, float]]
    examples: list[dict[str, str]]

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return asdict(self)

    def table(self) -> str:
        """A table for the terminal."""
        score = f"{self.metric if self.is_labeled else 'agreement':>9}"
        lines = [f"{'':22} {score} {'95 % interval':>15} {'MB':>8} {f'ms, 1 x {self.length}':>11}"]
        for row in self.rows:
            ends = f"{row.low:.4f}-{row.high:.4f}"
            lines.append(
                f"{row.name:22} {row.score:{len(score)}.4f} {ends:>15} {row.package_bytes / 1e6:8.2f} "
                f"{row.latency_ms:11.2f}"
            )
        return "\n".join(lines)

    def worst_classes(self, count: int = 5) -> list[tuple[str, float, float]]:
        """Classes whose recall fell most, with what it was and is."""
        fallen = [(name, before, after) for name, (before, after) in self.recall.items() if after < before]
        return sorted(fallen, key=lambda item: item[2] - item[1])[:count]


def compare(
    before: Path, after: Path, searched: SearchRows, before_bytes: int, *, is_labeled: bool = True
) -> Comparison:
    """Score, size and latency of two artifacts and of the dynamic int8 of the first, on rows not used before.

    The winner is there twice: computed in floats, and in integers (`predict --precision int8`).

    Args:
        before: The model before, an artifact.
        after: The winner, an artifact.
        searched: The rows to report on, and their task.
        before_bytes: Size of the model before as it was given.
        is_labeled: Whether the labels are true, not what the model before says.
    """
    task, rows, shared = searched.task, searched.report, searched.shared
    dense, winner = open_artifact(before), open_artifact(after)
    rival = rival_model(dense)
    predictors = (
        Predictor(dense),
        Predictor(dense, session=OnnxSession(rival)),
        Predictor(winner),
        Predictor(winner, precision="int8"),
    )
    logits = [predictor.logits(rows.texts, rows.pairs) for predictor in predictors]
    tokenizer = dense.manifest["files"]
    tokenizer_bytes = sum(record["bytes"] for name, record in tokenizer.items() if name.startswith("tokenizer"))
    sizes = (before_bytes, len(rival) + tokenizer_bytes, winner.package_bytes, winner.package_bytes)
    # The winner's words are a part of the words of the model before, so that all can compute the same batches.
    sessions = dict(zip(NAMES, (predictor.session for predictor in predictors), strict=True))
    shape = (1, min(LENGTH, int(winner.facts["max_length"])))
    times = time_in_turns(sessions, [shape], int(winner.config["vocab_size"]), threads=1, repeats=REPEATS)
    found = [
        Row(
            name,
            score_logits(task, values, rows.labels),
            *score_interval(task, values, rows.labels),
            size,
            float(np.median(times[name, shape])),
        )
        for name, values, size in zip(NAMES, logits, sizes, strict=True)
    ]
    old, new = logits[0], logits[2]
    unseen = None
    if 0 < shared.sum() < len(shared):
        first, second = (score_logits(task, values[~shared], rows.labels[~shared]) for values in (old, new))
        unseen = (first, second, int(np.sum(~shared)))
    return Comparison(
        found,
        len(rows),
        shape[1],
        task.score,
        is_labeled,
        unseen,
        evaluate_logits(task, new, rows.labels),
        compare_logits(old, new, task, rows).describe(),
        _recall(task, old, new, rows.labels),
        _examples(task, old, new, rows),
    )


def winners_card(artifact: Artifact, comparison: Comparison, command: str, made_of: str, about: str) -> str:
    """The model card with the scores on the rows to report on, not those that the winner was chosen by.

    Args:
        artifact: The winner.
        comparison: What `compare` gave.
        command: The command that made it.
        made_of: What the user calls the model before.
        about: A sentence on the search.
    """
    before, _, after, integers = comparison.rows
    run_id, rows = str(artifact.facts["run_id"]), {"rows": comparison.num_rows}
    here = computer()
    timed = {"batch_size": 1, "length": comparison.length, "threads": 1, "computer": here}
    measured = measure_size(artifact)
    for row, precision in ((after, "fp32"), (integers, "int8")):
        measured.append(Measurement(run_id, "latency_p50_ms", row.latency_ms, "ms", {**timed, "precision": precision}))
    recalls = None
    if comparison.is_labeled:
        for row, precision in ((after, "fp32"), (integers, "int8")):
            context = {**rows, "low": row.low, "high": row.high, "precision": precision}
            measured.append(Measurement(run_id, comparison.metric, row.score, "share", context))
        measured += [Measurement(run_id, name, value, "share", rows) for name, value in comparison.metrics.items()]
    else:
        measured.append(Measurement(run_id, "agreement", after.score, "share", rows))
    if comparison.recall and comparison.is_labeled:
        old, new = ({name: both[which] for name, both in comparison.recall.items()} for which in (0, 1))
        recalls = Recalls(new, old, before.score, "the model before")
    return model_card(artifact, measured, command, recalls, here, made_of, about)


def _recall(task: Task, before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> dict[str, tuple[float, float]]:
    if task.target != "classes":
        return {}
    both = [per_class_recall(logits.argmax(axis=1), labels, len(task.labels)) for logits in (before, after)]
    present = np.bincount(labels, minlength=len(task.labels)) > 0
    return {
        name: (float(both[0][index]), float(both[1][index])) for index, name in enumerate(task.labels) if present[index]
    }


def _examples(task: Task, before: np.ndarray, after: np.ndarray, rows: Split) -> list[dict[str, str]]:
    """Rows where both differ, those first where the winner is surest."""
    if task.target != "classes":
        return []
    old, new = before.argmax(axis=1), after.argmax(axis=1)
    differ = np.flatnonzero(old != new)
    surest = differ[np.argsort(after[differ, old[differ]] - after[differ, new[differ]], kind="stable")][:EXAMPLES]
    return [
        {
            "text": rows.texts[row] if rows.pairs is None else json.dumps([rows.texts[row], rows.pairs[row]]),
            "before": task.labels[old[row]],
            "after": task.labels[new[row]],
            "label": task.labels[rows.labels[row]],
        }
        for row in surest.tolist()
    ]
