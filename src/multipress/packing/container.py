"""The safetensors container, read strictly: 8 bytes of length, a JSON header, the data without gaps.

Format: https://github.com/huggingface/safetensors. The header is checked against the file's size before a
caller allocates anything. Differs from the reference reader: only the few dtypes that multipress writes.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

from multipress.errors import ArtifactError
from multipress.packing.folder import FileBytes
from multipress.packing.strict_json import parse_object

__all__ = ["ITEM_BYTES", "Entry", "Header", "read_header", "write_container"]

ITEM_BYTES = {"U8": 1, "F16": 2, "F32": 4}
# A header takes about 100 bytes a tensor; this is room for 80,000 and bounds what is parsed.
_MAX_HEADER_BYTES = 8_000_000
_WHERE = "model.safetensors"


@dataclass(frozen=True)
class Entry:
    """One tensor: `dtype` is a key of `ITEM_BYTES`; `start` and `end` count from the begin of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a container holds, by name, and its texts."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def write_container(entries: dict[str, tuple[str, tuple[int, ...], bytes]], metadata: dict[str, str]) -> bytes:
    """Bytes of a safetensors file that holds the entries (dtype, shape, data) in the order given.

    Entries of wider dtypes should come first, so that every tensor starts at a multiple of its item's size.
    """
    table: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, (dtype, shape, data) in entries.items():
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(data for _, _, data in entries.values())])


def read_header(data: memoryview | FileBytes) -> Header:
    """Read and check the header of a container.

    Args:
        data: The whole file, or the file as it lies on disk.

    Raises:
        ArtifactError: the header is cut, too long, not strict JSON, or its entries overlap, leave gaps, have
            an unknown dtype or a shape that does not fit their bytes.
    """
    if len(data) < 8:
        raise ArtifactError(f"{_WHERE} has {len(data)} bytes, too few for a safetensors file. Copy it again.")
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(len(data) - 8, _MAX_HEADER_BYTES):
        raise ArtifactError(f"{_WHERE} declares a header of {length} bytes, more than there can be.")
    table = parse_object(data[8 : 8 + length], f"the header of {_WHERE}")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ArtifactError(f"__metadata__ of {_WHERE} must hold texts alone.")
    entries = {name: _entry(name, value, 8 + length) for name, value in table.items()}
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            raise ArtifactError(f"{name} of {_WHERE} starts at byte {entry.start}, but the one before ends at {end}.")
        end = entry.end
    if end != len(data):
        raise ArtifactError(f"{_WHERE} has {len(data)} bytes, but its header describes {end}. Copy it again.")
    return Header(entries, metadata)


def _entry(name: str, value: Any, base: int) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ArtifactError(f"{name} of {_WHERE} has no plain dtype, shape and data_offsets.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ArtifactError(f"{name} of {_WHERE} has dtype {dtype!r}; known are: {', '.join(ITEM_BYTES)}.")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
            raise ArtifactError(f"{name} of {_WHERE} has a shape or offset that is no list of whole numbers.")
    if len(shape) > 8 or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ArtifactError(f"{name} of {_WHERE} has the shape {shape}, which does not fit its bytes {offsets}.")
    return Entry(dtype, tuple(shape), base + offsets[0], base + offsets[1])
