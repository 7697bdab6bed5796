"""The manifest of an artifact: what is in the folder, sealed by its own hash, and checked before it is relied on."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

from multipress.errors import ArtifactError
from multipress.packing import VERSION
from multipress.packing.strict_json import parse_object
from multipress.packing.tensor import BITS
from multipress.packing.tokenizer import MAX_TOKENIZER_BYTES
from multipress.packing.weights import WEIGHTS

__all__ = [
    "BLOCK_SHAPES_VERSION",
    "FORMAT_VERSION",
    "GRAPH",
    "MANIFEST",
    "MAX_GRAPH_BYTES",
    "TOKENIZER",
    "PACKED_SCALES_VERSION",
    "SCALES_VERSION",
    "check_manifest",
    "has_scales_apart",
    "is_translator",
    "json_bytes",
    "largest_files",
    "manifest_bytes",
    "sha256",
    "unseal",
]

FORMAT_VERSION = 7  # small integers have layouts of their own
# Read, and no more written. In 3 the tokenizer is packed; in 4 and 5 blocks may have lost heads or neurons, and in 5
# layers have scales of what goes into them; since 6 both may be so, and scales lie packed with their integers.
_OLDER = (3, 4, 5, 6)
BLOCK_SHAPES_VERSION, SCALES_VERSION, PACKED_SCALES_VERSION = 4, 5, 6
GRAPH = "graph.onnx.zst"
MANIFEST = "manifest.json"
# By the format version; these are read.
TOKENIZER = {2: "tokenizer.json"} | dict.fromkeys((*_OLDER, FORMAT_VERSION), "tokenizer.bin")
MAX_GRAPH_BYTES = 32_000_000
_MOST = 2**48  # bytes of a file, weights that were dropped
_MAX_LENGTH = 1_000_000
# Names become files' names when tensors are dumped.
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_FILE_RECORD = {"bytes": int, "sha256": str}
_TENSOR_RECORD = {
    "shape": list,
    "bits": int,
    "nonzeros": int,
    "bytes": int,
    "entropy_bound_bytes": int,
    "sha256": str,
}


def largest_files(version: int, *, writes: bool = False) -> dict[str, int]:
    """Each hashed file and the most bytes it may have; the weights are bounded by what the manifest declares.

    Args:
        version: The format's.
        writes: Whether it is a translator, which has no graph.
    """
    return {
        "config.json": 1_000_000,
        TOKENIZER[version]: MAX_TOKENIZER_BYTES,
        "tokenizer_config.json": 1_000_000,
        **({} if writes else {GRAPH: MAX_GRAPH_BYTES}),
        WEIGHTS: 2**48,
    }


def has_scales_apart(manifest: dict[str, Any]) -> bool:
    """Whether the scales are entries of their own in the weights file."""
    return int(manifest["format_version"]) < PACKED_SCALES_VERSION


def is_translator(manifest: dict[str, Any]) -> bool:
    """Whether the manifest, which need not be right, says that its model writes text."""
    facts = manifest.get("facts")
    task = facts.get("task") if isinstance(facts, dict) else None
    return isinstance(task, dict) and task.get("target") == "text"


def sha256(data: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    """A value as JSON, characters as they are, no NaN."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False).encode()


def manifest_bytes(manifest: dict[str, Any], other_bytes: int) -> bytes:
    """The manifest with the size of the package, its own size counted, and sealed by its own hash."""
    size = 0
    while len(data := _seal(manifest | {"package_bytes": other_bytes + size})) != size:
        size = len(data)
    return data


def _seal(manifest: dict[str, Any]) -> bytes:
    return json_bytes(manifest | {"sha256": sha256(json_bytes(manifest))})


def unseal(data: bytes) -> dict[str, Any]:
    """The manifest without its seal.

    Raises:
        ArtifactError: it is of a version that is not read here, or was changed.
    """
    manifest = parse_object(data, MANIFEST)
    _check_versions(manifest)  # first: another format may be sealed in another way
    manifest.pop("sha256", None)
    try:
        is_whole = _seal(manifest) == data
    except (ValueError, RecursionError):  # infinite numbers, half characters, endless nesting
        is_whole = False
    if not is_whole:
        raise ArtifactError(f"{MANIFEST} was changed after it was written. Copy the artifact again.")
    return manifest


