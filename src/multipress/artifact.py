"""The artifact: one folder that holds a compressed model as it ships; written, read, verified without torch.

`model.safetensors` holds the packed tensors (see `multipress.packing.weights`), `graph.onnx.zst` the ONNX
model without weights. Packets carry no checksum: `manifest.json` has the SHA-256 of every file, and of every
tensor's decoded values, so that a file that changed and a decoder that differs are both noticed; a hash of
its own seals it. Hashes find accidents, not forgers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from multipress.durable import write_bytes
from multipress.errors import ArtifactError
from multipress.packing import VERSION
from multipress.packing.folder import list_unexpected, read_bounded
from multipress.packing.strict_json import parse_object
from multipress.packing.tensor import BITS, StoredTensor, round_floats
from multipress.packing.weights import WEIGHTS, check_weights, read_tensors, write_weights

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "MAX_TOKENIZER_BYTES",
    "Artifact",
    "StoredTensor",
    "max_tokens",
    "open_artifact",
    "round_floats",
    "write_artifact",
]

FORMAT_VERSION = 2  # the manifest is sealed by its own hash
MAX_TOKENIZER_BYTES = 64_000_000
GRAPH = "graph.onnx.zst"
MANIFEST = "manifest.json"
# Each hashed file and the most bytes it may have; the weights are bounded by what the manifest declares.
_MAX_BYTES = {
    "config.json": 1_000_000,
    "tokenizer.json": MAX_TOKENIZER_BYTES,
    "tokenizer_config.json": 1_000_000,
    GRAPH: 32_000_000,
    WEIGHTS: 2**48,
}
_MAX_MANIFEST_BYTES = 16_000_000
_MAX_GRAPH_BYTES = 32_000_000
_MAX_LENGTH = 1_000_000
# Smaller files stay in memory, the weights never: decoded they are there already.
_KEPT_BYTES = 4_000_000
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
# The model card is written after measuring; the others come with copies from a hub or git. None is read.
_IGNORED = frozenset({"README.md", ".gitattributes", ".git", ".cache"})

_Trace = tuple[int, ...] | None


@dataclass(frozen=True)
class Artifact:
    """An opened artifact; make one with `open_artifact` or `write_artifact`.

    Args:
        folder: Where it lies.
        config: The model's `config.json`.
        manifest: `facts`, `tensors`, `files`, `weights_bytes`, `package_bytes`.
        aliases: Other names of tied weights, each with the name under which the weight is stored.
        opened: Of each file how to tell that it changed, and its bytes where they are few.
    """

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    aliases: dict[str, str]
    opened: dict[str, tuple[_Trace, bytes | None]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def facts(self) -> dict[str, Any]:
        """What the maker said: run_id, spec, task, max_length, pruned, quantization, versions."""
        return dict(self.manifest["facts"])

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a row that the model has positions for; None where its config does not say."""
        return max_tokens(self.config)

    @property
    def weights_bytes(self) -> int:
        """Bytes of `model.safetensors`."""
        return int(self.manifest["weights_bytes"])

    @property
    def package_bytes(self) -> int:
        """Bytes of all files that must be shipped to predict."""
        return int(self.manifest["package_bytes"])

    def tensors(self) -> dict[str, StoredTensor]:
        """Every stored tensor by name, decoded; tied weights once.

        Raises:
            ArtifactError: the file changed since it was opened, or a packet is damaged.
        """
        return read_tensors(memoryview(self._read(WEIGHTS)), self.manifest["tensors"])

    def dense_weights(self) -> dict[str, np.ndarray]:
        """Every weight by name as float32; tied names share one array."""
        weights = {name: tensor.dense() for name, tensor in self.tensors().items()}
        return weights | {alias: weights[name] for alias, name in self.aliases.items()}

    def tokenizer_json(self) -> str:
        """Content of `tokenizer.json`."""
        return self._read("tokenizer.json").decode()

    def graph(self) -> bytes:
        """The ONNX model without its weights."""
        return _unpack_graph(self._read(GRAPH))

    def _read(self, name: str) -> bytes:
        """A file's bytes, hashed again only where the file was touched since it was opened."""
        record = self.manifest["files"][name]
        trace, data = self.opened.get(name, (None, None))
        if trace is None or trace != _trace(self.folder / name):
            return _read_hashed(self.folder, name, record)
        # Where a clock was too coarse to tell: these bytes were hashed, and weights are hashed as they are decoded.
        return read_bounded(self.folder, name, record["bytes"]) if data is None else data


