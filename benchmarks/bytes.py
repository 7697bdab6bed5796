"""What one fine-tuned model takes stored in every usual way, and ours: bytes, score of what is stored, time to decode.

    python benchmarks/bytes.py DENSE NAME=OURS ... --task sst2 -o results/bytes.json

DENSE is the folder of a classifier in 32-bit floats, as transformers writes it; the rivals store it. Each NAME=OURS
is an artifact of the same model that was trained further with some method, stored again by this version. Every row is
what lies on disk, with and without zstandard at level 19 behind it; the score is that of the model that is read back
from those bytes. torchao (`pip install --no-deps torchao`, or `--without-torchao`) keeps a byte for each weight of 4
bits; here two are written into one. `decode` is from bytes in memory to 32-bit floats, of ONNX Runtime's file to a
session, the fastest of three; `MB/s` is that in weights a second: megabytes if each took one byte. The limit: `bound`
is the order-0 entropy of the stored integers with their side values as stored; what a row takes above it is in the
last column.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import zstandard
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import nn

from multipress.artifact import Artifact, open_artifact
from multipress.checkpoint import load_model
from multipress.dissect.side import stored
from multipress.measure import measure_size
from multipress.measure.rival import rival_model
from multipress.models import load_pretrained
from multipress.packing.weights import read_tensors, write_weights
from multipress.reproducibility import computer, library_versions
from multipress.runtime import Predictor
from multipress.runtime.graph_file import read_graph
from multipress.runtime.graph_writer import write_graph
from multipress.runtime.integer_graph import float_graph
from multipress.runtime.session import OnnxSession
from multipress.spec import DataSpec
from multipress.tasks import Split, Task, load_task, load_validation
from multipress.tasks.metrics import score_logits

LEVEL = 19


def session_of(artifact: Artifact, weights: dict[str, np.ndarray]) -> OnnxSession:
    """Floats in the artifact's graph."""
    floats = {name: array.astype(np.float32) for name, array in weights.items()}
    return OnnxSession(write_graph(float_graph(read_graph(artifact.graph()), floats)))


@dataclass(frozen=True)
class Dense:
    """The dense model: its 32-bit floats by name, and the artifact of it, for graph and tokenizer."""

    floats: dict[str, np.ndarray]
    artifact: Artifact

    def session(self, weights: dict[str, np.ndarray]) -> OnnxSession:
        return session_of(self.artifact, weights)


def dense_model(folder: str, beside: Path) -> Dense:
    artifact = open_artifact(stored(folder, beside))
    labels = tuple(artifact.facts["task"]["labels"])
    state = load_pretrained(folder, label_names=labels, seed=0).model.state_dict()
    return Dense({name: state[name].float().numpy() for name in artifact.dense_weights()}, artifact)


def in_floats(dense: Dense, kind: type) -> tuple[bytes, Callable, Callable]:
    """Bytes, what reads them, and the session of what was read."""

    def decode(data: bytes) -> dict[str, np.ndarray]:
        return {name: array.astype(np.float32) for name, array in load_arrays(data).items()}

    return save_arrays({name: array.astype(kind) for name, array in dense.floats.items()}), decode, dense.session


def by_onnxruntime(dense: Dense) -> tuple[bytes, Callable, Callable]:
    return rival_model(dense.artifact), OnnxSession, lambda session: session


def by_torchao(dense: Dense, bits: int) -> tuple[bytes, Callable, Callable]:
    """Weights of linear layers and embeddings in integers: a scale a row in 8 bits, one for 32 weights in 4 bits."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup

    granularity = PerAxis(0) if bits == 8 else PerGroup(32)
    config = IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity)
    model = load_model(dense.artifact.folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(dense.floats[name]))
    quantize_(model, config, filter_fn=lambda module, name: isinstance(module, nn.Linear | nn.Embedding))
    arrays = {}
    for name, value in model.named_parameters():
        if not hasattr(value, "qdata"):
            arrays[name] = value.detach().numpy()
            continue
        assert not value.zero_point.any(), "the grid is symmetric, so that zero points need not be stored"
        codes = value.qdata.numpy()
        arrays[f"{name}.codes"] = codes if bits == 8 else (codes[:, ::2] & 15 | codes[:, 1::2] << 4).astype(np.uint8)
        arrays[f"{name}.scale"] = value.scale.float().numpy().reshape(len(codes), -1)

    def decode(data: bytes) -> dict[str, np.ndarray]:
        found = load_arrays(data)
        weights = {name: array for name, array in found.items() if not name.endswith((".codes", ".scale"))}
        for name in [name.removesuffix(".codes") for name in found if name.endswith(".codes")]:
            codes, scale = found[f"{name}.codes"], found[f"{name}.scale"]
            if bits == 4:
                pairs = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1).view(np.int8)
                codes = np.where(pairs > 7, pairs - 16, pairs)
            grouped = codes.reshape(*scale.shape, -1).astype(np.float32) * scale[..., None]
            weights[name] = grouped.reshape(len(codes), -1)
        return weights

    return save_arrays(arrays), decode, dense.session


def fastest(decode: Callable, data: bytes) -> float:
    """Seconds, the fastest of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        decode(data)
        times.append(time.perf_counter() - start)
    return min(times)


