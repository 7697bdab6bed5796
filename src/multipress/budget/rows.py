"""The rows of a search: to train, to select by, and to report on, which no choice has seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from multipress.budget.start import Outputs
from multipress.durable import make_folder, write_text
from multipress.engines.job import Places
from multipress.errors import DataError, SettingError
from multipress.spec import DataSpec
from multipress.tasks import Split, Task, load_task
from multipress.tasks.assemble import MAX_SHARED_SHARE, rows_also_in, sample_positions
from multipress.tasks.single_file import load_rows

__all__ = ["ReadRows", "SearchRows", "read_rows", "write_rows"]

FEWEST = 40  # rows to select by; of fewer, one is more than two points


@dataclass(frozen=True)
class SearchRows:
    """What a search works on.

    Args:
        data: Files of the rows to train on and to select by.
        task: The task.
        select: The rows to select by.
        report: The rows that the winner is scored on, once.
        shared: Which of `report` are also among the others, bool (N,).
        num_train: How many rows there are to train on.
    """

    data: DataSpec
    task: Task
    select: Split
    report: Split
    shared: np.ndarray
    num_train: int


@dataclass(frozen=True)
class ReadRows:
    """The rows as they were read, before a model says in which order it has the labels.

    Args:
        task: The task.
        train: All rows to train on.
        select: The rows to select by.
        report: The rows to report on.
        shared: Which of `report` are also among the others, bool (N,).
        notes: What a user should know of the rows.
        text: The text columns, which the winner will look for too.
        label: The label column.
    """

    task: Task
    train: Split
    select: Split
    report: Split
    shared: np.ndarray
    notes: tuple[str, ...]
    text: tuple[str, ...]
    label: str


def read_rows(asked: DataSpec, test: str, places: Places) -> ReadRows:
    """Read the rows of a search.

    Args:
        asked: The task, or files of train and validation rows.
        test: File of the rows to report on; empty: half of the validation rows are kept for it.
        places: Where data is found.

    Raises:
        DataError: rows cannot be used, there are too few to select by, or more than a fifth of the test rows are also
            train or validation rows.
        SpecError: a file or a setting is missing or unknown.
    """
    loaded = load_task(replace(asked, max_train_rows=0), places.data_dir)
    if loaded.task.target == "text":
        raise SettingError(
            "compress searches among classifiers. A translator is made smaller by `multipress train` with --method."
        )
    select, notes = loaded.dev, [*loaded.notes]
    text = tuple(loaded.facts.get("text_columns", ("text", "second")[: 1 + loaded.task.is_pair]))
    label = str(loaded.facts.get("label_column", "label"))
    if test:
        columns = ((), "") if asked.task else (text, label)
        read = load_rows(test, task=loaded.task, text=columns[0], label=columns[1])
        report = read.split
        notes += [*read.notes, *_shared(test, report, {"train": loaded.train, "validation": loaded.dev})]
    else:
        select, report = _halves(loaded.dev)
        notes.append(f"Of the validation rows {len(select):,} are to select by and {len(report):,} to report on.")
    if len(select) < FEWEST:
        raise DataError(
            f"There are {len(select)} rows to select by, {FEWEST} are the fewest. Give more validation rows"
            + ("." if test else ", or a file of test rows with --test, so that they are not split in halves.")
        )
    shared = np.zeros(len(report), dtype=bool)
    for other in (loaded.train, select):
        shared[rows_also_in(report, other)] = True
    return ReadRows(loaded.task, loaded.train, select, report, shared, tuple(notes), text, label)


def _halves(dev: Split) -> tuple[Split, Split]:
    """Two halves; rows of the same text are in one of them."""
    texts = list(zip(dev.texts, dev.pairs or dev.texts, strict=True))
    number = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    of_rows = np.array([number[text] for text in texts], dtype=np.int64)
    is_chosen = np.isin(of_rows, sample_positions(len(number), len(number) // 2, "select"))
    return dev.take(np.flatnonzero(is_chosen)), dev.take(np.flatnonzero(~is_chosen))


def _shared(test: str, report: Split, others: dict[str, Split]) -> list[str]:
    """Notes of test rows that are also elsewhere."""
    notes = []
    for name, other in others.items():
        count = len(rows_also_in(report, other))
        if count > MAX_SHARED_SHARE * len(report):
            raise DataError(
                f"{test}: {count:,} of {len(report):,} rows are also {name} rows; a score on them says nothing about "
                "new text. Give other rows."
            )
        if count:
            notes.append(f"{count:,} of {len(report):,} test rows are also in the {name} rows.")
    return notes


def write_rows(read: ReadRows, asked: DataSpec, outputs: Outputs, folder: Path) -> SearchRows:
    """Write the rows that the runs of a search read.

    Args:
        read: The rows.
        asked: Says how many of the train rows to draw.
        outputs: What the model's outputs are called.
        folder: Where `train.jsonl` and `select.jsonl` are written.
    """
    make_folder(folder)
    labels = outputs.labels
    task = replace(read.task, name="text", labels=labels)
    place = [labels.index(name) for name in outputs.names]

    def placed(split: Split) -> Split:
        return replace(split, labels=np.array(place, dtype=np.int64)[split.labels]) if labels else split

    train, select, report = placed(read.train), placed(read.select), placed(read.report)
    for name, split in (("train", train), ("select", select)):
        _write_once(folder / f"{name}.jsonl", _lines(split, task, (*read.text, read.label)))
    data = DataSpec(
        train=str(folder / "train.jsonl"),
        dev=str(folder / "select.jsonl"),
        text=read.text,
        label=read.label,
        target=task.target,
        metric=task.score,
        labels=labels,
        max_train_rows=asked.max_train_rows,
    )
    num_train = min(len(train), asked.max_train_rows or len(train))
    return SearchRows(data, load_task(data).task, select, report, read.shared, num_train)


def _lines(split: Split, task: Task, columns: Sequence[str]) -> str:
    """JSON lines with the texts and the label in these columns."""
    labels = [task.labels[value] if task.target == "classes" else float(value) for value in split.labels]
    values = [split.texts, *([] if split.pairs is None else [split.pairs]), labels]
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def _write_once(path: Path, text: str) -> None:
    """Write a file unless it is there with this content already, and runs rely on it."""
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)