def write_artifact(  # noqa: PLR0913 - the seven parts of an artifact, by name
    folder: Path,
    *,
    tensors: dict[str, StoredTensor],
    aliases: dict[str, str],
    config: dict[str, Any],
    tokenizer_json: str,
    graph: bytes,
    facts: dict[str, Any],
) -> Artifact:
    """Write an artifact and open it again.

    The manifest goes last (an older one is removed first), so that a folder half written is refused.

    Args:
        folder: Made if needed; must hold nothing but an artifact.
        tensors: Weights by name; tied weights once.
        aliases: Other names of tied weights, each with a name in `tensors`.
        config: The model's configuration; `quantization_config` is added here.
        tokenizer_json: Content of the tokenizer's `tokenizer.json`.
        graph: ONNX model whose external weights bear the names of `tensors`.
        facts: What the maker knows; see `Artifact.facts`.

    Raises:
        ArtifactError: names clash, an alias has no target, more weights are said to be pruned than are zero,
            or the folder holds other files.
    """
    quantization = facts.get("quantization") or {}
    config = {
        **config,
        "quantization_config": {
            "quant_method": "multipress",
            "format_version": FORMAT_VERSION,
            **quantization,
        },
    }
    tokenizer = json.loads(tokenizer_json)
    weights, records = write_weights(tensors, aliases)
    files = {
        "config.json": _json_bytes(config, indent=2),
        "tokenizer.json": _json_bytes(tokenizer),
        "tokenizer_config.json": _json_bytes(_tokenizer_config(tokenizer, facts), indent=2),
        GRAPH: zstandard.ZstdCompressor(level=19).compress(graph),
        WEIGHTS: weights,
    }
    manifest = {
        "format_version": FORMAT_VERSION,
        "packing_version": VERSION,
        "facts": facts,
        "tensors": records,
        "files": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in files.items()},
        "weights_bytes": len(weights),
        "package_bytes": 0,
    }
    _check_manifest(manifest)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_listing(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, data in files.items():
        write_bytes(folder / name, data)
    write_bytes(folder / MANIFEST, _manifest_bytes(manifest, sum(map(len, files.values()))))
    return open_artifact(folder)


def open_artifact(folder: Path) -> Artifact:
    """Open an artifact strictly: every file's size and hash, every header against the manifest.

    Nothing is decoded here, no code from the folder runs, and no link is followed.

    Args:
        folder: The artifact.

    Raises:
        ArtifactError: something is missing, unexpected, mismatched, damaged or too new; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtifactError(f"There is no artifact {folder}: it is not a folder.")
    _check_listing(folder)
    manifest_bytes = read_bounded(folder, MANIFEST, _MAX_MANIFEST_BYTES)
    manifest = _unseal(manifest_bytes)
    _check_manifest(manifest)
    # Before reading: what changes later has another trace.
    traces = {name: _trace(folder / name) for name in _MAX_BYTES}
    files = {name: _read_hashed(folder, name, manifest["files"][name]) for name in _MAX_BYTES}
    aliases = check_weights(memoryview(files[WEIGHTS]), manifest["tensors"])
    config = parse_object(files["config.json"], "config.json")
    if "auto_map" in config or not isinstance(config.get("model_type"), str):
        raise ArtifactError("config.json asks for code of its own (auto_map) or has no model_type. It is not ours.")
    total = sum(map(len, files.values())) + len(manifest_bytes)
    if manifest["package_bytes"] != total or manifest["weights_bytes"] != len(files[WEIGHTS]):
        raise ArtifactError(f"{MANIFEST} of {folder} states sizes that its files do not have ({total} bytes in all).")
    opened = {name: (traces[name], data if len(data) <= _KEPT_BYTES else None) for name, data in files.items()}
    opened[WEIGHTS] = (traces[WEIGHTS], None)
    return Artifact(folder, config, manifest, aliases, opened)


def _trace(path: Path) -> _Trace:
    """What a file system says of a file that differs once it was written to; None where there is no file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json_bytes(value: Any, indent: int | None = None) -> bytes:
    separators = (",", ":") if indent is None else None
    return json.dumps(value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False).encode()


def max_tokens(config: Mapping[str, Any]) -> int | None:
    """Most tokens of a row by what a `config.json` holds; RoBERTa counts positions from the one after the padding's."""
    positions, pad = config.get("max_position_embeddings"), config.get("pad_token_id")
    before = pad + 1 if config.get("model_type") in ("roberta", "xlm-roberta") and isinstance(pad, int) else 0
    return positions - before if isinstance(positions, int) else None


def _tokenizer_config(tokenizer: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    added = {token["content"] for token in tokenizer.get("added_tokens", []) if token.get("special")}
    # BERT's names, then RoBERTa's.
    names = {
        "pad_token": ("[PAD]", "<pad>"),
        "unk_token": ("[UNK]", "<unk>"),
        "cls_token": ("[CLS]", "<s>"),
        "sep_token": ("[SEP]", "</s>"),
        "mask_token": ("[MASK]", "<mask>"),
    }
    known = {key: token for key, tokens in names.items() for token in tokens if token in added}
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": facts["max_length"], **known}


def _manifest_bytes(manifest: dict[str, Any], other_bytes: int) -> bytes:
    """The manifest with the size of the package, its own size counted, and sealed by its own hash."""
    size = 0
    while len(data := _seal(manifest | {"package_bytes": other_bytes + size})) != size:
        size = len(data)
    return data


def _seal(manifest: dict[str, Any]) -> bytes:
    return _json_bytes(manifest | {"sha256": _sha256(_json_bytes(manifest))})


def _unseal(data: bytes) -> dict[str, Any]:
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


def _check_listing(folder: Path) -> None:
    unexpected = list_unexpected(folder, frozenset(_MAX_BYTES) | {MANIFEST} | _IGNORED)
    if unexpected:
        raise ArtifactError(f"{folder} holds {unexpected[0]}, which is no part of an artifact. Move it elsewhere.")


def _read_hashed(folder: Path, name: str, record: dict[str, Any]) -> bytes:
    data = read_bounded(folder, name, min(record["bytes"], _MAX_BYTES[name]))
    if len(data) != record["bytes"] or _sha256(data) != record["sha256"]:
        raise ArtifactError(f"{name} of {folder} is not the file that {MANIFEST} describes. Copy it again.")
    return data


def _unpack_graph(data: bytes) -> bytes:
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= _MAX_GRAPH_BYTES:
            raise ArtifactError(f"{GRAPH} declares {size} bytes; at most {_MAX_GRAPH_BYTES} are right.")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArtifactError(f"{GRAPH} cannot be decompressed: {error}.") from None


def _check_versions(manifest: dict[str, Any]) -> None:
    for key, known in (("format_version", FORMAT_VERSION), ("packing_version", VERSION)):
        found = manifest.get(key)
        if type(found) is not int or found != known:
            is_old = type(found) is int and found < known
            advice = "Store the model again." if is_old else "Update multipress."
            raise ArtifactError(f"{MANIFEST} has {key} {found!r}; {known} is read here. {advice}")


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Raise `ArtifactError` unless the manifest holds the kinds of values that `write_artifact` writes."""
    if not all(isinstance(manifest.get(key), dict) for key in ("facts", "tensors", "files")):
        raise ArtifactError(f"{MANIFEST} lacks one of the tables facts, tensors, files.")
    if not all(type(manifest.get(key)) is int for key in ("weights_bytes", "package_bytes")):
        raise ArtifactError(f"{MANIFEST} lacks one of the sizes weights_bytes, package_bytes.")
    if set(manifest["files"]) != set(_MAX_BYTES):
        raise ArtifactError(f"{MANIFEST} lists the files {sorted(manifest['files'])}, not {sorted(_MAX_BYTES)}.")
    for name, record in manifest["files"].items():
        if not _has_kinds(record, _FILE_RECORD):
            raise ArtifactError(f"{MANIFEST} describes the file {name} as {record!r}, which cannot be.")
    _check_records(manifest["tensors"])
    _check_facts(manifest["facts"], manifest["tensors"])


def _check_records(records: dict[str, Any]) -> None:
    """Raise `ArtifactError` unless each tensor's name and record can be."""
    for name, record in records.items():
        if not _TENSOR_NAME.fullmatch(name):
            raise ArtifactError(f"{MANIFEST} has a tensor named {name!r}; letters, digits, . _ - are right.")
        if not _has_kinds(record, _TENSOR_RECORD) or record["bits"] not in BITS or not _is_shape(record["shape"]):
            raise ArtifactError(f"{MANIFEST} describes the tensor {name} as {record!r}, which cannot be.")


def _check_facts(facts: dict[str, Any], records: dict[str, Any]) -> None:
    """Raise `ArtifactError` unless the facts that are relied on can be true."""
    max_length = facts.get("max_length")
    if type(max_length) is not int or not 3 <= max_length <= _MAX_LENGTH:
        raise ArtifactError(f"{MANIFEST} states the max_length {max_length!r}, but a text has 3 tokens or more.")
    if not _is_task(facts.get("task")):
        raise ArtifactError(f"{MANIFEST} states the task {facts.get('task')!r}, which cannot be.")
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
        and all(type(record[key]) is kind and (kind is not int or record[key] >= 0) for key, kind in kinds.items())
    )


def _is_shape(shape: list[Any]) -> bool:
    return len(shape) <= 8 and all(type(size) is int and 0 <= size < 2**40 for size in shape)


def _is_task(task: Any) -> bool:
    if not isinstance(task, dict) or task.get("target") not in ("classes", "number"):
        return False
    return all(
        isinstance(task.get(key), list) and all(isinstance(text, str) for text in task[key])
        for key in ("labels", "metrics")
    )
