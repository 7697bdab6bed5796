"""Data files as columns: CSV, TSV, JSON lines, Parquet.

What is accepted:

- **CSV** (`.csv`): the first line names the columns. Fields are split at commas; if the first line has none,
  at semicolons or tabs. A field in double quotes may hold the separator, line ends, and `""` for a quote.
- **TSV** (`.tsv`): the same with tabs. If the quotes do not add up, they are read as plain characters (as in
  GLUE's own files), provided that all rows then have the right number of fields.
- **JSON lines** (`.jsonl`, `.ndjson`, `.json`): one object a line; a `.json` file may be one list of objects.
- **Parquet** (`.parquet`): needs pyarrow. Whole-number columns whose names lie in the file as a Hugging Face
  `ClassLabel` are read by those names.

Text is UTF-8, with or without a byte order mark. Blank lines are not rows. A cell is what the file says:
`NA`, `null`, `nan`, `None` in a CSV cell are text. Anything broken (encoding, quotes, number of fields, JSON,
repeated column names, no rows) is a `DataError` that names file and line; no row is dropped here.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from multipress.errors import DataError, MissingExtraError

__all__ = ["SUFFIXES", "Table", "arrow_table", "check_characters", "read_table", "read_text"]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")

# Longer than any text a tokenizer would be given, short enough that an unclosed quote is seen early.
_FIELD_LIMIT = 10_000_000
_csv_limit = threading.Lock()


@dataclass(frozen=True)
class Table:
    """Columns of one file.

    Args:
        source: What messages call it: the path as it was given.
        names: Names of the columns, in the file's order.
        num_rows: Number of rows, N.
        read: Gives a column's values by its name: a list of N texts, numbers, truth values or None.
        class_names: For columns of class indices: the names of the classes.
        lines: Line at which each row begins, from 1; empty for a file without lines.
    """

    source: str
    names: tuple[str, ...]
    num_rows: int
    read: Callable[[str], list[Any]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lines: Sequence[int] = ()

    def where(self, row: int) -> str:
        """Where a row (from 0) is found, as a message says it: `train.csv, line 7`."""
        if self.lines:
            return f"{self.source}, line {self.lines[row]}"
        return f"{self.source}, row {row + 1}"


def read_table(path: str | Path) -> Table:
    """Read a data file; its suffix says which kind it is.

    Raises:
        DataError: see the module's first lines.
        MissingExtraError: a Parquet file, and pyarrow is not installed.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path} is of no known kind; a data file ends in {', '.join(SUFFIXES)}.")
    if suffix == ".parquet":
        table = _read_parquet(file, str(path))
    else:
        text = read_text(file)
        if not text.strip():
            raise DataError(f"{path} is empty. Its first line should name the columns, such as text,label.")
        if suffix in (".csv", ".tsv"):
            table = _read_delimited(text, str(path), is_tsv=suffix == ".tsv")
        else:
            table = _read_json(text, str(path))
    repeated = sorted({name for name in table.names if table.names.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has two columns named {repeated[0]!r}. Rename or remove one of them.")
    if not table.num_rows:
        raise DataError(f"{path} has columns ({', '.join(map(repr, table.names))}) but no rows.")
    check_characters(" ".join(table.names), f"{path}, names of the columns")
    return table


def read_text(file: Path) -> str:
    """A file's text: UTF-8, with or without a byte order mark.

    Raises:
        DataError: there is no such file, it cannot be read, or it is not UTF-8 text; the message names the
            line and the byte.
    """
    data = _read_bytes(file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        utf16 = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        hint = "It looks like UTF-16. " if utf16 else ""
        raise DataError(
            f"{file} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}, line {line}. "
            f"{hint}Save it as UTF-8."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{file} is not text: it holds a zero byte in line {line}. Save it as UTF-8 text.")
    return text


def check_characters(text: str, where: str) -> None:
    """Refuse text that has no UTF-8 form; escapes in JSON can make it.

    Raises:
        DataError: the text holds half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: {text[:40]!r} holds half of a surrogate pair, which is no character. Correct or remove it."
        ) from None


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no file {file}.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from None


def _read_delimited(text: str, source: str, is_tsv: bool) -> Table:
    header = text.lstrip("\r\n").split("\n", 1)[0]
    separator = "\t"
    if not is_tsv:
        separator = next((mark for mark in ",;\t" if mark in header), ",")
    try:
        rows, lines = _split_rows(text, source, separator, csv.QUOTE_MINIMAL)
    except DataError as error:
        if not is_tsv:
            raise
        try:
            rows, lines = _split_rows(text, source, separator, csv.QUOTE_NONE)
        except DataError:
            raise error from None
    names = tuple(name.strip() for name in rows[0])
    values = rows[1:]

    def read(name: str) -> list[Any]:
        column = names.index(name)
        return [row[column] for row in values]

    return Table(source, names, len(values), read, lines=lines[1:])


def _split_rows(text: str, source: str, separator: str, quoting: Literal[0, 3]) -> tuple[list[list[str]], list[int]]:
    """Rows with the header first, and the line at which each begins."""
    rows: list[list[str]] = []
    lines: list[int] = []
    with _long_fields():
        # Quotes that do not add up are an error in strict mode, not silently part of the text.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True)
        begin = 1
        try:
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(begin)
                begin = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{source}, line {begin}: the quotes of this row do not add up ({error}). "
                'Put the field in double quotes and write a quote in it as "".'
            ) from None
    width = len(rows[0])
    uneven = [i for i, row in enumerate(rows) if len(row) != width]
    if uneven:
        first, more = uneven[0], len(uneven) - 1
        rest = f" ({more:,} more such rows)" if more else ""
        raise DataError(
            f"{source}, line {lines[first]}: {len(rows[first])} fields, but the first line names "
            f"{width} columns{rest}. Put texts that hold the separator {separator!r} in double quotes."
        )
    return rows, lines


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module with a limit that fits long documents; its limit is one for the whole process."""
    with _csv_limit:
        before = csv.field_size_limit(_FIELD_LIMIT)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _read_json(text: str, source: str) -> Table:
    if text.lstrip().startswith("["):
        rows = _parse_json(text, source)
        places = [f"{source}, item {i}" for i in range(1, len(rows) + 1)]
        lines: list[int] = []
    else:
        # Not str.splitlines: a JSON text may hold other line separators than \n.
        numbered = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        lines = [i for i, _ in numbered]
        places = [f"{source}, line {i}" for i in lines]
        rows = [_parse_json(line, place) for (_, line), place in zip(numbered, places, strict=True)]
    names: dict[str, None] = {}
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, dict):
            raise DataError(f'{place}: not a JSON object, but {_shown(row)}. Write {{"text": ..., "label": ...}}.')
        names.update(dict.fromkeys(row))
    return Table(source, tuple(names), len(rows), lambda name: [row.get(name) for row in rows], lines=lines)


def _parse_json(text: str, place: str) -> Any:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{place}: the name {repeated!r} occurs twice in one object.")
        return values

    try:
        return json.loads(text, object_pairs_hook=without_repeats)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text else ""
        raise DataError(
            f"{place}{line}: not JSON: {error.msg} at character {error.colno}. Write one object a line."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON that can be read: {error}.") from None


def _read_parquet(file: Path, source: str) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError(
            f'{source} is a Parquet file; reading it needs pyarrow: pip install "multipress[train]". Or save it as CSV.'
        ) from None
    data = _read_bytes(file)
    if not data:
        raise DataError(f"{source} is empty.")
    try:
        # Not read_table: it imports pandas where there is one (1.4 s) and adds columns for folders named a=b.
        return arrow_table(parquet.ParquetFile(pa.BufferReader(data)).read(), source)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{source} is not a Parquet file that can be read: {reason}") from None


def arrow_table(arrow: Any, source: str) -> Table:
    """A pyarrow table as a `Table`; class names come from a Hugging Face `ClassLabel` in its metadata."""

    def read(name: str) -> list[Any]:
        try:
            return list(arrow.column(name).to_pylist())
        except UnicodeDecodeError as error:
            raise DataError(f"{source}: column {name!r} holds text that is not UTF-8 ({error}).") from None

    return Table(
        source=source,
        names=tuple(arrow.column_names),
        num_rows=arrow.num_rows,
        read=read,
        class_names=_class_names((arrow.schema.metadata or {}).get(b"huggingface", b"{}")),
    )


def _class_names(metadata: bytes) -> dict[str, tuple[str, ...]]:
    try:
        features = json.loads(metadata)["info"]["features"]
        labels = {name: f["names"] for name, f in features.items() if f.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {
        name: tuple(names)
        for name, names in labels.items()
        if isinstance(names, list) and all(isinstance(word, str) for word in names)
    }


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
