"""One stream: bytes 0 to 255 in few bytes. Symbols go in groups of 1, 2, 4 or 8, and a group is one number.

Three codecs, the smallest wins, but what is slow to decode must save enough: the groups as bytes (`RAW`), the same
through zstd (`ZSTD`), or groups coded by asymmetric numeral systems (`ANS`). Of order 0: a weight a symbol,
one byte each; a group's weight is the product of its symbols' weights. Weights are small integers and products of
float64, so that encoder and decoder build the same model on every computer.

A stream is written as: codec, lowest symbol, span (highest minus lowest), length of the payload as a varint,
payload. How many symbols there are is known to the reader.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
import zstandard

from multipress.errors import ArtifactError

__all__ = ["Reader", "decode_stream", "decompress", "encode_stream", "varint", "with_time"]

RAW, ZSTD, ANS = range(3)
# One ANS step takes 30 to 40 ns however many symbols its group has; a larger table leaves the cache.
_MAX_ANS_GROUPS = 4096
# What a step of ANS for each symbol must save, as a share of the bytes; half of it where two symbols share a step.
# zstd decodes up to 60 times faster and takes, by Huffman's code, about 1 % more: 200 MB of weights a second want it.
_STEP_MUST_SAVE = 0.06
# Decoded at once; bounds the memory that the coder's 32-bit numbers take.
_CHUNK = 1 << 20
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
    counts = np.bincount(relative, minlength=span + 1)
    limit = len(payload) / (1 + _STEP_MUST_SAVE / _group(span + 1, _MAX_ANS_GROUPS))
    if _ans_bytes(counts) < limit and len(coded := _encode_ans(relative, counts)) < limit:
        codec, payload = ANS, coded
    return bytes([codec, low, span]) + varint(len(payload)) + payload


def with_time(streams: list[tuple[bytes, int]], count: int) -> float:
    """Bytes of streams, each with its number of symbols, that hold `count` items, and more for the steps of ANS.

    Of two ways to store the same items the better one is that where this is less.
    """
    size = sum(len(data) for data, _ in streams)
    steps = sum(symbols / _group(data[2] + 1, _MAX_ANS_GROUPS) for data, symbols in streams if data[0] == ANS)
    return size * (1 + _STEP_MUST_SAVE * steps / count)


def decode_stream(reader: Reader, count: int) -> np.ndarray:
    """The next stream of a packet: uint8 (count,).

    Raises:
        ArtifactError: the stream is damaged.
    """
    codec, low, span = reader.byte(), reader.byte(), reader.byte()
    payload = reader.take(reader.varint())
    if low + span > 255 or codec > ANS:
        raise ArtifactError(f"A stream has codec {codec} and symbols from {low} to {low + span}; it is damaged.")
    if not count or not span:
        if len(payload) or codec != RAW or (low and not count):
            raise ArtifactError("A stream of nothing or of one symbol has a payload; it is damaged.")
        return np.full(count, low, dtype=np.uint8)
    decoder = _decode_ans if codec == ANS else _decode_groups
    symbols = decoder(payload, codec, span + 1, count)
    symbols, fill = symbols[:count], symbols[count:]
    if fill.any() or int(symbols.min()) != 0 or int(symbols.max()) != span:
        raise ArtifactError("A stream has other symbols than it declares, or more; it is damaged.")
    symbols += np.uint8(low)
    return symbols


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


def _decode_groups(payload: memoryview, codec: int, alphabet: int, count: int) -> np.ndarray:
    size = _group(alphabet, 256)
    expected = -(-count // size)
    data: bytes | memoryview = payload
    if codec == ZSTD:
        try:
            if zstandard.frame_content_size(payload) != expected:
                raise ArtifactError("A stream decompresses to another length than its packet declares.")
            data = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ArtifactError(f"A stream cannot be decompressed: {error}.") from None
    if len(data) != expected:
        raise ArtifactError(f"A stream has {len(data)} bytes where {expected} are right.")
    groups = np.frombuffer(data, dtype=np.uint8)
    if int(groups.max()) >= alphabet**size:
        raise ArtifactError("A stream holds symbols beyond its span; it is damaged.")
    return np.array(groups) if size == 1 else _split_table(alphabet, size)[groups].view(np.uint8)


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


def _decode_ans(payload: memoryview, codec: int, alphabet: int, count: int) -> np.ndarray:
    del codec
    if len(payload) < alphabet or (len(payload) - alphabet) % 4:
        raise ArtifactError(f"A coded stream has {len(payload)} bytes; it is cut.")
    table = np.frombuffer(payload[:alphabet], dtype=np.uint8)
    if not table.any():
        raise ArtifactError("A coded stream has no weights; it is damaged.")
    words = np.frombuffer(payload[alphabet:], dtype="<u4").astype(np.uint32)
    if len(words) and words[-1] == 0:
        raise ArtifactError("A coded stream ends in a zero word; it is damaged.")
    size = _group(alphabet, _MAX_ANS_GROUPS)
    model, split = _model(table, size), _split_table(alphabet, size)
    coder = constriction.stream.stack.AnsCoder(words)
    num_groups = -(-count // size)
    groups = np.empty(num_groups, dtype=split.dtype)
    for start in range(0, num_groups, _CHUNK):
        stop = min(start + _CHUNK, num_groups)
        groups[start:stop] = split[coder.decode(model, stop - start)]
    if not coder.is_empty():
        raise ArtifactError("A coded stream holds more than its symbols; it is damaged.")
    return groups.view(np.uint8)
