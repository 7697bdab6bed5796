"""The registered tasks by name. A new one is an entry here: a function that gives the task and its rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from multipress.errors import SpecError
from multipress.tasks.banking77 import load_banking77
from multipress.tasks.base import Task
from multipress.tasks.glue import GLUE, load_glue
from multipress.tasks.multi30k import MULTI30K, load_multi30k
from multipress.tasks.rows import Rows

__all__ = ["list_tasks", "load_registered"]

_TASKS: dict[str, Callable[[Path | None], tuple[Task, Rows, Rows]]] = {
    "banking77": load_banking77,
    **{name: partial(load_glue, name) for name in GLUE},
    **{name: partial(load_multi30k, name) for name in MULTI30K},
}


def list_tasks() -> list[str]:
    """Names of the registered tasks, sorted."""
    return sorted(_TASKS)


def load_registered(name: str, data_dir: Path | None = None) -> tuple[Task, Rows, Rows]:
    """A registered task, its train rows and its validation rows.

    Args:
        name: One of `list_tasks()`.
        data_dir: Folder that holds `glue/<task>/<split>.parquet` and the like; else the one in `MULTIPRESS_DATA`.

    Raises:
        SpecError: there is no such task.
        DataError: the rows cannot be found or used; the message says what to do.
        MissingExtraError: an optional package is needed and not installed.
    """
    if name not in _TASKS:
        raise SpecError(
            f"No task {name!r}; there are: {', '.join(list_tasks())}. For your own text, give "
            "files: --train and --dev, or train and dev under [tasks] in a study file."
        )
    return _TASKS[name](data_dir)
