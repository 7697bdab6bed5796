"""Tasks: labelled rows to train on and to score on, from a registered name or the user's own files. No torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from multipress.errors import SpecError
from multipress.spec import DataSpec
from multipress.tasks.assemble import assemble
from multipress.tasks.banking77 import load_banking77
from multipress.tasks.base import Split, Task, TaskData
from multipress.tasks.glue import GLUE, load_glue
from multipress.tasks.metrics import evaluate_logits
from multipress.tasks.rows import Rows
from multipress.tasks.text import load_text

__all__ = ["Split", "Task", "TaskData", "evaluate_logits", "list_tasks", "load_task"]

_TASKS: dict[str, Callable[[Path | None], tuple[Task, Rows, Rows]]] = {
    "banking77": load_banking77,
    **{name: partial(load_glue, name) for name in GLUE},
}


def list_tasks() -> list[str]:
    """Names of the registered tasks, sorted."""
    return sorted(_TASKS)


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
    if data.task not in _TASKS:
        raise SpecError(f"No task {data.task!r}; there are: {', '.join(list_tasks())}. For your own text, give files.")
    return assemble(*_TASKS[data.task](data_dir), data)
