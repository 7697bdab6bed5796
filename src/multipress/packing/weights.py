"""The weights file: a safetensors container of packed tensors, and of floats that packing makes no smaller.

A packed tensor is one U8 entry under its own name: a packet, which describes itself, and before that of integers the
length of their scale's packet and that packet. Others are plain F16 or F32 entries. Tied weights are stored once; their
other names are in the container's metadata. Before format version 6 a scale was an F16 entry `<name>.scale`.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from multipress.errors import ArtifactError
from multipress.packing.container import Entry, read_header, write_container
from multipress.packing.folder import FileBytes
from multipress.packing.packet import decode, encode, peek
from multipress.packing.stream import Reader, varint
from multipress.packing.strict_json import parse_object
from multipress.packing.tensor import StoredTensor, is_scale, stored_dtype

__all__ = ["WEIGHTS", "check_weights", "read_tensors", "write_weights"]

WEIGHTS = "model.safetensors"
_FLOAT_ENTRIES = {16: "F16", 32: "F32"}
_FLOATS = {entry: stored_dtype(bits) for bits, entry in _FLOAT_ENTRIES.items()}
_Kind = tuple[np.dtype[Any] | None, tuple[int, ...]]


def write_weights(tensors: dict[str, StoredTensor], aliases: dict[str, str]) -> tuple[bytes, dict[str, Any]]:
    """Pack tensors into one file.

    Args:
        tensors: Weights by name; tied weights once.
        aliases: Other names of tied weights, each with a name in `tensors`.

    Returns:
        The file, and of each tensor: shape, bits, nonzeros, bytes, entropy_bound_bytes, sha256.

    Raises:
        ArtifactError: an alias is the name of a tensor, or has no target.
    """
    _check_names(tensors, aliases)
    plain: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    packed: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    records = {}
    for name, tensor in sorted(tensors.items()):
        body = encode(tensor.values)
        if tensor.scale is not None:
            scale = encode(tensor.scale)
            body = varint(len(scale)) + scale + body
        if tensor.scale is not None or len(body) < tensor.values.nbytes:
            packed[name] = ("U8", (len(body),), body)
        else:
            body = tensor.values.tobytes()
            plain[name] = (_FLOAT_ENTRIES[tensor.bits], tensor.values.shape, body)
        records[name] = {
            "shape": list(tensor.values.shape),
            "bits": tensor.bits,
            "nonzeros": tensor.nonzeros,
            "bytes": len(body),
            "entropy_bound_bytes": tensor.entropy_bound_bytes,
            "sha256": tensor.sha256(),
        }
    # Wide items first, so that each tensor starts at a multiple of its item's size.
    wide_first = dict(sorted(plain.items(), key=lambda item: item[1][0], reverse=True))
    metadata = {"format": "multipress", "aliases": json.dumps(aliases, sort_keys=True)}
    return write_container(wide_first | packed, metadata), records


def read_tensors(
    data: memoryview | FileBytes, records: dict[str, Any], *, has_scales_apart: bool
) -> dict[str, StoredTensor]:
    """Decode every tensor of a file that `check_weights` let pass.

    The largest first: what decoding takes beside the tensor then finds room where the others will be.

    Args:
        data: The file; or the file as it lies on disk, of which one tensor at a time is read.
        records: What `write_weights` returned.
        has_scales_apart: Whether scales are entries of their own, as before format version 6.

    Raises:
        ArtifactError: a packet is damaged, or decodes to other values than were stored.
    """
    entries = read_header(data).entries
    if not _entry_names(records, has_scales_apart) <= set(entries):
        raise ArtifactError(f"{WEIGHTS} changed while it was read: tensors are missing. Open the artifact again.")
    tensors = {}
    for name, record in sorted(records.items(), key=lambda item: -math.prod(item[1]["shape"])):
        scale = None
        if record["bits"] > 8:
            values = _decode_entry(data, entries[name])
        elif has_scales_apart:
            values, scale = _decode_entry(data, entries[name]), _decode_entry(data, entries[_scale(name)])
        else:
            scale, values = map(decode, _scale_and_values(data, entries[name]))
        tensor = StoredTensor(values, scale, record["bits"])
        if tensor.sha256() != record["sha256"] or tensor.nonzeros != record["nonzeros"]:
            raise ArtifactError(f"{name} of {WEIGHTS} decodes to other values than were stored. Copy it again.")
        tensors[name] = tensor
    return {name: tensors[name] for name in records}


def check_weights(data: memoryview, records: dict[str, Any], *, has_scales_apart: bool) -> dict[str, str]:
    """Compare the file's header and each packet's with what was recorded; nothing is decoded or allocated.

    Args:
        data: The file.
        records: What `write_weights` returned.
        has_scales_apart: Whether scales are entries of their own, as before format version 6.

    Returns:
        Other names of tied weights, each with the name under which the weight is stored.

    Raises:
        ArtifactError: a tensor is missing, unexpected, or has another shape, dtype or size.
    """
    header = read_header(data)
    expected = _entry_names(records, has_scales_apart)
    for name in sorted(expected ^ set(header.entries)):
        kind = "is missing from" if name in expected else "is not expected in"
        raise ArtifactError(f"The tensor {name} {kind} {WEIGHTS}. Copy the artifact again.")
    for name, record in records.items():
        shape, has_scale = tuple(record["shape"]), record["bits"] <= 8
        apart = header.entries[_scale(name)] if has_scales_apart and has_scale else None
        try:
            found, scale = _peek_entry(data, header.entries[name], apart, has_scale=has_scale)
        except ArtifactError as error:
            raise ArtifactError(f"{name} of {WEIGHTS}: {error}") from None
        if has_scale and not (scale and is_scale(str(scale[0]), scale[1], shape)):
            raise ArtifactError(
                f"{name} of {WEIGHTS} is not packed with a float16 scale for each of its rows or their groups."
            )
        size = sum(entry.end - entry.start for entry in (header.entries[name], apart) if entry is not None)
        if found != (stored_dtype(record["bits"]), shape) or size != record["bytes"]:
            raise ArtifactError(f"{name} of {WEIGHTS} is {found[0]} {found[1]}, but was recorded as {record!r}.")
    aliases = parse_object(header.metadata.get("aliases", "{}").encode(), f"the aliases of {WEIGHTS}")
    for alias, name in aliases.items():
        if alias in expected or not isinstance(name, str) or name not in records:
            raise ArtifactError(f"{alias} of {WEIGHTS} is tied to {name!r}, which cannot be.")
    return dict(aliases)


def _entry_names(records: dict[str, Any], has_scales_apart: bool) -> set[str]:
    return set(records) | {_scale(name) for name, one in records.items() if one["bits"] <= 8 and has_scales_apart}


def _scale(name: str) -> str:
    return f"{name}.scale"


def _check_names(tensors: dict[str, StoredTensor], aliases: dict[str, str]) -> None:
    for alias, name in aliases.items():
        if alias in tensors:
            raise ArtifactError(f"{alias} is the name of two things in one artifact. Rename the tensor.")
        if name not in tensors:
            raise ArtifactError(f"{alias} is tied to {name}, but no such tensor is stored.")


def _peek_entry(data: memoryview, entry: Entry, apart: Entry | None, *, has_scale: bool) -> tuple[_Kind, _Kind | None]:
    """Dtype and shape of a tensor and of its scale, from the entries' and the packets' headers alone."""
    if entry.dtype != "U8":
        return (_FLOATS.get(entry.dtype), entry.shape), None
    if apart is not None or not has_scale:
        return peek(data[entry.start : entry.end]), None if apart is None else (_FLOATS.get(apart.dtype), apart.shape)
    scale, values = map(peek, _scale_and_values(data, entry))
    return values, scale


def _scale_and_values(data: memoryview | FileBytes, entry: Entry) -> tuple[memoryview, memoryview]:
    """The packets of a tensor of integers: its scale's and its own."""
    reader = Reader(data[entry.start : entry.end])
    scale = reader.take(reader.varint())
    return scale, reader.take(reader.left)


def _decode_entry(data: memoryview | FileBytes, entry: Entry) -> np.ndarray:
    body = data[entry.start : entry.end]
    if entry.dtype == "U8":
        return decode(body)
    # A copy: what is left of the file would keep all of it in memory.
    return np.frombuffer(body, dtype=_FLOATS[entry.dtype].newbyteorder("<")).reshape(entry.shape).copy()
