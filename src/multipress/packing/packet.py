"""First form: raw or zstd, whichever is smaller."""

from __future__ import annotations

import struct

import numpy as np
import zstandard

from multipress.errors import ArtifactError

VERSION = 0
_DTYPES = ("int8", "float16", "float32", "uint8")


def encode(array: np.ndarray) -> bytes:
    """Bytes of an array."""
    array = np.asarray(array)
    raw = array.tobytes()
    small = zstandard.ZstdCompressor(level=10).compress(raw)
    codec, body = (1, small) if len(small) < len(raw) else (0, raw)
    head = struct.pack("<BBBB", VERSION, codec, _DTYPES.index(array.dtype.name), array.ndim)
    return head + struct.pack(f"<{array.ndim}Q", *array.shape) + body


def decode(data: bytes | memoryview) -> np.ndarray:
    """The array that `encode` was given."""
    data = bytes(data)
    version, codec, dtype, ndim = struct.unpack_from("<BBBB", data)
    if version != VERSION:
        raise ArtifactError(f"packing version is {version}, but {VERSION} is read here.")
    shape = struct.unpack_from(f"<{ndim}Q", data, 4)
    body = data[4 + 8 * ndim :]
    if codec:
        body = zstandard.ZstdDecompressor().decompress(body)
    return np.frombuffer(body, dtype=_DTYPES[dtype]).reshape(shape)


def entropy_bound_bytes(array: np.ndarray) -> float:
    """Order-0 entropy of integers in bytes; the stored width of floats."""
    if array.dtype.kind == "f" or array.size == 0:
        return float(array.nbytes)
    counts = np.unique(array, return_counts=True)[1]
    return float(-(counts * np.log2(counts / array.size)).sum() / 8)


def peek(data: bytes | memoryview) -> tuple[np.dtype, tuple[int, ...]]:
    """Dtype and shape."""
    _, _, dtype, ndim = struct.unpack_from("<BBBB", data)
    return np.dtype(_DTYPES[dtype]), struct.unpack_from(f"<{ndim}Q", data, 4)
