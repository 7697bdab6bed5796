"""Text as rows of words, and how a model reads them: which tokens belong to which word.

Two models may cut the same word into other pieces, or have lost it. So everything is compared by words: the vector of a
word is the mean of its pieces, and attention goes from a word to a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multipress.artifact import Artifact
from multipress.errors import DataError
from multipress.runtime.tokenizer import BEFORE, Encoding, TextEncoder
from multipress.tasks.columns import find_label, find_text
from multipress.tasks.files import read_table, read_text

__all__ = [
    "ROW_WORDS",
    "Reading",
    "averages",
    "common_units",
    "is_special",
    "read_pairs",
    "read_rows",
    "read_targets",
    "read_words",
    "sums",
    "word_spans",
]

ROW_WORDS = 40  # with its pieces a row fits 64 tokens, the shortest length that is common
Span = tuple[int, int]  # first word and the one after the last


@dataclass(frozen=True)
class Reading:
    """A row of words as a model reads it.

    Args:
        encoding: Its tokens.
        units: What each token belongs to (T,): 0 the special tokens before, w + 1 the word w, words + 1 those after.
        num_words: Words of the row, those without a token counted.
    """

    encoding: Encoding
    units: np.ndarray
    num_words: int


def read_rows(source: str, num_words: int, text: str = "") -> list[list[str]]:
    """Rows of at most `ROW_WORDS` words, spread evenly over the text, with about so many words in all.

    Args:
        source: A file with a text column, or `.txt` with a text a line; empty: the WikiText-2 text of the package.
        num_words: About how many words; a text that has fewer is taken as a whole.
        text: The text column; empty: found by name.

    Raises:
        DataError: the file cannot be read or holds no words.
    """
    texts = _texts(source, text)
    rows = []
    for one in texts:
        words = one.split()
        rows += [words[start : start + ROW_WORDS] for start in range(0, len(words), ROW_WORDS)]
    rows = [row for row in rows if row]
    if not rows:
        raise DataError(f"{source} holds no words.")
    return [rows[index] for index in _spread(rows, num_words)]


def read_pairs(source: str, text: str, label: str, num_words: int) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of words and their translations, spread evenly over a file, with about so many words read in all.

    Rows where either side has no words, or more than `ROW_WORDS`, are left out: a translation cannot be cut.

    Args:
        source: A file with a column of texts and one of their translations.
        text: The column of texts; empty: found by name.
        label: The column of translations.
        num_words: About how many words of the texts.

    Raises:
        DataError: the file cannot be read, a column is not there, or no row is left.
    """
    if not _has_columns(source):
        raise DataError("Translations need --data FILE with a column of texts and one of translations (--label).")
    table = read_table(source)
    label = find_label(table, label)
    (column, *second) = find_text(table, (text,) if text else (), label)
    if second:
        raise DataError(f"{source} has two columns of text, {column!r} and {second[0]!r}. Name one with --text.")
    rows = zip(table.read(column), table.read(label), strict=True)
    pairs = [(str(a).split(), str(b).split()) for a, b in rows if a is not None and b is not None]
    pairs = [pair for pair in pairs if all(0 < len(side) <= ROW_WORDS for side in pair)]
    if not pairs:
        raise DataError(f"{source} has no row of 1 to {ROW_WORDS} words with a translation of 1 to {ROW_WORDS} words.")
    chosen = [pairs[index] for index in _spread([pair[0] for pair in pairs], num_words)]
    return [pair[0] for pair in chosen], [pair[1] for pair in chosen]


def _spread(rows: Sequence[Sequence[str]], num_words: int) -> list[int]:
    """Places of rows, evenly over all of them, that have about so many words together."""
    wanted = max(1, round(len(rows) * min(1.0, num_words / sum(map(len, rows)))))
    return [int(index) for index in np.linspace(0, len(rows) - 1, wanted).round()]


def _has_columns(source: str) -> bool:
    """Whether it is a file of columns: neither the text of the package nor a text a line."""
    return bool(source) and not source.lower().endswith(".txt")


def _texts(source: str, text: str) -> list[str]:
    if text and not _has_columns(source):
        raise DataError(f"{source or 'WikiText-2'} has no columns. --text is for a file that has some.")
    if not source:
        from multipress.shrink import shipped_text  # brings torch, which a list of probes does not need

        return shipped_text()
    if not _has_columns(source):
        return read_text(Path(source)).splitlines()
    table = read_table(source)
    try:
        names = find_text(table, (text,) if text else ())
    except DataError as error:
        if text:
            raise
        raise DataError(f"{error} Of pairs of texts, name the translations with --label.") from None
    columns = [table.read(name) for name in names]
    return [str(value) for row in zip(*columns, strict=True) for value in row if value is not None]


def read_words(artifact: Artifact, rows: Sequence[Sequence[str]], *, is_target: bool = False) -> list[Reading]:
    """How the model of an artifact reads rows of words, or what it writes; beyond its positions they are cut off."""
    limit = artifact.max_tokens or int(artifact.facts["max_length"])
    encoder = TextEncoder(artifact.tokenizer_json(), limit, is_target=is_target)
    found = []
    for words, (encoding, places) in zip(rows, encoder.encode_words(rows), strict=True):
        units = [place + 1 if place >= 0 else 0 if place == BEFORE else len(words) + 1 for place in places]
        found.append(Reading(encoding, np.array(units, dtype=np.int64), len(words)))
    return found


def read_targets(artifact: Artifact, rows: Sequence[Sequence[str]]) -> list[Reading]:
    """How the decoder of a translator reads rows of words: the padding begins in place of the end.

    What it gives in a place belongs to the word that it has just read there.
    """
    found = []
    for reading in read_words(artifact, rows, is_target=True):
        ids = [int(artifact.config["pad_token_id"]), *reading.encoding.ids[:-1]]
        units = np.concatenate([[0], reading.units[:-1]])
        found.append(Reading(Encoding(ids, [0] * len(ids)), units, reading.num_words))
    return found


def is_special(units: Sequence[np.ndarray], rows: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Which units of each row are no words, (U,) bool."""
    return [(row == 0) | (row > len(words)) for row, words in zip(units, rows, strict=True)]


def common_units(first: Sequence[Reading], second: Sequence[Reading]) -> list[np.ndarray]:
    """The units of each row that have a token in both readings, in order."""
    return [np.intersect1d(a.units, b.units) for a, b in zip(first, second, strict=True)]


def word_spans(units: Sequence[np.ndarray], readings: Sequence[Reading]) -> list[list[Span]]:
    """Each word of each row as a span of its own, of those in `units`."""
    return [
        [(int(unit) - 1, int(unit)) for unit in row if 0 < unit <= reading.num_words]
        for row, reading in zip(units, readings, strict=True)
    ]


def averages(reading: Reading, spans: Sequence[Span]) -> np.ndarray:
    """Weights (S, T) float32 of the tokens in each span: the mean over words of the mean over their pieces.

    A span without a token has weights of zero.
    """
    counts = np.bincount(reading.units, minlength=reading.num_words + 2)
    shares = 1.0 / counts[reading.units]
    bounds = np.array(spans, dtype=np.int64).reshape(-1, 2)
    inside = (reading.units > bounds[:, :1]) & (reading.units <= bounds[:, 1:])  # (S, T)
    weights = inside * shares
    totals = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0).astype(np.float32)


def sums(reading: Reading, units: np.ndarray) -> np.ndarray:
    """0/1 weights (U, T) float32: which tokens belong to each unit."""
    return (units[:, None] == reading.units).astype(np.float32)
