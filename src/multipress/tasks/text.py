"""The user's own text: a file of train rows and a file of validation rows.

Columns are named by `DataSpec.text` and `DataSpec.label`, or found by name (see `columns`). What they may
hold, and which rows are refused, is told in `labels` and `rows`; which files can be read, in `files`. The
columns, the kind of target and the classes come from the train file; the validation file must fit them.
"""

from __future__ import annotations

from dataclasses import replace

from multipress.errors import DataError, SpecError
from multipress.spec import DataSpec
from multipress.tasks.assemble import assemble
from multipress.tasks.base import TARGETS, Task, TaskData
from multipress.tasks.columns import check_ids, find_label, find_text
from multipress.tasks.files import Table, read_table
from multipress.tasks.labels import Label, class_order, find_target, read_labels
from multipress.tasks.rows import Rows, accept_rows, read_written
from multipress.tasks.translations import METRICS as TRANSLATION_METRICS

__all__ = ["labelled_rows", "load_text", "task_of"]

_NOTHING = {"nan", "null", "none", "na", "n/a"}
# More classes than half of the rows: a column of numbers or texts. Small files are left alone.
_MIN_MANY_CLASSES = 20


def load_text(data: DataSpec) -> TaskData:
    """Read the two files of a `DataSpec`.

    Raises:
        SpecError: a file or a setting is missing or unknown.
        DataError: a file or its rows cannot be used; the message names the file and the line.
        MissingExtraError: a file is Parquet, and pyarrow is not installed.
    """
    if not data.train or not data.dev:
        lacking = "train" if not data.train else "dev"
        raise SpecError(f"There is no {lacking} file: give both --train and --dev, or a task with --task.")
    tables = [read_table(data.train), read_table(data.dev)]
    text, label = find_columns(tables[0], data.text, data.label, data.target)
    train, dev = (labelled_rows(table, text, label, data.target) for table in tables)
    task = _ordered(task_of(train, data.target), data.labels, train)
    loaded = assemble(task, train, dev, data)
    nothing = [name for name in loaded.task.labels if name.casefold() in _NOTHING]
    if nothing:
        note = f"{nothing[0]!r} is a class like any other here. If it stands for no label, leave the cell empty."
        loaded = replace(loaded, notes=(*loaded.notes, note))
    if data.metric == "f1" and loaded.task.target == "classes" and len(loaded.task.labels) == 2:
        note = f"f1 is that of {loaded.task.labels[1]!r}, the second of the labels in their order; macro_f1 is of both."
        loaded = replace(loaded, notes=(*loaded.notes, note))
    loaded.facts.update(text_columns=list(text), label_column=label)
    return loaded


def task_of(rows: Rows, target: str = "") -> Task:
    """The task that these rows pose.

    Args:
        rows: All train rows.
        target: `classes`, `number`, `text`, or empty: classes or a number, found from the labels.

    Raises:
        SpecError: the target is none of these.
        DataError: there is only one class, or almost every row has a class of its own.
    """
    if target not in ("", *TARGETS):
        raise SpecError(f"target is {target!r}, but must be {', '.join(TARGETS)}, or left out.")
    is_pair = rows.pairs is not None
    if target == "text":
        if is_pair:
            raise DataError(f"{rows.table.source}: a text is written for one text; name one column with --text.")
        return Task("text", "text", (), TRANSLATION_METRICS, "bleu")
    if (target or find_target(rows.labels)) == "number":
        return Task("text", "number", (), ("pearson", "spearman"), "pearson", is_pair)
    names = class_order(rows.labels)
    source = rows.table.source
    if len(names) < 2:
        raise DataError(f"{source}: all rows have the label {names[0]!r}; give rows of at least two classes.")
    if len(names) > max(_MIN_MANY_CLASSES, len(rows.labels) // 2):
        raise DataError(
            f"{source}: {len(names):,} different labels in {len(rows.labels):,} rows are too many to be "
            "classes. Name the label's column with --label, or set the target to number, "
            "or to text, which a translator writes."
        )
    return Task("text", "classes", names, ("accuracy", "macro_f1"), "accuracy", is_pair)


def _ordered(task: Task, labels: tuple[str, ...], train: Rows) -> Task:
    """The task with its classes in the order asked for; classes may be named that no row has."""
    if not labels or task.target != "classes":
        return task
    unknown = sorted(set(task.labels) - set(labels))
    if unknown:
        raise DataError(f"{train.table.source}: the label {unknown[0]!r} is none of {', '.join(labels[:10])}.")
    return replace(task, labels=labels)


def find_columns(table: Table, text: tuple[str, ...], label: str, target: str) -> tuple[tuple[str, ...], str]:
    """The columns of the text and of the label, named or found by name.

    Of texts to be written: `source` and `target`, or the two columns there are, in their order.

    Raises:
        DataError: one is missing or several could be meant.
    """
    if target == "text" and not text and not label:
        pair = ("source", "target") if {"source", "target"} <= set(table.names) else table.names
        if len(pair) != 2:
            raise DataError(
                f"{table.source}: which columns hold the texts and their translations? Columns: "
                f"{', '.join(map(repr, table.names))}. Name them with --text and --label."
            )
        return (pair[0],), pair[1]
    label = find_label(table, label)
    return find_text(table, text, label), label


def labelled_rows(table: Table, text: tuple[str, ...] = (), label: str = "", target: str = "") -> Rows:
    """The rows of a file that have all their texts and a label.

    Args:
        table: The file.
        text: One or two text columns; empty: found by name.
        label: The label's column; empty: found by name.
        target: `text` where the labels are texts to be written.

    Raises:
        DataError: a column is missing, an identity occurs twice, a value is of the wrong kind, or most
            rows are refused.
    """
    text, label = find_columns(table, text, label, target)
    check_ids(table, (*text, label))
    labels: list[Label] = read_written(table, label) if target == "text" else read_labels(table, label)
    return accept_rows(table, text, labels)
