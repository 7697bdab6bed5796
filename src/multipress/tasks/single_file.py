"""Rows for a model that is already there: to score it on, or to predict.

Labels are mapped by their names onto the model's classes. A file of plain label numbers fits a model whose
classes have names only if the file carries the names (a Hugging Face `ClassLabel` in Parquet).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from multipress.errors import DataError, SettingError
from multipress.tasks.assemble import content_hash, count_rows, rows_also_in, to_split
from multipress.tasks.base import Split, Task
from multipress.tasks.columns import find_text
from multipress.tasks.files import SUFFIXES, Table, read_table, read_text
from multipress.tasks.registry import load_registered
from multipress.tasks.rows import Rows, read_texts
from multipress.tasks.text import labelled_rows, task_of

__all__ = ["Columns", "LoadedRows", "load_rows", "load_texts", "load_validation"]


@dataclass(frozen=True)
class Columns:
    """Columns of the rows that a model was trained on: those of a file that has them, where the user names none.

    Args:
        text: One or two text columns; empty: not known.
        label: The label column; empty: not known.
    """

    text: tuple[str, ...] = ()
    label: str = ""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Columns:
        """Those that an artifact's facts name."""
        spec = facts.get("spec")
        data = spec.get("data") if isinstance(spec, dict) else None
        if not isinstance(data, dict) or data.get("task"):
            return cls()
        text, label = data.get("text"), data.get("label")
        names = tuple(map(str, text)) if isinstance(text, list | tuple) else ()
        label = label if isinstance(label, str) else ""
        return cls(names if len(set(names) - {label}) == len(names) <= 2 else (), label)

    def text_of(self, table: Table) -> tuple[str, ...]:
        """The text columns if the file has them, else none."""
        return self.text if set(self.text) <= set(table.names) else ()

    def label_of(self, table: Table) -> str:
        """The label column if the file has it, else none."""
        return self.label if self.label in table.names else ""


@dataclass(frozen=True)
class LoadedRows:
    """Labelled rows to score a model on.

    Args:
        task: The task that the labels belong to.
        split: The rows.
        notes: What a user should know: rows refused, rows that are also in train.
        facts: `rows_found` = `rows_refused` + `rows_used`; for a registered task also
            `dev_rows_also_in_train` and `dev_indices_also_in_train`.
        sha256: Hash of the rows and the label names.
    """

    task: Task
    split: Split
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""


def load_rows(
    file: str | Path,
    *,
    task: Task | None = None,
    text: tuple[str, ...] = (),
    label: str = "",
    by_number: bool = False,
    usual: Columns = Columns(),
) -> LoadedRows:
    """Labelled rows of one file.

    Args:
        file: A data file.
        task: The model's task; labels are mapped by name onto its classes. None: found from the rows.
        text: One or two text columns; empty: found by name.
        label: Column that holds the label; empty: found by name.
        by_number: Whether labels that are all numbers, where no class has one for a name, are those of the model's
            outputs; a note says so. Only for a task whose classes are in the order of a model's outputs.
        usual: Columns of the model's own rows.

    Raises:
        DataError: the rows cannot be used, or a label is unknown to the task; the message names it.
        MissingExtraError: an optional package is needed and not installed.
    """
    table = read_table(file)
    text, label = text or usual.text_of(table), label or usual.label_of(table)
    rows = labelled_rows(table, text, label, task.target if task else "")
    if task is None or not by_number or task.target != "classes" or not _are_numbers_of(rows, task):
        return _loaded(rows, task or task_of(rows))
    some = ", ".join(f"{number} is {name}" for number, name in enumerate(task.labels[:6]))
    note = f"{rows.table.source}: the labels are taken as the numbers of the model's classes: {some}."
    loaded = _loaded(replace(rows, labels=[task.labels[int(str(label))] for label in rows.labels]), task)
    return replace(loaded, notes=(*loaded.notes, note))


