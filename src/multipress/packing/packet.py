"""One array in few bytes and back, bit for bit. A packet describes itself.

Bytes of a packet: version, layout, dtype, number of dimensions, each dimension as a varint, then

- layout PLAIN: the array's own bytes, little-endian;
- layout DENSE: each byte plane of the items as a stream (`multipress.packing.stream`);
- layout SPARSE: a stream of 0 and 1 (an item's bits are all zero or not), then the planes of the other items;
- layouts KINDS and GAPS, of int8 alone: `multipress.packing.small`.

PLAIN is taken where nothing else is smaller, so a packet is never larger than the array and its header. Zeros
fill a packet up to one byte for `MAX_RATIO` bytes of the array: a reader need not believe a short packet
that declares an endless array. There is no checksum: the artifact's manifest has hashes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from multipress.errors import ArtifactError
from multipress.packing.small import decode_gaps, decode_kinds, encode_gaps, encode_kinds
from multipress.packing.stream import (
    CHUNK,
    Reader,
    Symbols,
    count_symbols,
    decode_stream,
    encode_stream,
    varint,
    with_time,
)

__all__ = ["MAX_RATIO", "VERSION", "decode", "encode", "entropy_bound_bytes", "peek"]

VERSION = 1
MAX_RATIO = 1 << 15
_PLAIN, _DENSE, _SPARSE, _KINDS, _GAPS = range(5)
_DTYPES = ("int8", "float16", "float32")
_MAX_DIMENSIONS = 8
_MAX_BYTES = 1 << 48
_HALF = 128


def encode(array: np.ndarray) -> bytes:
    """Pack an array.

    Args:
        array: int8, float16 or float32; any shape of at most 8 dimensions. NaN and -0.0 keep their bits.

    Raises:
        ArtifactError: another dtype, or more dimensions.
    """
    if array.dtype.name not in _DTYPES or array.ndim > _MAX_DIMENSIONS:
        raise ArtifactError(f"An array of {array.dtype} and {array.ndim} dimensions cannot be packed.")
    planes = _planes(array)
    layout, body, least = _PLAIN, planes.tobytes(), float(array.nbytes)
    for other, before, streams in _layouts(planes, _bits(array) != 0) if array.size else ():
        cost = len(before) + with_time(streams, array.size)
        if cost < least:
            layout, body, least = other, before + b"".join(data for data, _ in streams), cost
    head = bytes([VERSION, layout, _DTYPES.index(array.dtype.name), array.ndim])
    packet = head + b"".join(varint(size) for size in array.shape) + body
    return packet + bytes(max(0, _least_bytes(array.nbytes) - len(packet)))


def decode(data: bytes | memoryview) -> np.ndarray:
    """The array that `encode` was given.

    Raises:
        ArtifactError: the packet is damaged, cut, too long or of another version. Nothing is allocated before
            the declared size was compared with the packet's length.
    """
    reader = Reader(data)
    layout, dtype, shape = _read_head(reader)
    count = math.prod(shape)
    if layout == _PLAIN:
        # A copy: a view would keep all of the file in memory.
        values = np.frombuffer(reader.take(count * dtype.itemsize), dtype=dtype).copy()
    elif layout == _DENSE:
        values = _decode_planes(reader, dtype, count)
    elif layout == _KINDS:
        values = decode_kinds(reader, count)
    elif layout == _GAPS:
        values = decode_gaps(reader, count)
    else:
        values = _decode_sparse(reader, dtype, count)
    padding = reader.take(reader.left)
    if len(padding) and (len(data) != _least_bytes(values.nbytes) or bytes(padding).strip(b"\0")):
        raise ArtifactError(f"A packet has {len(padding)} bytes too many. Copy the artifact again.")
    return values.reshape(shape)


def peek(data: bytes | memoryview) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
    """The dtype and shape of a packed array, from its header alone; raises as `decode` does."""
    _, dtype, shape = _read_head(Reader(data))
    return dtype, shape


def entropy_bound_bytes(array: np.ndarray) -> float:
    """The fewest bytes that a coder without context can reach.

    For integers their order-0 entropy. For floats the entropy of which are zero, and the others at their
    stored width.
    """
    if not array.size:
        return 0.0
    if array.dtype.kind != "f":
        return _entropy_bits(count_symbols(_bits(array))) / 8
    num_nonzeros = int(np.count_nonzero(_bits(array)))
    mask_bits = _entropy_bits(np.array([num_nonzeros, array.size - num_nonzeros]))
    return mask_bits / 8 + num_nonzeros * array.itemsize


def _entropy_bits(counts: np.ndarray) -> float:
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def _least_bytes(array_bytes: int) -> int:
    return array_bytes // MAX_RATIO


def _read_head(reader: Reader) -> tuple[int, np.dtype[np.generic], tuple[int, ...]]:
    total = reader.left
    version, layout, code, num_dimensions = reader.take(4)
    if version != VERSION:
        raise ArtifactError(f"A packet has version {version}, but {VERSION} is read here. Update multipress.")
    if layout > _GAPS or code >= len(_DTYPES) or num_dimensions > _MAX_DIMENSIONS or (layout > _SPARSE and code):
        raise ArtifactError("A packet has an unknown layout or dtype; it is damaged.")
    dtype = np.dtype(_DTYPES[code]).newbyteorder("<")
    shape = tuple(reader.varint() for _ in range(num_dimensions))
    if math.prod(max(size, 1) for size in shape) > _MAX_BYTES or (
        _least_bytes(math.prod(shape) * dtype.itemsize) > total
    ):
        raise ArtifactError(f"A packet of {total} bytes declares the shape {shape}, which is too large for it.")
    return layout, dtype, shape


def _bits(array: np.ndarray) -> np.ndarray:
    """The items' bits as unsigned integers, so that -0.0 is not zero: (N,)."""
    return np.ascontiguousarray(array).reshape(-1).view(f"u{array.itemsize}")


