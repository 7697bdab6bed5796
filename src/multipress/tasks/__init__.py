"""Tasks: labelled rows to train on and to score on, from a registered name or the user's own files."""

from __future__ import annotations

from pathlib import Path

from multipress.errors import SpecError
from multipress.spec import DataSpec
from multipress.tasks.assemble import assemble
from multipress.tasks.base import Split, Task, TaskData
from multipress.tasks.metrics import evaluate_logits, evaluate_outputs, per_class_recall, score_by
from multipress.tasks.registry import list_tasks, load_registered
from multipress.tasks.single_file import Columns, LoadedRows, load_rows, load_texts, load_validation
from multipress.tasks.text import load_text

__all__ = [
    "Columns",
    "LoadedRows",
    "Split",
    "Task",
    "TaskData",
    "evaluate_logits",
    "evaluate_outputs",
    "list_tasks",
    "load_rows",
    "load_task",
    "load_texts",
    "load_validation",
    "per_class_recall",
    "score_by",
]


def load_task(data: DataSpec, data_dir: Path | None = None) -> TaskData:
    """The rows to train on and to score on.

    Args:
        data: A registered task or the user's files, with the size of a sample.
        data_dir: Folder that holds `glue/<task>/<split>.parquet`; else the one in `MULTIPRESS_DATA`.

    Raises:
        SpecError: the task is unknown, or there is neither a task nor files, or both.
        DataError: the rows cannot be found or used; the message says what to do.
        MissingExtraError: an optional package is needed and not installed.
    """
    if not data.task:
        return load_text(data)
    if data.train or data.dev:
        raise SpecError(f"There is a task ({data.task}) and files too; give --task, or --train and --dev.")
    return assemble(*load_registered(data.task, data_dir), data)
