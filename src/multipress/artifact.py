"""The artifact: one folder that holds a compressed model as it ships; written, read, verified without torch.

`model.safetensors` holds the packed tensors (see `multipress.packing.weights`), `graph.onnx.zst` the ONNX
model without weights. Packets carry no checksum: `manifest.json` has the SHA-256 of every file, and of every
tensor's decoded values, so that a file that changed and a decoder that differs are both noticed; a hash of
its own seals it. Hashes find accidents, not forgers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from multipress.block_shapes import read_block_shapes
from multipress.durable import write_bytes
from multipress.errors import ArtifactError
from multipress.manifest import (
    BLOCK_SHAPES_VERSION,
    FORMAT_VERSION,
    GRAPH,
    MANIFEST,
    MAX_GRAPH_BYTES,
    PACKED_SCALES_VERSION,
    SCALES_VERSION,
    TOKENIZER,
    check_manifest,
    has_scales_apart,
    is_translator,
    json_bytes,
    largest_files,
    manifest_bytes,
    sha256,
    unseal,
)
from multipress.packing import VERSION
from multipress.packing.folder import list_unexpected, open_bounded, read_bounded
from multipress.packing.stream import decompress
from multipress.packing.strict_json import parse_object
from multipress.packing.tensor import StoredTensor, round_floats
from multipress.packing.tokenizer import MAX_TOKENIZER_BYTES, pack_tokenizer, unpack_tokenizer
from multipress.packing.weights import WEIGHTS, check_weights, read_tensors, write_weights

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "MAX_TOKENIZER_BYTES",
    "METHOD",
    "Artifact",
    "StoredTensor",
    "is_artifacts",
    "max_tokens",
    "open_artifact",
    "round_floats",
    "write_artifact",
]

METHOD = "multipress"  # the `quant_method` of an artifact's config

_MAX_MANIFEST_BYTES = 16_000_000
# Smaller files stay in memory, the weights never: decoded they are there already.
_KEPT_BYTES = 4_000_000
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

    @property
    def writes(self) -> bool:
        """Whether it is a translator, which writes text, and no classifier."""
        return bool(self.manifest["facts"]["task"]["target"] == "text")

    @property
    def has_static_activations(self) -> bool:
        """Whether the training fixed a scale for what goes into each linear layer."""
        return has_static_activations(self.config)

    @property
    def rounds_activations(self) -> bool:
        """Whether what goes into linear layers is rounded to 8 bits, by the artifact's own graph too."""
        return _quantization(self.config).get("activation_bits") is not None

    def tensors(self) -> dict[str, StoredTensor]:
        """Every stored tensor by name, decoded; tied weights once. Each is compared with its hash.

        Raises:
            ArtifactError: the file changed since it was opened, or a packet is damaged.
        """
        trace, _ = self.opened.get(WEIGHTS, (None, None))
        if trace is None or trace != _trace(self.folder / WEIGHTS):
            _read_hashed(self.folder, WEIGHTS, self.manifest["files"][WEIGHTS])
        apart = has_scales_apart(self.manifest)
        with open_bounded(self.folder, WEIGHTS, self.weights_bytes) as data:
            return read_tensors(data, self.manifest["tensors"], has_scales_apart=apart)

    def dense_weights(self) -> dict[str, np.ndarray]:
        """Every weight by name as float32; tied names share one array."""
        tensors = self.tensors()
        weights = {name: tensors.pop(name).dense() for name in list(tensors)}  # codes go as floats come
        return weights | {alias: weights[name] for alias, name in self.aliases.items()}

    def tokenizer_json(self) -> str:
        """The tokenizer, as the content of a `tokenizer.json`."""
        name = TOKENIZER[self.manifest["format_version"]]
        data = self._read(name)
        return data.decode() if name.endswith(".json") else unpack_tokenizer(data)

    def graph(self) -> bytes:
        """The ONNX model without its weights.

        Raises:
            ArtifactError: it is a translator, which has none.
        """
        if self.writes:
            raise ArtifactError(
                f"{self.folder} is a translator; those are computed by torch and have no graph to run or export."
            )
        return decompress(self._read(GRAPH), MAX_GRAPH_BYTES, GRAPH)

    def _read(self, name: str) -> bytes:
        """A file's bytes, hashed again only where the file was touched since it was opened."""
        record = self.manifest["files"][name]
        trace, data = self.opened.get(name, (None, None))
        if trace is None or trace != _trace(self.folder / name):
            return _read_hashed(self.folder, name, record)
        # Small files are kept as they were hashed; a large one is read again, its trace being that of the hashed one.
        return read_bounded(self.folder, name, record["bytes"]) if data is None else data