def _planes(array: np.ndarray) -> np.ndarray:
    """The items' bytes, lowest first: uint8 (N, itemsize)."""
    flat = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1)
    return flat.view(np.uint8).reshape(-1, array.itemsize)


def _layouts(planes: np.ndarray, present: np.ndarray) -> Iterator[tuple[int, bytes, list[tuple[bytes, int]]]]:
    """The layouts that can be smaller than the plain one: what comes first, then streams with their symbols' number."""
    yield _DENSE, b"", _encode_planes(planes)
    if not present.all():
        mask = present.view(np.uint8)
        yield _SPARSE, b"", [(encode_stream(mask), len(mask)), *_encode_planes(planes[present])]
    # Where fewer than a third are 0, 1 or -1, it saves 0.3 % at most and takes five times as long to decode.
    if planes.shape[1] == 1 and 3 * np.count_nonzero(planes + np.uint8(1) < 3) >= len(planes):
        values = planes[:, 0].view(np.int8)
        yield _KINDS, b"", encode_kinds(values)
        yield _GAPS, *encode_gaps(values)


def _encode_planes(planes: np.ndarray) -> list[tuple[bytes, int]]:
    # The highest byte is shifted by half its range, so that integers around zero lie side by side.
    streams = [plane.copy() for plane in planes.T]
    streams[-1] ^= np.uint8(_HALF)
    return [(encode_stream(stream), len(stream)) for stream in streams]


def _decode_planes(reader: Reader, dtype: np.dtype[np.generic], count: int) -> np.ndarray:
    planes = np.empty((count, dtype.itemsize), dtype=np.uint8)
    for plane in planes.T:
        Symbols(reader, count).into(plane)
    planes[:, -1] ^= np.uint8(_HALF)
    return planes.view(dtype).reshape(-1)


def _decode_sparse(reader: Reader, dtype: np.dtype[np.generic], count: int) -> np.ndarray:
    present = decode_stream(reader, count)
    if count and int(present.max()) > 1:
        raise ArtifactError("A packet's mask holds more than 0 and 1; it is damaged.")
    present = present.view(np.bool_)
    num_present = int(np.count_nonzero(present))
    planes = np.zeros((count, dtype.itemsize), dtype=np.uint8)
    for index in range(dtype.itemsize):
        symbols, flip = Symbols(reader, num_present), np.uint8(_HALF if index == dtype.itemsize - 1 else 0)
        # By index a quarter of the time by mask; in chunks, because an index takes 8 bytes.
        for start in range(0, count, CHUNK):
            places = np.flatnonzero(present[start : start + CHUNK])
            planes[start : start + CHUNK, index][places] = symbols.take(len(places)) ^ flip
    values = planes.view(dtype).reshape(-1)
    if int(np.count_nonzero(_bits(values))) != num_present:
        raise ArtifactError("A packet's mask names zeros; it is damaged.")
    return values
