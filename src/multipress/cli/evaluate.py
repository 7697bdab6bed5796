"""`multipress evaluate`: the score of an artifact on labelled rows, without torch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multipress.errors import SettingError
from multipress.plain_text import plain

if TYPE_CHECKING:
    from multipress.artifact import Artifact

__all__ = ["evaluate", "evaluate_artifact", "find_task"]

_MANY_CLASSES = 20


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Folder of an artifact.")],
    task: Annotated[str, typer.Option("--task", help="Validation rows of a registered task.")] = "",
    data: Annotated[str, typer.Option("--data", help="A file of labelled rows.")] = "",
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Text column of the file; give it twice for a pair.")
    ] = None,
    label: Annotated[str, typer.Option("--label", help="Label column of the file.")] = "",
    metric: Annotated[str, typer.Option("--metric", help="The metric that is the score; else the task's own.")] = "",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder of the registered tasks' data.")] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads to compute with.")] = 1,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32; or int8: integer products, faster, a little rounded.")
    ] = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score an artifact on labelled rows."""
    from multipress.artifact import open_artifact

    opened = open_artifact(artifact)
    name = find_task(opened, task, data)
    columns = (tuple(text or ()), label)
    result = evaluate_artifact(
        opened, name, data, *columns, metric=metric, data_dir=data_dir, threads=threads, precision=precision
    )
    if as_json:
        typer.echo(json.dumps(result))
        return
    scored_by = plain(result["score_metric"])
    ends = f"{result['score_low']:.4f} to {result['score_high']:.4f}"
    rows = f"{plain(result['task'])}, {result['rows']:,} rows"
    typer.echo(f"{rows}: score {result['score']:.4f} ({scored_by}), 95 % on other rows like these {ends}")
    for name, value in result["metrics"].items():
        # F1 is that of one class, which is not always the one that is meant.
        of = f"(of {opened.facts['task']['labels'][1]})" if name == "f1" else result.get("signatures", {}).get(name, "")
        typer.echo(f"  {plain(name)} {value:.4f}  {plain(of)}".rstrip())
    for line in _recall_lines(result.get("per_class_recall", {})):
        typer.echo(line)


def _recall_lines(recalls: dict[str, float | None]) -> list[str]:
    """A line for each class with rows, the worst first; of many classes the worst ten."""
    found = sorted((value, name) for name, value in recalls.items() if value is not None)
    shown = found[: len(found) if len(found) <= _MANY_CLASSES else 10]
    head = f"  recall of the {len(shown)} worst of {len(found)} classes" if len(shown) < len(found) else "  recall"
    return [head, *(f"    {plain(name)} {value:.4f}" for value, name in shown)] if shown else []


def find_task(artifact: Artifact, task: str, data: str) -> str:
    """The registered task to score on: the one given, else the artifact's own; empty where a file is given.

    Raises:
        SettingError: both are given, or neither and the artifact's task is not a registered one.
    """
    from multipress.tasks import list_tasks

    if task and data:
        raise SettingError("Give --task NAME or --data FILE, not both.")
    if data:
        return ""
    own = str(artifact.facts["task"]["name"])
    if (task or own) not in list_tasks():
        found = f"{task!r} is no registered task" if task else f"the artifact's task {own!r} has no rows of its own"
        raise SettingError(f"{found}; there are: {', '.join(list_tasks())}. Or give a file with --data FILE.")
    return task or own


def evaluate_artifact(
    artifact: Artifact,
    task_name: str,
    file: str = "",
    text: tuple[str, ...] = (),
    label: str = "",
    *,
    metric: str = "",
    data_dir: Path | None = None,
    threads: int = 1,
    precision: str = "fp32",
) -> dict[str, Any]:
    """Score an artifact on a file or a registered task; what is worth knowing about the rows goes to stderr.

    Args:
        artifact: The artifact.
        task_name: A registered task, whose validation rows are used; empty for a file.
        file: A data file.
        text: Text columns of the file; empty: found by name.
        label: Label column of the file; empty: found by name.
        metric: The metric that is `score`; empty: the one of the artifact's task.
        data_dir: Folder of the registered tasks' data.
        threads: Threads of the runtime.
        precision: `fp32` or `int8`.

    Returns:
        `task`, `rows`, `metrics` (value by name), `score`, `score_low`, `score_high` (95 %, for other rows of the same
        kind), `score_metric` (which of them it is), `truncated_rows`, `facts` of the rows;
        `per_class_recall` (value by class; None for a class without rows) where there are classes; and
        `score_unseen`, the score without rows that are also in the task's train split, where there are some.

    Raises:
        SpecError: there is no such metric.
    """
    import numpy as np

    from multipress.measure import measure_quality
    from multipress.measure.intervals import score_interval
    from multipress.tasks import Columns, Task, evaluate_outputs, load_rows, load_validation, per_class_recall, score_by

    task = score_by(Task.from_json(artifact.facts["task"]), metric)
    if file:
        rows = load_rows(file, task=task, text=text, label=label, by_number=True, usual=Columns.of(artifact.facts))
    else:
        rows = load_validation(task_name, task=task, data_dir=data_dir)
    measurements, outputs = measure_quality(
        artifact, rows.split, task, threads=threads, precision=precision, on_progress=_Progress()
    )
    values = {row.name: row.value for row in measurements}
    low, high = score_interval(task, outputs, rows.split.labels)
    result: dict[str, Any] = {
        "task": task_name or file,
        "rows": len(rows.split),
        "metrics": {name: value for name, value in values.items() if name != "score"},
        "score": values["score"],
        "score_low": low,
        "score_high": high,
        "score_metric": task.score,
        "truncated_rows": measurements[0].context["truncated_rows"],
        "facts": rows.facts,
    }
    found = {row.name: row.context["signature"] for row in measurements if "signature" in row.context}
    if found:
        result["signatures"] = found
    if task.target == "classes":
        recalls = per_class_recall(outputs.argmax(axis=1), rows.split.labels, task.num_outputs)
        named = zip(task.labels, recalls.tolist(), strict=True)
        result["per_class_recall"] = {name: None if np.isnan(value) else value for name, value in named}
    notes = list(rows.notes)
    if result["truncated_rows"]:
        limit = measurements[0].context["max_length"]
        notes.append(f"{result['truncated_rows']} rows are longer than {limit} tokens and were cut.")
    seen = rows.facts.get("dev_indices_also_in_train", [])
    if seen:
        kept = np.delete(np.arange(len(rows.split)), seen)
        result["score_unseen"] = evaluate_outputs(task, outputs[kept], rows.split.labels[kept])["score"]
        notes.append(f"Without the rows that are also in train the score is {result['score_unseen']:.4f}.")
    for note in notes:
        typer.echo(plain(f"warning: {note}"), err=True)
    return result


class _Progress:
    """Says on standard error how far it is, every ten seconds."""

    def __init__(self) -> None:
        self._start = self._said = time.monotonic()

    def __call__(self, num_done: int, num_rows: int) -> None:
        now = time.monotonic()
        if now - self._said < 10 or num_done == num_rows:
            return
        self._said = now
        seconds_left = (now - self._start) / num_done * (num_rows - num_done)
        typer.echo(f"{num_done:,} of {num_rows:,} rows, about {seconds_left:.0f} s left", err=True)
