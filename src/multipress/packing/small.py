"""Small integers, most of them 0, 1 or -1, in two layouts that decode fast: only others are stored as they are.

By kind: a symbol for each item, 0 for 0, 1 for 1, 2 for -1, 3 for all others. By gaps: a symbol for each item that is
not 0, which also says how many zeros, up to 20, come before it; one more symbol stands for 21 zeros. Then, in both,
the others in their order. Symbols are few enough that several make one step of a coder (`multipress.packing.stream`).

Readers write `np.equal` and `np.less`: atheris 3.0, which fuzzes them, never frees what `==` and `<` make of arrays.
"""

from __future__ import annotations

import numpy as np

from multipress.errors import ArtifactError
from multipress.packing.stream import CHUNK, Reader, Symbols, encode_stream, varint

__all__ = ["decode_gaps", "decode_kinds", "encode_gaps", "encode_kinds"]

_OTHER = 2  # stands for others until they are put in their places
_KINDS = np.array([0, 1, -1, _OTHER], dtype=np.int8)
_ZEROS = 21  # 3 x 21 + 1 symbols: two of them are one step of ANS
_ONLY_ZEROS = 3 * _ZEROS
_ITEMS = np.array([*np.tile(_KINDS[1:], _ZEROS), 0], dtype=np.int8)
_STEPS = np.array([*np.repeat(np.arange(1, _ZEROS + 1), 3), _ZEROS], dtype=np.int64)
_HALF = 128
_GAPS_AT_ONCE = 1 << 17

Streams = list[tuple[bytes, int]]  # each with how many symbols it holds


def encode_kinds(values: np.ndarray) -> Streams:
    """The streams of int8 (N,): kinds, then others."""
    kinds = _kinds_of(values)
    return [(encode_stream(kinds), len(kinds)), _others(values[kinds == 3])]


def decode_kinds(reader: Reader, count: int) -> np.ndarray:
    """int8 (count,); raises `ArtifactError` where the streams are damaged."""
    values, kinds, num_others = np.empty(count, dtype=np.int8), Symbols(reader, count), 0
    for start in range(0, count, CHUNK):
        part = values[start : start + CHUNK]
        found = kinds.take(len(part))
        if int(found.max()) >= len(_KINDS):
            raise ArtifactError("A packet has unknown kinds of integers; it is damaged.")
        part[:] = np.take(_KINDS, found)
        num_others += _num_others(part)
    return _with_others(values, reader, num_others)


def encode_gaps(values: np.ndarray) -> tuple[bytes, Streams]:
    """How many symbols there are, as a varint, and the streams of int8 (N,): gaps, then others."""
    parts, begin = [np.empty(0, dtype=np.uint8)], -1
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        places = np.flatnonzero(part)
        gaps = np.diff(places + start, prepend=begin) - 1
        before = gaps // _ZEROS  # symbols of zeros alone
        symbols = np.full(len(places) + int(before.sum()), _ONLY_ZEROS, dtype=np.uint8)
        symbols[np.arange(len(places)) + np.cumsum(before)] = 3 * (gaps % _ZEROS) + _kinds_of(part[places]) - 1
        parts.append(symbols)
        begin = begin if not len(places) else start + int(places[-1])
    symbols = np.concatenate(parts)
    return varint(len(symbols)), [(encode_stream(symbols), len(symbols)), _others(values[_kinds_of(values) == 3])]


def decode_gaps(reader: Reader, count: int) -> np.ndarray:
    """int8 (count,); raises `ArtifactError` where the streams are damaged."""
    num_symbols = reader.varint()
    if num_symbols > count:
        raise ArtifactError(f"A packet of {count} items has {num_symbols} gaps; it is damaged.")
    values, begin, num_others = np.zeros(count, dtype=np.int8), -1, 0
    symbols = Symbols(reader, num_symbols)
    for start in range(0, num_symbols, _GAPS_AT_ONCE):
        found = symbols.take(min(_GAPS_AT_ONCE, num_symbols - start))
        is_end = start + len(found) == num_symbols
        if int(found.max()) > _ONLY_ZEROS or (is_end and found[-1] == _ONLY_ZEROS):
            raise ArtifactError("A packet has unknown gaps, or zeros at its end; it is damaged.")
        places = np.cumsum(np.take(_STEPS, found))
        places += begin
        begin = int(places[-1])
        if begin >= count:
            raise ArtifactError("A packet's gaps lead beyond its end; it is damaged.")
        part = np.take(_ITEMS, found)
        values[places] = part
        num_others += _num_others(part)
    return _with_others(values, reader, num_others)


def _kinds_of(values: np.ndarray) -> np.ndarray:
    """uint8 (N,)."""
    kinds = np.full(len(values), 3, dtype=np.uint8)
    for kind, value in enumerate(_KINDS[:3]):
        kinds[values == value] = kind
    return kinds


def _others(values: np.ndarray) -> tuple[bytes, int]:
    # Shifted by half the range, so that integers around zero lie side by side.
    return encode_stream(values.view(np.uint8) ^ np.uint8(_HALF)), len(values)


def _num_others(part: np.ndarray) -> int:
    return int(np.count_nonzero(np.equal(part, _OTHER)))


def _with_others(values: np.ndarray, reader: Reader, count: int) -> np.ndarray:
    """The values, what comes next in the packet put where they have room for it."""
    symbols = Symbols(reader, count)
    for start in range(0, len(values) if count else 0, CHUNK):
        part = values[start : start + CHUNK]
        places = np.flatnonzero(np.equal(part, _OTHER))
        others = (symbols.take(len(places)) ^ np.uint8(_HALF)).view(np.int8)
        if np.less(np.abs(others, dtype=np.int16), _OTHER).any():
            raise ArtifactError("A packet has 0, 1 or -1 among the other integers; it is damaged.")
        part[places] = others
    return values