def write_artifact(  # noqa: PLR0913 - the parts of an artifact, by name
    folder: Path,
    *,
    tensors: dict[str, StoredTensor],
    aliases: dict[str, str],
    config: dict[str, Any],
    tokenizer_json: str,
    graph: bytes | None,
    facts: dict[str, Any],
    block_shapes: Sequence[tuple[int, int]] | None = None,
) -> Artifact:
    """Write an artifact and open it again.

    The manifest goes last (an older one is removed first), so that a folder half written is refused.

    Args:
        folder: Made if needed; must hold nothing but an artifact.
        tensors: Weights by name; tied weights once.
        aliases: Other names of tied weights, each with a name in `tensors`.
        config: The model's configuration; `quantization_config` is added here, to `activation_scales` if there are any.
        tokenizer_json: Content of the tokenizer's `tokenizer.json`.
        graph: ONNX model whose external weights bear the names of `tensors`; None for a translator.
        facts: What the maker knows; see `Artifact.facts`.
        block_shapes: Heads and neurons of each block, where they differ from what the config says.

    Raises:
        ArtifactError: names clash, an alias has no target, more weights are said to be pruned than are zero,
            or the folder holds other files.
    """
    more = config.get("quantization_config", {})
    stored = {"quant_method": METHOD, "format_version": FORMAT_VERSION, **(facts.get("quantization") or {}), **more}
    if block_shapes is not None:
        stored["block_shapes"] = list(map(list, block_shapes))
    config = {**config, "quantization_config": stored}
    tokenizer = json.loads(tokenizer_json)
    weights, records = write_weights(tensors, aliases)
    files = {
        "config.json": json_bytes(config, indent=2),
        TOKENIZER[FORMAT_VERSION]: pack_tokenizer(tokenizer_json),
        "tokenizer_config.json": json_bytes(_tokenizer_config(tokenizer, facts), indent=2),
        **({} if graph is None else {GRAPH: zstandard.ZstdCompressor(level=19).compress(graph)}),
        WEIGHTS: weights,
    }
    manifest = {
        "format_version": FORMAT_VERSION,
        "packing_version": VERSION,
        "facts": facts,
        "tensors": records,
        "files": {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()},
        "weights_bytes": len(weights),
        "package_bytes": 0,
    }
    check_manifest(manifest)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    older = {name for version in TOKENIZER for name in [*largest_files(version), GRAPH]}
    _check_listing(folder, older)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in older - set(files):
        (folder / name).unlink(missing_ok=True)
    for name, data in files.items():
        write_bytes(folder / name, data)
    write_bytes(folder / MANIFEST, manifest_bytes(manifest, sum(map(len, files.values()))))
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
    if not os.path.lexists(folder / MANIFEST):
        _check_is_no_other_folder(folder)
    sealed = read_bounded(folder, MANIFEST, _MAX_MANIFEST_BYTES)
    manifest = unseal(sealed)
    names = largest_files(manifest["format_version"], writes=is_translator(manifest))
    _check_listing(folder, set(names))
    check_manifest(manifest)
    # Before reading: what changes later has another trace.
    traces = {name: _trace(folder / name) for name in names}
    files = {name: _read_hashed(folder, name, manifest["files"][name]) for name in names}
    apart = has_scales_apart(manifest)
    aliases = check_weights(memoryview(files[WEIGHTS]), manifest["tensors"], has_scales_apart=apart)
    config = parse_object(files["config.json"], "config.json")
    if "auto_map" in config or not isinstance(config.get("model_type"), str):
        raise ArtifactError("config.json asks for code of its own (auto_map) or has no model_type. It is not ours.")
    _check_version(config, manifest["format_version"])
    total = sum(map(len, files.values())) + len(sealed)
    if manifest["package_bytes"] != total or manifest["weights_bytes"] != len(files[WEIGHTS]):
        raise ArtifactError(f"{MANIFEST} of {folder} states sizes that its files do not have ({total} bytes in all).")
    opened = {name: (traces[name], data if len(data) <= _KEPT_BYTES else None) for name, data in files.items()}
    opened[WEIGHTS] = (traces[WEIGHTS], None)
    return Artifact(folder, config, manifest, aliases, opened)


def _check_is_no_other_folder(folder: Path) -> None:
    """Raise `ArtifactError` for a folder without a manifest that is known to be something else."""
    if (folder / "config.json").is_file():
        raise ArtifactError(
            f"{folder} has no {MANIFEST}. It is a model of transformers, of which `multipress train` and `compress` "
            "make an artifact, or its writing was cut short."
        )
    inside = list(folder.glob("attempt-*/artifact"))
    if inside:
        newest = max(inside, key=lambda path: path.stat().st_mtime)
        raise ArtifactError(f"{folder} is the folder of a run. Its artifact is {newest}.")


def _check_version(config: dict[str, Any], version: int) -> None:
    """What only later versions have, they have; raises `ArtifactError` otherwise."""
    if version >= PACKED_SCALES_VERSION:
        return
    if has_static_activations(config) != (version == SCALES_VERSION):
        raise ArtifactError(f"config.json and {MANIFEST} differ in whether layers have scales of activations.")
    is_cut = read_block_shapes(config) is not None
    if is_cut != (version == BLOCK_SHAPES_VERSION) and version != SCALES_VERSION:
        raise ArtifactError(f"config.json and {MANIFEST} differ in whether blocks have lost heads or neurons.")


def _trace(path: Path) -> _Trace:
    """What a file system says of a file that differs once it was written to; None where there is no file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def has_static_activations(config: dict[str, Any]) -> bool:
    """Whether a `config.json` holds a scale for what goes into each linear layer."""
    return _quantization(config).get("activation_scales") is not None


def is_artifacts(config: Any) -> bool:
    """Whether what a `config.json` holds is an artifact's, which stores its weights in a way of its own."""
    return bool(_quantization(config).get("quant_method") == METHOD)


def _quantization(config: Any) -> dict[str, Any]:
    """The `quantization_config` of what a `config.json` holds; empty where there is none."""
    stored = config.get("quantization_config") if isinstance(config, dict) else None
    return stored if isinstance(stored, dict) else {}


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


def _check_listing(folder: Path, names: set[str]) -> None:
    unexpected = list_unexpected(folder, frozenset(names) | {MANIFEST} | _IGNORED)
    if unexpected:
        raise ArtifactError(f"{folder} holds {unexpected[0]}, which is no part of an artifact. Move it elsewhere.")


def _read_hashed(folder: Path, name: str, record: dict[str, Any]) -> bytes:
    data = read_bounded(folder, name, record["bytes"])
    if len(data) != record["bytes"] or sha256(data) != record["sha256"]:
        raise ArtifactError(f"{name} of {folder} is not the file that {MANIFEST} describes. Copy it again.")
    return data