def behind_zstd(decode: Callable) -> Callable:
    return lambda packed: decode(zstandard.ZstdDecompressor().decompress(packed))


def rows_of_rivals(dense: Dense, task: Task, rows: Split, torchao: bool) -> list[dict]:
    ways = {
        "safetensors fp32": lambda: in_floats(dense, np.float32),
        "safetensors fp16": lambda: in_floats(dense, np.float16),
        "ONNX Runtime dynamic int8": lambda: by_onnxruntime(dense),
    }
    if torchao:
        ways["torchao int8"] = lambda: by_torchao(dense, 8)
        ways["torchao int4, groups of 32"] = lambda: by_torchao(dense, 4)
    found = []
    for name, way in ways.items():
        data, decode, session = way()
        logits = Predictor(dense.artifact, session=session(decode(data))).logits(rows.texts, rows.pairs)
        packed = zstandard.ZstdCompressor(level=LEVEL).compress(data)
        row = {"name": name, "score": score_logits(task, logits, rows.labels)}
        row["weights"] = sum(array.size for array in dense.floats.values())
        found.append(row | {"bytes": len(data), "decode_s": fastest(decode, data)})
        behind = {"name": f"{name} + zstd", "bytes": len(packed)}
        found.append(row | behind | {"decode_s": fastest(behind_zstd(decode), packed)})
        print(name, file=sys.stderr)
    return found


def row_of_ours(name: str, artifact: Artifact, task: Task, rows: Split) -> dict:
    logits = Predictor(artifact).logits(rows.texts, rows.pairs)
    sizes = {row.name: row.value for row in measure_size(artifact)}
    data, records = write_weights(artifact.tensors(), artifact.aliases)

    def decode(data: bytes) -> None:
        for tensor in read_tensors(memoryview(data), records, has_scales_apart=False).values():
            tensor.dense()

    return {
        "name": f"ours: {name}",
        "score": score_logits(task, logits, rows.labels),
        "weights": sum(math.prod(record["shape"]) for record in records.values()),
        "bytes": len(data),
        "package_bytes": artifact.package_bytes - artifact.weights_bytes + len(data),
        "bound_bytes": sizes["entropy_bound_bytes"],
        "decode_s": fastest(decode, data),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense", help="folder of a classifier in 32-bit floats")
    parser.add_argument("ours", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--max-rows", type=int, default=0, help="score on the first so many rows")
    parser.add_argument("--without-torchao", action="store_true")
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.without_torchao and find_spec("torchao") is None:
        sys.exit("torchao is not installed; install it, or give --without-torchao.")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as beside:
        dense = dense_model(arguments.dense, Path(beside))
        official = load_task(DataSpec(task=arguments.task)).task
        task = replace(official, labels=tuple(dense.artifact.facts["task"]["labels"]))
        rows = load_validation(arguments.task, task=task).split
        rows = rows.take(range(min(len(rows), arguments.max_rows or len(rows))))
        found = rows_of_rivals(dense, task, rows, not arguments.without_torchao)
        found.append(row_of_ours("dense", dense.artifact, task, rows))
        for text in arguments.ours:
            name, folder = text.split("=", 1)
            found.append(row_of_ours(name, open_artifact(Path(folder)), task, rows))
    for row in found:
        row["decode_mb_s"] = row["weights"] / 1e6 / row["decode_s"]
    show(found)
    if arguments.out:
        versions = library_versions("torch", "torchao", "onnxruntime", "safetensors", "zstandard", "multipress")
        head = {"task": arguments.task, "rows": len(rows), "computer": computer(), "versions": versions}
        arguments.out.write_text(json.dumps({**head, "models": found}, indent=1) + "\n", encoding="utf-8")


def show(table: list[dict]) -> None:
    print("| stored as | MB | package MB | score | decode s | MB/s | above the bound |\n|---|---|---|---|---|---|---|")
    for row in sorted(table, key=lambda row: -row["bytes"]):
        package = f"{row['package_bytes'] / 1e6:.2f}" if "package_bytes" in row else ""
        above = f"{row['bytes'] / row['bound_bytes'] - 1:.1%}" if "bound_bytes" in row else ""
        cells = [row["name"], f"{row['bytes'] / 1e6:.2f}", package, f"{row['score']:.4f}"]
        cells += [f"{row['decode_s']:.2f}", f"{row['decode_mb_s']:.0f}", above]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
