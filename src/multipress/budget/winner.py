"""The winner before the user: on rows that no choice has seen, beside the model before and the one-line rival."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multipress.artifact import Artifact, open_artifact
from multipress.measure import measure_size, measure_speed
from multipress.measure.parity import compare_logits
from multipress.measure.rival import rival_model
from multipress.records import Measurement
from multipress.report.card import Recalls, model_card
from multipress.reproducibility import computer
from multipress.runtime import Predictor
from multipress.runtime.session import OnnxSession
from multipress.tasks import Split, Task
from multipress.tasks.metrics import evaluate_logits, per_class_recall, score_logits

__all__ = ["Comparison", "Row", "compare", "winners_card"]

EXAMPLES = 3
LENGTH = 128
_RESAMPLES = 1000


@dataclass(frozen=True)
class Row:
    """One model in the comparison.

    Args:
        name: `before`, stored by multipress in 16 bits; the rival's; `after`.
        score: On the rows to report on.
        low: Lower end of its 95 % interval over rows drawn anew.
        high: Upper end.
        package_bytes: All that must be shipped to predict; of the rival its ONNX file and the tokenizer.
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
        rows: The three.
        num_rows: How many rows they were scored on.
        metrics: Of the winner, by name, `score` among them.
        change: Score after less score before, in words, with its interval and the share of rows that agree.
        recall: Of each class before and after; empty for a number.
        examples: Texts where before and after differ, with both labels and the right one.
    """

    rows: list[Row]
    num_rows: int
    metrics: dict[str, float]
    change: str
    recall: dict[str, tuple[float, float]]
    examples: list[dict[str, str]]

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return asdict(self)

    def table(self) -> str:
        """A table for the terminal."""
        lines = [f"{'':22} {'score':>7} {'95 % interval':>15} {'MB':>8} {'ms':>7}"]
        for row in self.rows:
            ends = f"{row.low:.4f}-{row.high:.4f}"
            lines.append(
                f"{row.name:22} {row.score:7.4f} {ends:>15} {row.package_bytes / 1e6:8.2f} {row.latency_ms:7.2f}"
            )
        return "\n".join(lines)

    def worst_classes(self, count: int = 5) -> list[tuple[str, float, float]]:
        """Classes whose recall fell most, with what it was and is."""
        fallen = [(name, before, after) for name, (before, after) in self.recall.items() if after < before]
        return sorted(fallen, key=lambda item: item[2] - item[1])[:count]


def compare(before: Path, after: Path, task: Task, rows: Split) -> Comparison:
    """Score, size and latency of two artifacts and of the dynamic int8 of the first, on rows not used before.

    Args:
        before: The model before, an artifact.
        after: The winner, an artifact.
        task: The task.
        rows: The rows to report on.
    """
    dense, winner = open_artifact(before), open_artifact(after)
    rival = rival_model(dense)
    session = OnnxSession(rival)
    logits = {
        "before": Predictor(dense).logits(rows.texts, rows.pairs),
        "dynamic int8 of before": Predictor(dense, session=session).logits(rows.texts, rows.pairs),
        "after": Predictor(winner).logits(rows.texts, rows.pairs),
    }
    tokenizer = dense.manifest["files"]
    tokenizer_bytes = sum(record["bytes"] for name, record in tokenizer.items() if name.startswith("tokenizer"))
    sizes = {
        "before": dense.package_bytes,
        "dynamic int8 of before": len(rival) + tokenizer_bytes,
        "after": winner.package_bytes,
    }
    times = _latencies(dense, winner, session)
    found = [
        Row(name, score_logits(task, values, rows.labels), *_interval(task, values, rows.labels), sizes[name], time)
        for (name, values), time in zip(logits.items(), times, strict=True)
    ]
    change = compare_logits(logits["before"], logits["after"], task, rows).describe()
    return Comparison(
        found,
        len(rows),
        evaluate_logits(task, logits["after"], rows.labels),
        change,
        _recall(task, logits["before"], logits["after"], rows.labels),
        _examples(task, logits["before"], logits["after"], rows),
    )


def winners_card(artifact: Artifact, comparison: Comparison, command: str, made_of: str) -> str:
    """The model card with the scores on the rows to report on, not those that the winner was chosen by.

    Args:
        artifact: The winner.
        comparison: What `compare` gave.
        command: The command that made it.
        made_of: What the user calls the model before.
    """
    before, _, after = comparison.rows
    run_id, rows = str(artifact.facts["run_id"]), {"rows": comparison.num_rows}
    measured = [Measurement(run_id, name, value, "share", rows) for name, value in comparison.metrics.items()]
    here = computer()
    timed = {"batch_size": 1, "length": _length(artifact), "threads": 1, "computer": here}
    measured += [*measure_size(artifact), Measurement(run_id, "latency_p50_ms", after.latency_ms, "ms", timed)]
    recalls = None
    if comparison.recall:
        old, new = ({name: both[which] for name, both in comparison.recall.items()} for which in (0, 1))
        recalls = Recalls(new, old, before.score)
    return model_card(artifact, measured, command, recalls, here, made_of)


def _latencies(dense: Artifact, winner: Artifact, session: OnnxSession) -> list[float]:
    shape = (1, _length(dense))
    # The winner's words are a part of the words of the model before, so that all can compute the same batches.
    others = {"before": Predictor(dense).session, "rival": session}
    times = {row.name: row.value for row in measure_speed(winner, [shape], others=others)}
    return [times["before:latency_p50_ms"], times["rival:latency_p50_ms"], times["latency_p50_ms"]]


def _length(artifact: Artifact) -> int:
    return min(LENGTH, int(artifact.facts["max_length"]))


def _interval(task: Task, logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Ends of the 95 % percentile interval of a score over rows drawn anew (Efron and Tibshirani 1993, chapter 13)."""
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(_RESAMPLES):
        rows = random.integers(len(labels), size=len(labels))
        drawn.append(score_logits(task, logits[rows], labels[rows]))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


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
