"""Text to token ids, batches of similar length, and padded arrays; `tokenizers` and numpy only."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from multipress.errors import ArtifactError, DataError

__all__ = [
    "AFTER",
    "BEFORE",
    "IDS",
    "PADDING",
    "TARGET",
    "UNKNOWN",
    "Encoding",
    "TextEncoder",
    "batches_by_length",
    "is_two_sided",
    "pad_batch",
    "table_of_ids",
]

# In place of a word's position: a special token before the first word, or behind the last.
BEFORE, AFTER = -1, -2
PADDING, UNKNOWN = "<pad>", "<unk>"
# Members of the `tokenizer.json` of a translator that writes in other pieces than it reads: the tokenizer of what it
# writes, and the id of each piece of both; the tokenizers only split.
TARGET, IDS = "target_tokenizer", "ids"


class Encoding(NamedTuple):
    """One row as the model reads it; both lists have one entry a token, special tokens counted."""

    ids: list[int]
    type_ids: list[int]


class TextEncoder:
    """Turns texts, or pairs of texts, into token ids.

    Special tokens come from the tokenizer's own post-processor. A row that is too long loses tokens from the
    longer of its two texts first. Nothing is padded here: see `pad_batch`. Encoding runs in one thread.

    Args:
        tokenizer_json: Content of a `tokenizer.json`.
        max_length: Most tokens of a row, special tokens counted.
        is_target: Encode and decode what a translator writes, not what it reads; the same for most.

    Attributes:
        max_length: As given.
        pad_id: Id of the padding token; 0 where the tokenizer names none.
        vocab_size: Number of ids, added tokens counted.
        num_truncated: How many rows of the last call of `encode` were too long.
        num_unread: How many of them hold no piece of a word that is known, as empty ones.

    Raises:
        ArtifactError: `tokenizer_json` is not a tokenizer.
    """

    def __init__(self, tokenizer_json: str, max_length: int, *, is_target: bool = False) -> None:
        from tokenizers import Tokenizer

        tokenizer_json, self._ids = _of_one_side(tokenizer_json, is_target)
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # noqa: BLE001 - the library raises no class of its own
            raise ArtifactError(f"tokenizer.json is not a tokenizer: {error}. Store the model again.") from None
        padding = self._tokenizer.padding
        known = [self._ids.get(name) if self._ids else self._tokenizer.token_to_id(name) for name in ("[PAD]", PADDING)]
        pad_ids = [padding["pad_id"]] if padding is not None else [pad_id for pad_id in known if pad_id is not None]
        self.pad_id: int = int(pad_ids[0]) if pad_ids else 0
        self.vocab_size: int = len(self._ids) or self._tokenizer.get_vocab_size(with_added_tokens=True)
        self._names = list(self._ids)  # in the order of their ids
        special = {key: token for key, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        self._special = {token.content for token in special.values()}
        unknown = {self._ids.get(UNKNOWN)} | {self._ids.get(name) for name in self._special}
        self._wordless = unknown if self._ids else set(special)
        self.max_length = max_length
        self.num_truncated = self.num_unread = 0
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, strategy="longest_first")

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoding]:
        """Token ids of each row, in the order given.

        Args:
            texts: The (first) text of each row; may be empty. Lone surrogates become U+FFFD.
            pairs: The second text of each row.

        Raises:
            DataError: `texts` is one string, a row is no string, or `pairs` has another length than `texts`.
        """
        self.num_truncated = self.num_unread = 0
        encodings = []
        for found in self._encoded(texts, pairs):
            self.num_truncated += bool(found.overflowing)
            ids = self._ids_of(found)
            self.num_unread += self._wordless.issuperset(ids)
            encodings.append(Encoding(ids, found.type_ids))
        return encodings

    def decode(self, ids: Sequence[int]) -> str:
        """The text that these tokens stand for, without spaces around it."""
        if not self._ids:
            return str(self._tokenizer.decode(list(ids))).strip()
        pieces = [self._names[token] for token in ids if 0 <= token < len(self._names)]
        return str(self._tokenizer.decoder.decode([piece for piece in pieces if piece not in self._special])).strip()

    def tokens(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[list[str]]:
        """The tokens of each row as texts; raises as `encode` does."""
        return [found.tokens for found in self._encoded(texts, pairs)]

    def encode_words(self, rows: Sequence[Sequence[str]]) -> list[tuple[Encoding, list[int]]]:
        """Rows of words, joined by spaces: of each its token ids, and for each token the word that it is a piece of.

        Args:
            rows: Words without white space.

        Returns:
            For each row its encoding, and a position in the row's words for each token; `BEFORE` and `AFTER` for
            special tokens. A word may have no token: it was cut off, or the tokenizer drops its characters.
        """
        found = []
        for words, encoded in zip(rows, self._encoded([" ".join(words) for words in rows], None), strict=True):
            # The space before a word belongs to it: a piece may begin with it or be it.
            starts = np.cumsum([0, *(len(_well_formed(word)) + 1 for word in words)][:-1]) - 1
            places, seen = [], False
            for special, (start, end) in zip(encoded.special_tokens_mask, encoded.offsets, strict=True):
                seen = seen or not special
                own = int(np.searchsorted(starts, max(start, end - 1), side="right")) - 1
                places.append((AFTER if seen else BEFORE) if special else own)
            found.append((Encoding(self._ids_of(encoded), encoded.type_ids), places))
        return found

    def _ids_of(self, encoded: Any) -> list[int]:
        if not self._ids:
            return list(encoded.ids)
        return [self._ids.get(piece, self._ids[UNKNOWN]) for piece in encoded.tokens]

    def _encoded(self, texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[Any]:
        if isinstance(texts, str) or isinstance(pairs, str):
            raise DataError("One text was given where a list of texts is needed: write [text].")
        if not (isinstance(texts, Collection) and (pairs is None or isinstance(pairs, Collection))):
            raise DataError("An iterator was given where a list of texts is needed: write list(texts).")
        if pairs is not None and len(pairs) != len(texts):
            raise DataError(f"There are {len(texts)} texts but {len(pairs)} second texts; give one for each.")
        rows = zip(texts, pairs, strict=True) if pairs is not None else ((text, None) for text in texts)
        for row, text in enumerate([*texts, *(() if pairs is None else pairs)]):
            if not isinstance(text, str):
                raise DataError(
                    f"Row {row % len(texts) + 1} holds a {type(text).__name__} where a text is needed. "
                    "Two texts a row are given as two lists: the first texts, then the second."
                )
        for first, second in rows:
            yield self._tokenizer.encode(_well_formed(first), None if second is None else _well_formed(second))


def table_of_ids(ids: Any) -> dict[str, int]:
    """Pieces and their ids, in the order of these.

    Raises:
        ValueError, TypeError, AttributeError: it is no object whose values are 0, 1, 2, ... in some order.
    """
    found = dict(sorted(ids.items(), key=lambda item: item[1]))
    if [*map(type, found.values())] != [int] * len(found) or [*found.values()] != [*range(len(found))]:
        raise ValueError(f"its {IDS} are not 0, 1, 2, ...")
    return found


def is_two_sided(tokenizer_json: str) -> bool:
    """Whether it holds one tokenizer for what is read and another for what is written."""
    return _two_sides(tokenizer_json) is not None


def _two_sides(tokenizer_json: str) -> dict[str, Any] | None:
    """The document of two tokenizers; None of one."""
    if f'"{TARGET}"' not in tokenizer_json:
        return None
    document = json.loads(tokenizer_json)
    return document if isinstance(document, dict) and TARGET in document else None


def _of_one_side(tokenizer_json: str, is_target: bool) -> tuple[str, dict[str, int]]:
    """The `tokenizer.json` of what is read or of what is written, and the table of ids, in their order, or none."""
    try:
        document = _two_sides(tokenizer_json)
        if document is None:
            return tokenizer_json, {}
        target, ids = document.pop(TARGET), document.pop(IDS)
        ids = table_of_ids(ids)
        if UNKNOWN not in ids:
            raise ValueError(f"its {IDS} have none for {UNKNOWN}")
        own = target if is_target else document
        if not own.get("decoder"):
            raise ValueError("it has no decoder")
        return json.dumps(own, ensure_ascii=False), ids
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ArtifactError(f"tokenizer.json is not a tokenizer: {error}. Store the model again.") from None


def _well_formed(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[np.ndarray]:
    """Index arrays that cover all rows once, rows of similar length together, the longest first.

    The longest batch comes first so that a lack of memory shows at once. Ties keep the order given.

    Args:
        lengths: Tokens of each row.
        batch_size: Most rows of a batch.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def pad_batch(
    encodings: Sequence[Encoding], pad_id: int, *, multiple: int = 1, max_length: int | None = None
) -> dict[str, np.ndarray]:
    """Arrays `input_ids`, `attention_mask` and `token_type_ids`, int64 (B, T), padded on the right.

    Args:
        encodings: B rows; T is the length of the longest.
        pad_id: Fills `input_ids` where `attention_mask` is 0.
        multiple: T is the next multiple of it,
        max_length: but no more than this, if given.
    """
    longest = max((len(row.ids) for row in encodings), default=0)
    length = longest + -longest % multiple
    if max_length is not None:
        length = max(longest, min(length, max_length))
    shape = (len(encodings), length)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    token_type_ids = np.zeros(shape, dtype=np.int64)
    for index, row in enumerate(encodings):
        length = len(row.ids)
        input_ids[index, :length] = row.ids
        attention_mask[index, :length] = 1
        token_type_ids[index, :length] = row.type_ids
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
