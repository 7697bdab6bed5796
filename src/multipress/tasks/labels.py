"""Labels as a file holds them -> class names or numbers -> what a model learns. Always by name.

- An empty label (an empty cell, JSON `null`, -1 in a column with class names) is no label: the row is refused
  and counted. `NA`, `null`, `nan`, `None` in a text cell are names like any other.
- Without being told, labels are a **number** if most are numbers and at least one has a fraction, else
  **classes**. Ratings 1 to 5 are thus classes; the target `number` makes them a number.
- Class order is that of the sorted names; names that are all numbers are sorted as numbers.
- Whole numbers, `3` and `3.0` in a JSON or Parquet file, have the name `3`; a text cell keeps its text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from multipress.errors import DataError
from multipress.tasks.files import Table, check_characters

__all__ = ["Label", "class_indices", "class_order", "find_target", "numbers", "read_labels"]

Label = str | int | float | None
"""One label as read: a name, a number, or None where there is none."""

_LIST = re.compile(r"\[.*\]", re.DOTALL)  # a list as a text, as pandas writes one to a CSV file
_TAGS = re.compile(r"(O|[BIESLU]-\S+)([\s,]+(O|[BIESLU]-\S+))+")  # a label for each token
_JOINTS = re.compile(r"\s*[,;|]\s*")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read_labels(table: Table, column: str) -> list[Label]:
    """A column's labels: names without surrounding spaces, numbers, None where a label is missing.

    Raises:
        DataError: a value is NaN or infinite, of another kind (a list, bytes), or outside the class names.
    """
    names = table.class_names.get(column)
    values = table.read(column)
    if names is None:
        return [_label(value, table, row) for row, value in enumerate(values)]
    return [_named(value, names, table, row) for row, value in enumerate(values)]


def _label(value: object, table: Table, row: int) -> Label:
    if value is None or isinstance(value, str):
        check_characters(value or "", table.where(row))
        name = (value or "").strip() or None
        if name and _LIST.fullmatch(name):
            raise DataError(_several(table.where(row), name))
        return name
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal):
        value = float(value)
        if not math.isfinite(value):
            raise DataError(f"{table.where(row)}: the label is {value}, which is no number. Correct or remove the row.")
        return int(value) if value.is_integer() else value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, list | tuple | dict):
        raise DataError(_several(table.where(row), str(value)))
    raise DataError(
        f"{table.where(row)}: the label is {str(value)[:40]!r} ({type(value).__name__}), "
        "but must be a text or a number below 2**63."
    )


def _several(where: str, label: str) -> str:
    return (
        f"{where}: the label is {label[:40]}, several values. Each row needs one label: tasks with a label for each "
        "token, or with several labels a row, are not supported."
    )


def _named(value: object, names: tuple[str, ...], table: Table, row: int) -> Label:
    if value is None or value == -1:
        return None
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    raise DataError(
        f"{table.where(row)}: the label is {value!r}, but the file names {len(names)} classes, 0 to {len(names) - 1}."
    )


def _is_number(label: Label) -> bool:
    return not isinstance(label, str) or _NUMBER.fullmatch(label) is not None


def find_target(labels: Sequence[Label]) -> str:
    """`number` if most labels are numbers and at least one has a fraction, else `classes`.

    Most and not all: a single `n/a` among ratings is to be an error that names it, not a class.
    """
    kinds = Counter(label for label in labels if label is not None)
    numeric = {label: count for label, count in kinds.items() if _is_number(label)}
    fractions = any(not float(label or 0).is_integer() for label in numeric)
    return "number" if fractions and 2 * sum(numeric.values()) > sum(kinds.values()) else "classes"


def class_order(labels: Sequence[Label]) -> tuple[str, ...]:
    """The different names, sorted; as numbers if all are numbers.

    Raises:
        DataError: names are several labels each: tags of tokens, or other names with commas between them.
    """
    names = {str(label) for label in labels if label is not None}
    several = sorted(name for name in names if _TAGS.fullmatch(name) or _is_made_of(name, names))
    if len(several) > 1:
        raise DataError(_several(f"{len(several)} labels are several each", several[0]))
    if all(_is_number(name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def _is_made_of(name: str, names: set[str]) -> bool:
    """Whether a name is other names with commas, semicolons or bars between them."""
    parts = _JOINTS.split(name)
    return len(parts) > 1 and all(part in names for part in parts)


def class_indices(labels: Sequence[Label], names: tuple[str, ...], table: Table, rows: Sequence[int]) -> np.ndarray:
    """Index of each label among the names, int64 (N,).

    Args:
        labels: The labels, none missing.
        names: The known names, in class order.
        table: Where they come from, for messages.
        rows: Each label's row in the table.

    Raises:
        DataError: a label is not among the names; the message names it and the known ones.
    """
    index = {name: i for i, name in enumerate(names)}
    found = [index.get(str(label), -1) for label in labels]
    unknown = [i for i, value in enumerate(found) if value < 0]
    if unknown:
        others = {str(labels[i]) for i in unknown}
        more = f" ({len(unknown):,} rows with {len(others):,} unknown labels)" if len(unknown) > 1 else ""
        known = ", ".join(repr(name) for name in names[:10]) + (f", ... ({len(names)})" if len(names) > 10 else "")
        raise DataError(
            f"{table.where(rows[unknown[0]])}: unknown label {str(labels[unknown[0]])!r}{more}; known are: {known}."
        )
    return np.array(found, dtype=np.int64)


def numbers(labels: Sequence[Label], table: Table, rows: Sequence[int]) -> np.ndarray:
    """The labels as float32 (N,); arguments as in `class_indices`.

    Raises:
        DataError: a label is not a finite number.
    """
    for label, row in zip(labels, rows, strict=True):
        if not _is_number(label):
            raise DataError(
                f"{table.where(row)}: the label is {label!r}, but the labels are numbers. Correct or "
                "remove the row. Labels that are names belong to a task of classes, not to one of a number."
            )
    wide = np.array([float(label or 0) for label in labels], dtype=np.float64)
    large = np.flatnonzero(np.abs(wide) > np.finfo(np.float32).max)
    if large.size:
        raise DataError(
            f"{table.where(rows[large[0]])}: the label {labels[large[0]]} is too large for a model to learn."
        )
    return wide.astype(np.float32)