def _check_versions(manifest: dict[str, Any]) -> None:
    for key, known in (("format_version", tuple(TOKENIZER)), ("packing_version", (VERSION,))):
        found = manifest.get(key)
        if type(found) is not int or found not in known:
            is_old = type(found) is int and found < known[0]
            advice = "Store the model again." if is_old else "Update multipress."
            raise ArtifactError(
                f"{MANIFEST} has {key} {found!r}; {' and '.join(map(str, known))} can be read here. {advice}"
            )


def check_manifest(manifest: dict[str, Any]) -> None:
    """Raise `ArtifactError` unless the manifest holds the kinds of values that `write_artifact` writes."""
    if not all(isinstance(manifest.get(key), dict) for key in ("facts", "tensors", "files")):
        raise ArtifactError(f"{MANIFEST} lacks one of the tables facts, tensors, files.")
    if not all(type(manifest.get(key)) is int for key in ("weights_bytes", "package_bytes")):
        raise ArtifactError(f"{MANIFEST} lacks one of the sizes weights_bytes, package_bytes.")
    names = largest_files(manifest["format_version"], writes=is_translator(manifest))
    if set(manifest["files"]) != set(names):
        raise ArtifactError(f"{MANIFEST} lists the files {sorted(manifest['files'])}, not {sorted(names)}.")
    for name, record in manifest["files"].items():
        if not _has_kinds(record, _FILE_RECORD) or record["bytes"] > names[name]:
            raise ArtifactError(f"{MANIFEST} describes the file {name} as {record!r}, which cannot be.")
    _check_records(manifest["tensors"])
    _check_facts(manifest["facts"], manifest["tensors"])


def _check_records(records: dict[str, Any]) -> None:
    """Raise `ArtifactError` unless each tensor's name and record can be."""
    for name, record in records.items():
        if not _TENSOR_NAME.fullmatch(name):
            raise ArtifactError(f"{MANIFEST} has a tensor named {name!r}; letters, digits, . _ - are right.")
        if not _has_kinds(record, _TENSOR_RECORD) or not _is_width(record["bits"]) or not _is_shape(record["shape"]):
            raise ArtifactError(f"{MANIFEST} describes the tensor {name} as {record!r}, which cannot be.")


def _check_facts(facts: dict[str, Any], records: dict[str, Any]) -> None:
    """Raise `ArtifactError` unless the facts that are relied on can be true."""
    max_length = facts.get("max_length")
    if type(max_length) is not int or not 3 <= max_length <= _MAX_LENGTH:
        raise ArtifactError(f"{MANIFEST} states the max_length {max_length!r}, but a text has 3 tokens or more.")
    if not _is_task(facts.get("task")):
        raise ArtifactError(f"{MANIFEST} states the task {facts.get('task')!r}, which cannot be.")
    dropped = facts.get("dropped", 0)
    if type(dropped) is not int or not 0 <= dropped < _MOST:
        raise ArtifactError(f"{MANIFEST} states {dropped!r} as the number of weights that were dropped.")
    quantization = facts.get("quantization")
    if quantization is not None and not (isinstance(quantization, dict) and _is_width(quantization.get("bits"))):
        raise ArtifactError(f"{MANIFEST} states the quantization {quantization!r}, which cannot be.")
    pruned = facts.get("pruned", {})
    if not isinstance(pruned, dict):
        raise ArtifactError(f"{MANIFEST} states {pruned!r} as the number of pruned weights of each tensor.")
    for name, count in pruned.items():
        record = records.get(name, {"shape": [0], "nonzeros": 0})
        num_zeros = math.prod(record["shape"]) - record["nonzeros"]
        if type(count) is not int or not 0 <= count <= num_zeros:
            raise ArtifactError(f"{count!r} weights of {name} are said to be pruned, but {num_zeros} are zero.")


def _has_kinds(record: Any, kinds: dict[str, type]) -> bool:
    return (
        isinstance(record, dict)
        and set(record) == set(kinds)
        and all(
            type(record[key]) is kind and (kind is not int or 0 <= record[key] < _MOST) for key, kind in kinds.items()
        )
    )


def _is_width(bits: Any) -> bool:
    return bits is None or (type(bits) is int and bits in BITS)


def _is_shape(shape: list[Any]) -> bool:
    return len(shape) <= 8 and all(type(size) is int and 0 <= size < 2**40 for size in shape)


def _is_task(task: Any) -> bool:
    if not isinstance(task, dict) or task.get("target") not in ("classes", "number", "text"):
        return False
    return all(
        isinstance(task.get(key), list) and all(isinstance(text, str) for text in task[key])
        for key in ("labels", "metrics")
    )
