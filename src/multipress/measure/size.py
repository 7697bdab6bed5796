"""The sizes of an artifact: the bytes on disk, and the ideal size that papers report."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from multipress.artifact import Artifact
from multipress.errors import ArtifactError
from multipress.manifest import GRAPH, MANIFEST, TOKENIZER
from multipress.packing.weights import WEIGHTS
from multipress.records import Measurement

__all__ = ["group_sizes", "ideal_bytes", "manifest_parts", "measure_size"]

_FLOAT_BYTES = 4
# The first that fits: BERT's attention has an `output` too.
_GROUPS = {
    "embeddings": re.compile(r"embeddings|^model\.shared\."),
    "attention": re.compile(r"\.attention\.|_attn[._]|\.attn|\.sa_layer_norm\."),
    "feed-forward": re.compile(r"\.(layer|layers)\.\d+\.|\.final_norm\."),
}
_FILE_GROUPS = {
    WEIGHTS: "header of the weights",
    **dict.fromkeys((*TOKENIZER.values(), "tokenizer_config.json"), "tokenizer"),
    GRAPH: "graph",
    "config.json": "config",
    MANIFEST: "manifest",
}


def measure_size(artifact: Artifact) -> list[Measurement]:
    """Every size of an artifact, in bytes or counts, from its manifest.

    - `weights_bytes`: the file of the weights;
    - `package_bytes`: all that must be shipped to predict;
    - `ideal_bytes`: see `ideal_bytes`;
    - `dense_bytes`: 4 bytes a parameter of the model that was compressed, those counted whose rows are gone;
    - `entropy_bound_bytes`: order-0 entropy of the stored integers, the rest at its stored width;
    - `num_parameters`, `nonzeros`, `num_pruned`: weights stored, of them not zero, and removed by pruning;
    - where some are removed, `sparsity`: their share of all, and `sparsity_prunable`: of those that pruning ranked.

    Raises:
        ArtifactError: more weights are said to be pruned than are zero.
    """
    records = artifact.manifest["tensors"].values()
    num_parameters = sum(math.prod(record["shape"]) for record in records)
    sizes = {
        "weights_bytes": artifact.weights_bytes,
        "package_bytes": artifact.package_bytes,
        "ideal_bytes": ideal_bytes(artifact),
        "dense_bytes": _FLOAT_BYTES * (num_parameters + artifact.facts.get("dropped", 0)),
        "entropy_bound_bytes": sum(record["entropy_bound_bytes"] for record in records),
    }
    counts = {
        "num_parameters": num_parameters,
        "nonzeros": sum(record["nonzeros"] for record in records),
        "num_pruned": sum(artifact.facts.get("pruned", {}).values()),
    }
    run_id = str(artifact.facts.get("run_id", ""))
    pruned = artifact.facts.get("pruned", {})
    ranked = sum(math.prod(artifact.manifest["tensors"][name]["shape"]) for name in pruned)
    shares = {}
    if counts["num_pruned"]:
        shares = {
            "sparsity": counts["num_pruned"] / num_parameters,
            "sparsity_prunable": counts["num_pruned"] / ranked,
        }
    return [
        *(Measurement(run_id, name, value, "share") for name, value in shares.items()),
        *(Measurement(run_id, name, value, "bytes") for name, value in sizes.items()),
        *(Measurement(run_id, name, value, "count") for name, value in counts.items()),
    ]


def group_sizes(artifact: Artifact) -> list[dict[str, Any]]:
    """The package by parts: groups of tensors, what holds them together, and the other files.

    Returns:
        Rows, the largest first, of `group`, `weights`, `bits_per_weight` (None without weights), `nonzeros`, `bytes`,
        `entropy_bound_bytes` and `share` of the package's bytes.
    """
    return manifest_parts(artifact.manifest)


def manifest_parts(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `group_sizes` from a manifest alone."""
    sums: dict[str, list[int]] = {}
    for name, record in manifest["tensors"].items():
        total = sums.setdefault(_group(name), [0, 0, 0, 0])
        values = (math.prod(record["shape"]), record["nonzeros"], record["bytes"], record["entropy_bound_bytes"])
        total[:] = [old + new for old, new in zip(total, values, strict=True)]
    files = {name: record["bytes"] for name, record in manifest["files"].items()}
    files[MANIFEST] = manifest["package_bytes"] - sum(files.values())
    files[WEIGHTS] -= sum(total[2] for total in sums.values())
    for name, size in files.items():
        total = sums.setdefault(_FILE_GROUPS[name], [0, 0, 0, 0])
        total[:] = [total[0], total[1], total[2] + size, total[3] + size]
    rows = [
        {
            "group": name,
            "weights": weights,
            "bits_per_weight": 8 * size / weights if weights else None,
            "nonzeros": nonzeros,
            "bytes": size,
            "entropy_bound_bytes": bound,
            "share": size / manifest["package_bytes"],
        }
        for name, (weights, nonzeros, size, bound) in sums.items()
    ]
    return sorted(rows, key=lambda row: (-row["bytes"], row["group"]))


def _group(name: str) -> str:
    """Embeddings, attention, feed-forward or head, by a tensor's name in any of the families."""
    return next((group for group, pattern in _GROUPS.items() if pattern.search(name)), "head")


def ideal_bytes(artifact: Artifact) -> int:
    """The size without any cost for where the zeros are: bytes a weight times weights that were not pruned.

    A tensor of codes counts its own bits. Every other weight, biases and norms too, counts the bits of the
    linear weights where these are quantized, else 4 bytes. Only what pruning removed is left out, not zeros
    that rounding made.

    Raises:
        ArtifactError: more weights of a tensor are said to be pruned than are zero.

    References:
        Movva et al. (2022), the sizes of Figure 1; the formula is inferred. Differs: they have one width for
        all weights, here embeddings may have their own.
    """
    records = artifact.manifest["tensors"]
    pruned = artifact.facts.get("pruned", {})
    bits = (artifact.facts.get("quantization") or {}).get("bits")
    other_bits = 8 * _FLOAT_BYTES if bits is None else bits
    total_bits = sum(_kept(name, record, pruned) * _bits(record, other_bits) for name, record in records.items())
    return math.ceil(total_bits / 8)


def _bits(record: dict[str, Any], other_bits: int) -> int:
    return int(record["bits"]) if record["bits"] <= 8 else other_bits


def _kept(name: str, record: dict[str, Any], pruned: dict[str, int]) -> int:
    size, num_pruned = int(math.prod(record["shape"])), pruned.get(name, 0)
    if num_pruned > size - record["nonzeros"]:
        raise ArtifactError(
            f"{num_pruned} weights of {name} are said to be pruned, but {size - record['nonzeros']} are zero."
        )
    return size - num_pruned