def load_validation(name: str, *, task: Task | None = None, data_dir: Path | None = None) -> LoadedRows:
    """The validation rows of a registered task; which of them are also in its train split is in the facts.

    Args:
        name: The registered task.
        task: The model's task; labels are mapped by name onto its classes. None: the registered one.
        data_dir: Folder that holds the data of registered tasks.

    Raises:
        SpecError: there is no task of that name.
        SettingError: the model writes text and the task asks for labels, or the other way round.
        DataError: its rows cannot be found, or have labels that are unknown to the model's task.
        MissingExtraError: an optional package is needed and not installed.
    """
    official, train, rows = load_registered(name, data_dir)
    if task is not None and (task.target == "text") != (official.target == "text"):
        own, asked = ("writes text", "labels") if task.target == "text" else ("gives labels", "text")
        raise SettingError(f"The model {own}, but the task asks for {asked}. So {name} is no task for it.")
    shared = rows_also_in(to_split(rows, official), to_split(train, official))
    loaded = _loaded(rows, task or official, f"So {name} is no task for it.")
    facts = {"dev_rows_also_in_train": len(shared), "dev_indices_also_in_train": shared} | loaded.facts
    note = f"{len(shared):,} of {len(rows.texts):,} rows are also in {name}'s train split."
    return replace(loaded, facts=facts, notes=(*loaded.notes, *([note] if shared else [])))


_NAME_TEXT = "Name what it is to read with --text."


def _loaded(rows: Rows, task: Task, remedy: str = _NAME_TEXT) -> LoadedRows:
    _check_width(rows.table.source, 1 if rows.pairs is None else 2, task.is_pair, remedy)
    split = to_split(rows, task)
    notes = rows.notes
    if task.target != "text" and np.unique(split.labels).size < 2:
        found = f"{rows.table.source}: all {len(split):,} labels are"
        if task.target == "number":
            raise DataError(f"{found} {split.labels[0]:g}; there is nothing to rank.")
        label = task.labels[split.labels[0]]
        notes += (f"{found} {label!r}; the score says nothing of rows that are to have another.",)
    return LoadedRows(task, split, notes, count_rows(rows, len(split)), content_hash(task, split))


def _are_numbers_of(rows: Rows, task: Task) -> bool:
    """Whether the labels are numbers of the task's classes, `0` and on, and none is the name of one."""
    given = {str(label) for label in rows.labels}
    return given <= set(map(str, range(len(task.labels)))) and given.isdisjoint(task.labels)


def load_texts(
    path: str | Path, *, is_pair: bool = False, text: tuple[str, ...] = (), usual: Columns = Columns()
) -> tuple[list[str], list[str] | None]:
    """Texts of a file to predict, and second texts for a model of pairs; every row, empty ones too.

    Args:
        path: A data file, a `.txt` file with one text a line, or `-`: the same from standard input.
        is_pair: Whether the model reads two texts.
        text: One or two text columns; empty: found by name.
        usual: Columns of the model's own rows.

    Raises:
        DataError: the file cannot be used or has another number of text columns.
        MissingExtraError: a Parquet file, and pyarrow is not installed.
    """
    file = Path(path)
    if str(path) == "-":
        table = _lines("standard input", sys.stdin.read())
    elif file.suffix.lower() == ".txt":
        table = _lines(str(file), read_text(file))
    else:
        table = _read_known(file)
    columns = find_text(table, text or usual.text_of(table))
    _check_width(table.source, len(columns), is_pair, _NAME_TEXT)
    values = [[value or "" for value in read_texts(table, name)] for name in columns]
    return values[0], values[1] if is_pair else None


def _read_known(file: Path) -> Table:
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file} is of no known kind; a file of texts ends in .txt, {', '.join(SUFFIXES)}.")
    return read_table(file)


def _lines(source: str, content: str) -> Table:
    texts = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]
    if not any(texts):
        raise DataError(f"{source} holds no text.")
    return Table(source, ("text",), len(texts), lambda name: list(texts), lines=range(1, len(texts) + 1))


def _check_width(source: str, columns: int, is_pair: bool, remedy: str) -> None:
    if columns != 1 + is_pair:
        raise DataError(
            f"{source}: {columns} text column{'s'[: columns - 1]}, but the model reads {1 + is_pair} a row. {remedy}"
        )
