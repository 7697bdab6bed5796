"""The rows of one table that are used, and an account of those that are refused.

A row with an empty text or an empty label is refused and counted: rows found = rows used + rows refused. If
more than half of them are refused, the file is not what the user thinks, which is an error. A text that is
not a text (a number, a list) is an error at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multipress.errors import DataError
from multipress.tasks.files import Table, check_characters
from multipress.tasks.labels import Label

__all__ = ["Rows", "accept_rows", "read_texts", "read_written"]


@dataclass(frozen=True)
class Rows:
    """Rows of one table that have all they need.

    Args:
        table: Where they come from.
        texts: One text a row, N of them.
        pairs: Second texts, or None.
        labels: Labels as read, none missing.
        positions: Each row's position in the table.
        refused: Number of refused rows by reason.
        notes: What a user should know about the refused rows.
    """

    table: Table
    texts: list[str]
    pairs: list[str] | None
    labels: list[Label]
    positions: Sequence[int]
    refused: dict[str, int]
    notes: tuple[str, ...]


def read_texts(table: Table, column: str) -> list[str | None]:
    """A column's texts; None where there is none.

    Raises:
        DataError: a value is not a text, or is text that has no UTF-8 form.
    """
    values = table.read(column)
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{table.where(row)}: column {column!r} holds {str(value)[:40]!r} ({type(value).__name__}), "
                "but must hold text."
            )
        check_characters(value or "", table.where(row))
    return values


def read_written(table: Table, column: str) -> list[Label]:
    """A column of texts that are to be written, such as translations, as labels; None where there is none.

    Raises:
        DataError: a value is not a text, or is text that has no UTF-8 form.
    """
    return [None if not value or value.isspace() else value for value in read_texts(table, column)]


def accept_rows(table: Table, text: tuple[str, ...], labels: list[Label]) -> Rows:
    """Take the rows that have all their texts and a label.

    Args:
        table: The file.
        text: One or two text columns.
        labels: The label of each row of the table, None where it is missing.

    Raises:
        DataError: a value is not a text, or more than half of the rows are refused.
    """
    columns = [read_texts(table, name) for name in text]
    reasons = _reasons(text, columns, labels)
    kept = [row for row in range(table.num_rows) if row not in reasons]
    refused = dict(Counter(reasons.values()))
    return Rows(
        table=table,
        texts=_at(columns[0], kept),
        pairs=_at(columns[1], kept) if len(columns) == 2 else None,
        labels=_at(labels, kept),
        positions=kept,
        refused=refused,
        notes=_account(table, reasons, refused),
    )


def _reasons(text: tuple[str, ...], columns: list[list[str | None]], labels: list[Label]) -> dict[int, str]:
    """Why a row is refused, by its position."""
    reasons = {row: "empty label" for row, label in enumerate(labels) if label is None}
    for name, values in zip(text, columns, strict=True):
        reasons |= {row: f"empty {name}" for row, value in enumerate(values) if not value or value.isspace()}
    return reasons


def _account(table: Table, reasons: dict[int, str], refused: dict[str, int]) -> tuple[str, ...]:
    if not reasons:
        return ()
    why = ", ".join(f"{count:,} with an {reason}" for reason, count in sorted(refused.items()))
    said = f"{len(reasons):,} of {table.num_rows:,} rows refused ({why})"
    if 2 * len(reasons) > table.num_rows:
        raise DataError(f"{table.source}: {said}. More than half cannot be used; check the columns and the file.")
    first = min(reasons)
    return (f"{table.source}: {said}; the first: {table.where(first).rsplit(', ', 1)[1]}.",)


def _at(values: list[Any], rows: list[int]) -> list[Any]:
    return values if len(rows) == len(values) else [values[row] for row in rows]
