"""Which columns hold the text, the label and the row's identity. Named by the user, or found by name.

Names are compared without regard to case. More than one reading is an error that says how to choose, never a
guess; the one exception is a column `label` beside `label_text` or `label_name`, which say the same in words.
"""

from __future__ import annotations

from multipress.errors import DataError
from multipress.tasks.files import Table

__all__ = ["PAIRS", "SINGLES", "check_ids", "find_label", "find_text"]

PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "answer"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("sentence_a", "sentence_b"),
)
SINGLES = (
    "text", "sentence", "review", "content", "comment", "document", "tweet", "utterance", "message", "body",
    "question", "query", "passage",
)  # fmt: skip
_LABELS = (
    "label", "labels", "target", "class", "category", "intent", "sentiment", "score", "rating", "stars",
    "gold_label", "similarity", "y",
)  # fmt: skip
_LABELS_IN_WORDS = ("label_text", "label_name")
_IDS = ("id", "idx", "guid", "uid", "row_id")
# What pandas writes for its index.
_INDEXES = ("", "index", "unnamed: 0", "__index_level_0__")


def find_label(table: Table, named: str = "") -> str:
    """The column that holds the label.

    A column with class names (Parquet) is a label whatever its own name.

    Raises:
        DataError: the named column is not there, none is found, or several could be meant.
    """
    if named:
        return _named(table, named, "label")
    found = _present(table, _LABELS)
    words = _present(table, _LABELS_IN_WORDS)
    if len(words) == 1 and {name.lower() for name in found} <= {"label", "labels"}:
        return found[0] if found and found[0] in table.class_names else words[0]
    candidates = [name for name in found if name.lower() == "label"] or found or list(table.class_names)
    if len(candidates) == 1:
        return candidates[0]
    what = f"could be in {_listed(candidates)}" if candidates else "is in no column that is known by its name"
    raise DataError(f"{table.source}: the label {what}; columns: {_listed(table.names)}. Name the column with --label.")


def find_text(table: Table, named: tuple[str, ...] = (), label: str = "") -> tuple[str, ...]:
    """The one or two columns that hold the text.

    Args:
        table: The file.
        named: The columns as the user names them; empty: found by name.
        label: The label's column, which cannot be the text.

    Raises:
        DataError: a named column is not there, none is found, or several could be meant.
    """
    if named:
        if len(named) > 2 or len(set(named)) < len(named) or label in named:
            raise DataError(f"The text columns are {_listed(named)}, but must be one or two, none of them the label's.")
        return tuple(_named(table, name, "text") for name in named)
    by_lower = {name.lower(): name for name in table.names if name != label}
    pairs = [(by_lower[a], by_lower[b]) for a, b in PAIRS if a in by_lower and b in by_lower]
    in_pairs = {name for pair in pairs for name in pair}
    singles = [name for name in _present(table, SINGLES) if name != label and name not in in_pairs]
    readings: list[tuple[str, ...]] = [*pairs, *((name,) for name in singles)]
    if not readings:
        skipped = {*_IDS, *_INDEXES, *_LABELS, *_LABELS_IN_WORDS}
        readings = [(name,) for lower, name in by_lower.items() if lower not in skipped]
    if len(readings) == 1:
        return readings[0]
    shown = " or ".join("+".join(reading) for reading in readings)
    what = f"could be in {shown}" if readings else "is in no column"
    raise DataError(
        f"{table.source}: the text {what}; columns: {_listed(table.names)}. Name one or two columns with --text."
    )


def check_ids(table: Table, used: tuple[str, ...]) -> None:
    """Refuse a file in which a row's identity occurs twice.

    Args:
        table: The file.
        used: Columns that hold text or label; they are no identity, whatever their name.

    Raises:
        DataError: a column named as an identity (`id`, `idx`, ...) holds a value twice.
    """
    for name in _present(table, _IDS):
        if name in used:
            continue
        first: dict[object, int] = {}
        for row, value in enumerate(table.read(name)):
            if value is None or value == "" or not isinstance(value, str | int | float):
                continue
            if first.setdefault(value, row) != row:
                raise DataError(
                    f"{table.where(row)}: {name} {value!r} was already used at {table.where(first[value])}. "
                    f"Remove the repeated row, or rename the column if it is not the row's identity."
                )


def _present(table: Table, known: tuple[str, ...]) -> list[str]:
    return [name for word in known for name in table.names if name.lower() == word]


def _named(table: Table, name: str, what: str) -> str:
    if name not in table.names:
        raise DataError(f"{table.source} has no {what} column {name!r}; its columns: {_listed(table.names)}.")
    return name


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(repr(name) for name in names)
