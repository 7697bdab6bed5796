"""The weights file: a safetensors container of packed tensors, and of floats that packing makes no smaller.

A packed tensor is one U8 entry under its own name (a packet, which describes itself), its scale the F16 entry
`<name>.scale`; others are plain F16 or F32 entries. Tied weights are stored once; their other names are in
the container's metadata.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from multipress.errors import ArtifactError
from multipress.packing.container import Entry, read_header, write_container
from multipress.packing.packet import decode, encode, peek
from multipress.packing.strict_json import parse_object
from multipress.packing.tensor import StoredTensor, is_scale, stored_dtype

__all__ = ["WEIGHTS", "check_weights", "read_tensors", "write_weights"]

WEIGHTS = "model.safetensors"
_FLOAT_ENTRIES = {16: "F16", 32: "F32"}


def write_weights(tensors: dict[str, StoredTensor], aliases: dict[str, str]) -> tuple[bytes, dict[str, Any]]:
    """Pack tensors into one file.

    Args:
        tensors: Weights by name; tied weights once.
        aliases: Other names of tied weights, each with a name in `tensors`.

    Returns:
        The file, and of each tensor: shape, bits, nonzeros, bytes, entropy_bound_bytes, sha256.

    Raises:
        ArtifactError: two things would have one name, or an alias has no target.
    """
    _check_names(tensors, aliases)
    plain: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    packed: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    records = {}
    for name, tensor in sorted(tensors.items()):
        packet = encode(tensor.values)
        size = min(len(packet), tensor.values.nbytes)
        if tensor.scale is not None:
            size = len(packet) + tensor.scale.nbytes
            plain[_scale(name)] = ("F16", tensor.scale.shape, tensor.scale.tobytes())
        if tensor.scale is not None or len(packet) < tensor.values.nbytes:
            packed[name] = ("U8", (len(packet),), packet)
        else:
            plain[name] = (_FLOAT_ENTRIES[tensor.bits], tensor.values.shape, tensor.values.tobytes())
        records[name] = {
            "shape": list(tensor.values.shape),
            "bits": tensor.bits,
            "nonzeros": tensor.nonzeros,
            "bytes": size,
            "entropy_bound_bytes": tensor.entropy_bound_bytes,
            "sha256": tensor.sha256(),
        }
    # Wide items first, so that each tensor starts at a multiple of its item's size.
    wide_first = dict(sorted(plain.items(), key=lambda item: item[1][0], reverse=True))
    metadata = {"format": "multipress", "aliases": json.dumps(aliases, sort_keys=True)}
    return write_container(wide_first | packed, metadata), records


def read_tensors(data: memoryview, records: dict[str, Any]) -> dict[str, StoredTensor]:
    """Decode every tensor of a file that `check_weights` let pass.

    Args:
        data: The file.
        records: What `write_weights` returned.

    Raises:
        ArtifactError: a packet is damaged, or decodes to other values than were stored.
    """
    entries = read_header(data).entries
    if not _entry_names(records) <= set(entries):
        raise ArtifactError(f"{WEIGHTS} changed while it was read: tensors are missing. Open the artifact again.")
    tensors = {}
    for name, record in records.items():
        values = _decode_entry(data, entries[name])
        scale = _decode_entry(data, entries[_scale(name)]) if record["bits"] <= 8 else None
        tensor = StoredTensor(values, scale, record["bits"])
        if tensor.sha256() != record["sha256"] or tensor.nonzeros != record["nonzeros"]:
            raise ArtifactError(f"{name} of {WEIGHTS} decodes to other values than were stored. Copy it again.")
        tensors[name] = tensor
    return tensors


def check_weights(data: memoryview, records: dict[str, Any]) -> dict[str, str]:
    """Compare the file's header and each packet's with what was recorded; nothing is decoded or allocated.

    Args:
        data: The file.
        records: What `write_weights` returned.

    Returns:
        Other names of tied weights, each with the name under which the weight is stored.

    Raises:
        ArtifactError: a tensor is missing, unexpected, or has another shape, dtype or size.
    """
    header = read_header(data)
    expected = _entry_names(records)
    for name in sorted(expected ^ set(header.entries)):
        kind = "is missing from" if name in expected else "is not expected in"
        raise ArtifactError(f"The tensor {name} {kind} {WEIGHTS}. Copy the artifact again.")
    for name, record in records.items():
        entry, shape, size = header.entries[name], tuple(record["shape"]), 0
        if record["bits"] <= 8:
            scale = header.entries[_scale(name)]
            size = scale.end - scale.start
            fits = scale.dtype == "F16" and is_scale("float16", scale.shape, shape)
            if not fits or entry.dtype != "U8":
                raise ArtifactError(
                    f"{name} of {WEIGHTS} is not packed with a float16 scale for each of its rows or their groups."
                )
        if entry.dtype == "U8":
            found = peek(data[entry.start : entry.end])
        else:
            found = (np.dtype("float16" if entry.dtype == "F16" else "float32"), entry.shape)
        if found != (stored_dtype(record["bits"]), shape) or size + entry.end - entry.start != record["bytes"]:
            raise ArtifactError(f"{name} of {WEIGHTS} is {found[0]} {found[1]}, but was recorded as {record!r}.")
    aliases = parse_object(header.metadata.get("aliases", "{}").encode(), f"the aliases of {WEIGHTS}")
    for alias, name in aliases.items():
        if alias in expected or not isinstance(name, str) or name not in records:
            raise ArtifactError(f"{alias} of {WEIGHTS} is tied to {name!r}, which cannot be.")
    return dict(aliases)


def _entry_names(records: dict[str, Any]) -> set[str]:
    return set(records) | {_scale(name) for name, record in records.items() if record["bits"] <= 8}


def _scale(name: str) -> str:
    return f"{name}.scale"


def _check_names(tensors: dict[str, StoredTensor], aliases: dict[str, str]) -> None:
    taken = set(tensors)
    for name in [
        *aliases,
        *(_scale(name) for name, tensor in tensors.items() if tensor.scale is not None),
    ]:
        if name in taken:
            raise ArtifactError(f"{name} is the name of two things in one artifact. Rename the tensor.")
        taken.add(name)
    for alias, name in aliases.items():
        if name not in tensors:
            raise ArtifactError(f"{alias} is tied to {name}, but no such tensor is stored.")


def _decode_entry(data: memoryview, entry: Entry) -> np.ndarray:
    body = data[entry.start : entry.end]
    if entry.dtype == "U8":
        return decode(body)
    # A copy: what is left of the file would keep all of it in memory.
    return np.frombuffer(body, dtype="<f2" if entry.dtype == "F16" else "<f4").reshape(entry.shape).copy()
