"""One stream: bytes 0 to 255 in few bytes. Symbols go in groups of 1, 2, 4 or 8, and a group is one number.

Three codecs, the smallest wins, but what is slow to decode must save enough: the groups as bytes (`RAW`), the same
through zstd (`ZSTD`), or groups coded by asymmetric numeral systems (`ANS`). Of order 0: a weight a symbol,
one byte each; a group's weight is the product of its symbols' weights. Weights are small integers and products of
float64, so that encoder and decoder build the same model on every computer.

A stream is written as: codec, lowest symbol, span (highest minus lowest), length of the payload as a varint,
payload. How many symbols there are is known to the reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
import zstandard

from multipress.errors import ArtifactError

__all__ = [
    "CHUNK",
    "Reader",
    "Symbols",
    "count_symbols",
    "decode_stream",
    "decompress",
    "encode_stream",
    "varint",
    "with_time",
]

RAW, ZSTD, ANS = range(3)
# One ANS step takes 30 to 40 ns however many symbols its group has; a larger table leaves the cache.
_MAX_ANS_GROUPS = 4096
# What a step of ANS for each symbol must save, as a share of the bytes; half of it where two symbols share a step.
# zstd decodes up to 60 times faster and takes, by Huffman's code, about 1 % more: 200 MB of weights a second want it.
_STEP_MUST_SAVE = 0.06
CHUNK = 1 << 18  # symbols that are decoded at once; a multiple of every group
_MOST_WINDOW = 1 << 23  # bytes that a zstd frame may want beside what it holds; ours want 2 MiB
# Weights repeat nothing: what zstd takes for a repetition costs more than it saves. These settings hardly look for any.
_NO_SEARCH = {"strategy": zstandard.STRATEGY_FAST, "window_log": 17, "hash_log": 6, "min_match": 7}


class Reader:
    """Reads a buffer from its begin to its end; every read is checked against what is left."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> memoryview:
        """The next `size` bytes, not copied; raises `ArtifactError` where there are fewer."""
        if size > self.left:
            raise ArtifactError(f"A packet ends {size - self.left} bytes too early. Copy the artifact again.")
        self._at += size
        return self._data[self._at - size : self._at]

    def byte(self) -> int:
        """The next byte as a number."""
        return int(self.take(1)[0])

    def varint(self) -> int:
        """The next number, written by `varint`: below 2**49, in its shortest form."""
        value = 0
        for shift in range(0, 49, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    break
                return value
        raise ArtifactError("A packet holds a number that is too long. Copy the artifact again.")


def decompress(frame: bytes | memoryview, max_bytes: int, what: str) -> bytes:
    """The content of a zstd frame that states its size.

    Raises:
        ArtifactError: it declares more than `max_bytes`, before anything is allocated, or is damaged; `what` names it.
    """
    try:
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= max_bytes:
            raise ArtifactError(f"{what} declares {size} bytes; at most {max_bytes} are right.")
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArtifactError(f"{what} cannot be decompressed: {error}.") from None


def varint(value: int) -> bytes:
    """A number of at least 0 in base 128, lowest digit first, the high bit set on all bytes but the last."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def encode_stream(symbols: np.ndarray) -> bytes:
    """Bytes that `decode_stream` turns back into the symbols.

    Args:
        symbols: uint8 (N,).
    """
    if not symbols.size:
        return bytes([RAW, 0, 0]) + varint(0)
    low = int(symbols.min())
    span = int(symbols.max()) - low
    relative = symbols - np.uint8(low)
    raw = _join(relative, span + 1, _group(span + 1, 256)).astype(np.uint8).tobytes() if span else b""
    codec, payload = RAW, raw
    no_search = zstandard.ZstdCompressionParameters(**_NO_SEARCH)
    for settings in ({"level": 1}, {"level": 3}, {"compression_params": no_search}):
        smaller = zstandard.ZstdCompressor(**settings).compress(raw)
        if len(smaller) < len(payload):
            codec, payload = ZSTD, smaller
    counts = count_symbols(relative)[: span + 1]
    limit = len(payload) / (1 + _STEP_MUST_SAVE / _group(span + 1, _MAX_ANS_GROUPS))
    if _ans_bytes(counts) < limit and len(coded := _encode_ans(relative, counts)) < limit:
        codec, payload = ANS, coded
    return bytes([codec, low, span]) + varint(len(payload)) + payload


def count_symbols(symbols: np.ndarray) -> np.ndarray:
    """How often each of 256 symbols (uint8) is there: int64 (256,)."""
    # At once it would take eight bytes a symbol.
    parts = (symbols[start : start + CHUNK] for start in range(0, len(symbols), CHUNK))
    return sum((np.bincount(part, minlength=256) for part in parts), np.zeros(256, dtype=np.int64))


def with_time(streams: list[tuple[bytes, int]], count: int) -> float:
    """Bytes of streams, each with its number of symbols, that hold `count` items, and more for the steps of ANS.

    Of two ways to store the same items the better one is that where this is less.
    """
    size = sum(len(data) for data, _ in streams)
    steps = sum(symbols / _group(data[2] + 1, _MAX_ANS_GROUPS) for data, symbols in streams if data[0] == ANS)
    return size * (1 + _STEP_MUST_SAVE * steps / count)


class Symbols:
    """The symbols of the next stream of a packet, decoded as they are taken; each method raises `ArtifactError`.

    Args:
        reader: Stands at the stream; behind it afterwards.
        count: How many symbols there are.
    """

    def __init__(self, reader: Reader, count: int) -> None:
        self._chunks = _decoded(*_read_stream_head(reader, count), count)
        self._rest = np.empty(0, dtype=np.uint8)

    def take(self, size: int) -> np.ndarray:
        """The next so many, uint8 (size,); the last ones come only where all of the stream is right."""
        parts, found = [self._rest], len(self._rest)
        while found < size:
            parts.append(next(self._chunks))
            found += len(parts[-1])
        symbols = np.concatenate(parts) if found > len(parts[-1]) else parts[-1]
        symbols, self._rest = symbols[:size], symbols[size:]
        return symbols

    def into(self, out: np.ndarray) -> None:
        """The next `len(out)` symbols, written into `out`."""
        for start in range(0, len(out), CHUNK):
            part = out[start : start + CHUNK]
            part[:] = self.take(len(part))


def decode_stream(reader: Reader, count: int) -> np.ndarray:
    """The next stream of a packet: uint8 (count,).

    Raises:
        ArtifactError: the stream is damaged.
    """
    symbols = np.empty(count, dtype=np.uint8)
    Symbols(reader, count).into(symbols)
    return symbols


def _read_stream_head(reader: Reader, count: int) -> tuple[int, int, int, memoryview]:
    """Codec, lowest symbol, span and payload."""
    codec, low, span = reader.byte(), reader.byte(), reader.byte()
    payload = reader.take(reader.varint())
    if low + span > 255 or codec > ANS:
        raise ArtifactError(f"A stream has codec {codec} and symbols from {low} to {low + span}; it is damaged.")
    if (not count or not span) and (len(payload) or codec != RAW or (not count and (low or span))):
        raise ArtifactError("A stream of nothing or of one symbol has a payload; it is damaged.")
    return codec, low, span, payload


def _decoded(codec: int, low: int, span: int, payload: memoryview, count: int) -> Iterator[np.ndarray]:
    """The symbols in chunks of `CHUNK`; what can be known at the end only is checked before the last one."""
    if not span:
        for start in range(0, count, CHUNK):
            yield np.full(min(CHUNK, count - start), low, dtype=np.uint8)
        return
    if not count:
        return
    size = _group(span + 1, _MAX_ANS_GROUPS if codec == ANS else 256)
    groups = (_raw, _zstd, _ans)[codec](payload, span + 1, size, -(-count // size))
    split = _split_table(span + 1, size)
    least, most = span, 0
    for start in range(0, count, CHUNK):
        found = next(groups)
        symbols = found.astype(np.uint8) if size == 1 else np.take(split, found).view(np.uint8)  # half of split[found]
        symbols, fill = symbols[: count - start], symbols[count - start :]
        least, most = min(least, int(symbols.min())), max(most, int(symbols.max()))
        if start + CHUNK >= count and (fill.any() or least or most != span):
            raise ArtifactError("A stream has other symbols than it declares; it is damaged.")
        symbols += np.uint8(low)
        yield symbols


def _group(alphabet: int, limit: int) -> int:
    """How many symbols make a group: as many as keep the number of different groups within the limit."""
    return next((size for size in (8, 4, 2) if alphabet**size <= limit), 1)


def _join(symbols: np.ndarray, alphabet: int, size: int) -> np.ndarray:
    """Groups as numbers, int32 (ceil(N / size),); the last group is filled up with zeros."""
    padded = np.concatenate([symbols, np.zeros(-len(symbols) % size, dtype=np.uint8)]).reshape(-1, size)
    groups = padded[:, 0].astype(np.int32)
    for column in range(1, size):
        groups *= alphabet
        groups += padded[:, column]
    return groups


def _split_table(alphabet: int, size: int) -> np.ndarray:
    """The symbols of each group, packed into one item each: (alphabet**size,), an item has `size` bytes."""
    numbers = np.arange(alphabet**size)
    places = alphabet ** np.arange(size - 1, -1, -1)
    return (numbers[:, None] // places % alphabet).astype(np.uint8).view(f"u{size}")[:, 0]


def _raw(payload: memoryview, alphabet: int, size: int, count: int) -> Iterator[np.ndarray]:
    """So many groups as they are, those of a chunk of symbols at a time: numbers of rows of `_split_table`."""
    if len(payload) != count:
        raise ArtifactError(f"A stream has {len(payload)} bytes where {count} are right.")
    for start in range(0, count, CHUNK // size):
        yield _known(np.frombuffer(payload[start : start + CHUNK // size], dtype=np.uint8), alphabet**size)


def _zstd(payload: memoryview, alphabet: int, size: int, count: int) -> Iterator[np.ndarray]:
    """The same, a zstd frame of them."""
    try:
        head = zstandard.get_frame_parameters(payload)
        if head.content_size != count or _frame_bytes(payload, head.has_checksum) != len(payload):
            raise ArtifactError("A stream decompresses to another length than its packet declares.")
        if head.window_size > _MOST_WINDOW:
            raise ArtifactError("A stream wants more memory to be decompressed than is right.")
        with zstandard.ZstdDecompressor().stream_reader(payload) as frame:
            for start in range(0, count, CHUNK // size):
                groups = np.empty(min(CHUNK // size, count - start), dtype=np.uint8)
                found = 0
                while found < len(groups):
                    got = frame.readinto(groups[found:])
                    if not got:
                        raise ArtifactError("A stream decompresses to less than its packet declares.")
                    found += got
                if start + len(groups) == count and frame.read(1):
                    raise ArtifactError("A stream decompresses to more than its packet declares.")
                yield _known(groups, alphabet**size)
    except zstandard.ZstdError as error:
        raise ArtifactError(f"A stream cannot be decompressed: {error}.") from None


def _frame_bytes(payload: memoryview, has_checksum: bool) -> int:
    """How long the zstd frame is that begins here, by the headers of its blocks (RFC 8878, section 3.1.1)."""
    at, is_last = zstandard.frame_header_size(payload), False
    while not is_last:
        header = int.from_bytes(payload[at : at + 3], "little")
        is_last, is_one_byte = bool(header & 1) or at >= len(payload), (header >> 1) & 3 == 1
        at += 3 + (1 if is_one_byte else header >> 3)
    return at + 4 * has_checksum


def _known(groups: np.ndarray, number: int) -> np.ndarray:
    if int(groups.max()) >= number:
        raise ArtifactError("A stream holds symbols beyond its span; it is damaged.")
    return groups


def _ans_bytes(counts: np.ndarray) -> float:
    """About how many bytes ANS takes: the entropy and the table."""
    present = counts[counts > 0]
    return float(-(present * np.log2(present / present.sum())).sum()) / 8 + len(counts)


def _to_small_floats(counts: np.ndarray) -> np.ndarray:
    """Counts as bytes with 5 bits of exponent and 3 of mantissa, never 0 for a count above 0; uint8.

    A weight is off by 6 % at most, which costs less than 0.02 % of the bytes.
    """
    exponents = np.zeros(len(counts), dtype=np.int64)
    rest = counts.astype(np.int64)
    while (large := rest > 15).any():
        rest[large] >>= 1
        exponents[large] += 1
    return np.where(rest < 8, rest, (exponents + 1) << 3 | (rest & 7)).clip(max=255).astype(np.uint8)


def _model(table: np.ndarray, size: int) -> Any:
    """The distribution of groups of so many symbols, each symbol with the weight in the table (uint8)."""
    exponents, mantissas = (table >> 3).astype(np.int64), (table & 7).astype(np.int64)
    weights = np.where(exponents == 0, mantissas, (mantissas + 8) << (exponents - 1).clip(min=0)).astype(np.float64)
    weights /= weights.max()
    joint = weights
    for _ in range(size - 1):
        joint = (joint[:, None] * weights).ravel()
    # perfect=False is faster and as small; encoder and decoder must agree on it.
    return constriction.stream.model.Categorical(joint, perfect=False)


def _encode_ans(symbols: np.ndarray, counts: np.ndarray) -> bytes:
    table = _to_small_floats(counts)
    size = _group(len(counts), _MAX_ANS_GROUPS)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(_join(symbols, len(counts), size), _model(table, size))
    words: np.ndarray = coder.get_compressed()
    return table.tobytes() + words.astype("<u4").tobytes()


def _ans(payload: memoryview, alphabet: int, size: int, count: int) -> Iterator[np.ndarray]:
    """The same, coded."""
    if len(payload) < alphabet or (len(payload) - alphabet) % 4:
        raise ArtifactError(f"A coded stream has {len(payload)} bytes; it is cut.")
    table = np.frombuffer(payload[:alphabet], dtype=np.uint8)
    if not table.any():
        raise ArtifactError("A coded stream has no weights; it is damaged.")
    coder = constriction.stream.stack.AnsCoder(_words(payload[alphabet:]))
    model = _model(table, size)
    for start in range(0, count, CHUNK // size):
        groups = coder.decode(model, min(CHUNK // size, count - start))
        if start + len(groups) == count and not coder.is_empty():
            raise ArtifactError("A coded stream holds more than its symbols; it is damaged.")
        yield groups


def _words(payload: memoryview) -> np.ndarray:
    words = np.frombuffer(payload, dtype="<u4").astype(np.uint32, copy=False)
    if not len(words) or words[-1] == 0:
        raise ArtifactError("A coded stream has no words, or ends in a zero word; it is damaged.")
    return words
