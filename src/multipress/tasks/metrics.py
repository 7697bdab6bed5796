"""Metrics in numpy alone: predictions and labels in, a number out.

Where a metric is not defined (no row of a class, constant predictions) it is 0.0, as in scikit-learn; scipy
says NaN for a constant. All are computed in float64.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from multipress.errors import DataError, RunError, SpecError
from multipress.tasks.base import Task
from multipress.tasks.translations import METRICS as TRANSLATION_METRICS
from multipress.tasks.translations import evaluate_translations

__all__ = [
    "accuracy",
    "evaluate_logits",
    "evaluate_outputs",
    "f1",
    "macro_f1",
    "matthews",
    "pearson",
    "per_class_recall",
    "score_by",
    "score_logits",
    "spearman",
]


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows with the right class, from 0 to 1. Both arguments are class indices (N,)."""
    return float(np.mean(predictions == labels))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1 against all others, from 0 to 1; 0 if class 1 is neither predicted nor there."""
    return float(_f1_by_class(_confusion(predictions, labels, 2))[1])


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the F1 of the classes that occur in labels or predictions, from 0 to 1."""
    table = _confusion(predictions, labels)
    occurs = (table.sum(0) + table.sum(1)) > 0
    return float(_f1_by_class(table)[occurs].mean())


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation of any number of classes, from -1 to 1; 0 if either side is constant.

    References:
        Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    table = _confusion(predictions, labels).astype(np.float64)
    actual, predicted, total = table.sum(1), table.sum(0), table.sum()
    covariance = np.trace(table) * total - actual @ predicted
    spread = (total**2 - actual @ actual) * (total**2 - predicted @ predicted)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson correlation of two rows of numbers (N,), from -1 to 1; 0 if either is constant."""
    x, y = _centered(predictions), _centered(labels)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / norms, -1.0, 1.0)) if norms > 0 else 0.0


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman correlation, from -1 to 1: Pearson of the ranks, ties at the mean of their ranks."""
    return pearson(_ranks(predictions), _ranks(labels))


def per_class_recall(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each class's rows that were found (C,); NaN for a class without rows."""
    table = _confusion(predictions, labels, num_classes)
    rows = table.sum(1)
    return np.where(rows > 0, np.diag(table) / np.maximum(rows, 1), np.nan)


def score_by(task: Task, metric: str) -> Task:
    """The task with another metric as its score; the same task if none is named.

    Raises:
        SpecError: rows of this kind of target have no such metric; the message names those there are.
    """
    known = _metric_names(task)
    if metric and metric not in known:
        raise SpecError(f"Task {task.name} has no metric {metric!r}; there are: {', '.join(known)}.")
    return replace(task, score=metric) if metric else task


def evaluate_logits(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every metric of the task's kind by name, and `score`, from 0 to 1.

    Classes: `accuracy`, `macro_f1`, `matthews`, and `f1` of class 1 when there are two. A number: `pearson`,
    `spearman`. A correlation as score is cut to 0 to 1. Of equal logits the first class is predicted.

    Args:
        task: Says the kind of target, the number of classes and which metric is the score.
        logits: A model's outputs (N, C), or (N, 1) for a number.
        labels: int64 class indices (N,), or numbers (N,).

    Raises:
        DataError: there are no rows, or the shapes do not fit the task.
        RunError: an output is NaN or infinite.
    """
    expected = (len(labels), task.num_outputs)
    if logits.shape != expected:
        raise DataError(f"The outputs have shape {logits.shape}, but task {task.name} needs {expected}.")
    if not len(labels):
        raise DataError(f"There are no rows to score task {task.name} on.")
    broken = int(np.sum(~np.isfinite(logits).all(axis=1)))
    if broken:
        raise RunError(
            f"The model's outputs are not finite numbers in {broken} of {len(labels)} rows, so there is no "
            "score. Train again with a lower learning rate or another seed."
        )
    measure = _class_metrics if task.target == "classes" else _number_metrics
    values = measure(task, logits, labels)
    missing = {task.score, *task.metrics} - set(values)
    if missing:
        raise DataError(f"Task {task.name} asks for {sorted(missing)}; there are: {', '.join(values)}.")
    return values | {"score": min(max(values[task.score], 0.0), 1.0)}


def evaluate_outputs(task: Task, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every metric of the task's kind by name, and `score`: of logits as `evaluate_logits`, of texts BLEU and chrF.

    Args:
        task: The task.
        outputs: Logits (N, C), or the texts that a model wrote (N,).
        labels: Labels (N,).

    Raises:
        DataError: there are no rows, or the shapes do not fit the task.
        RunError: an output is NaN or infinite.
        MissingExtraError: texts are scored, and sacrebleu is not installed.
    """
    if task.target != "text":
        return evaluate_logits(task, outputs, labels)
    values = evaluate_translations(outputs.tolist(), labels.tolist())
    return values | {"score": values[task.score] / 100}


def score_logits(task: Task, logits: np.ndarray, labels: np.ndarray) -> float:
    """The task's score alone, as in `evaluate_logits`, for outputs that passed that once."""
    return min(max(_METRICS[task.score](_predictions(task, logits), labels), 0.0), 1.0)


def _metric_names(task: Task) -> list[str]:
    """The metrics of rows like the task's."""
    if task.target == "text":
        return list(TRANSLATION_METRICS)
    measure = _class_metrics if task.target == "classes" else _number_metrics
    return list(measure(task, np.zeros((1, task.num_outputs)), np.zeros(1, dtype=np.int64)))


def _class_metrics(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    names = ("accuracy", "macro_f1", "matthews", *(["f1"] if task.num_outputs == 2 else []))
    predictions = _predictions(task, logits)
    return {name: _METRICS[name](predictions, labels) for name in names}


def _number_metrics(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    predictions = _predictions(task, logits)
    return {name: _METRICS[name](predictions, labels) for name in ("pearson", "spearman")}


def _predictions(task: Task, logits: np.ndarray) -> np.ndarray:
    """Class indices or numbers (N,)."""
    predicted: np.ndarray = logits.argmax(axis=1) if task.target == "classes" else logits[:, 0]
    return predicted


_METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def _confusion(predictions: np.ndarray, labels: np.ndarray, num_classes: int = 0) -> np.ndarray:
    """Counts (C, C): a row for each label, a column for each prediction."""
    count = max(num_classes, int(labels.max()) + 1, int(predictions.max()) + 1)
    cells = labels.astype(np.int64) * count + predictions.astype(np.int64)
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def _f1_by_class(table: np.ndarray) -> np.ndarray:
    """F1 of each class (C,) from a confusion table (C, C); 0 where the class does not occur."""
    either = table.sum(0) + table.sum(1)
    values: np.ndarray = 2 * np.diag(table) / np.maximum(either, 1)
    return values


def _centered(values: np.ndarray) -> np.ndarray:
    """Values less their mean, as float64; exact zeros for a constant."""
    wide = values.astype(np.float64)
    if (wide == wide[0]).all():
        return np.zeros_like(wide)
    wide = _scaled(wide)
    return _scaled(wide - wide.mean())


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values times a power of two (no digit is lost): the largest is about 1, so squares are finite."""
    _, exponent = np.frexp(np.abs(values).max())
    return np.asarray(np.ldexp(values, -exponent))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value (N,), from 1; equal values share the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group])
