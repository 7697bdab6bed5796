"""What one fine-tuned model takes stored in every usual way, and ours: bytes, score of what is stored, time to decode.

    python benchmarks/bytes.py DENSE NAME=OURS ... --task sst2 -o results/bytes.json

DENSE is an artifact of the dense model; the rivals store it. Each NAME=OURS is an artifact of the same model that was
trained further with some method. torchao is left out where it is missing (`pip install --no-deps torchao`). Every row
is what lies on disk, with and without zstandard at level 19 behind it; the score is that of the model that is read back
from those bytes; `decode` is from bytes in memory to float arrays, or to the model that computes, the fastest of three.
The limit: `bound` is the order-0 entropy of the stored integers with their side values as stored; what a row takes
above it is in the last column.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
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
from multipress.measure import measure_size
from multipress.measure.rival import rival_model
from multipress.reproducibility import computer, library_versions
from multipress.runtime import Predictor
from multipress.runtime.graph_file import read_graph
from multipress.runtime.graph_writer import write_graph
from multipress.runtime.integer_graph import float_graph
from multipress.runtime.session import OnnxSession
from multipress.tasks import Split, Task, load_validation
from multipress.tasks.metrics import score_logits

LEVEL = 19


class TorchSession:
    """A torch classifier in the place of ONNX Runtime."""

    def __init__(self, model: nn.Module, inputs: list[str]) -> None:
        self._model, self._inputs = model.eval(), inputs

    def run(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            return self._model(**{name: torch.from_numpy(batch[name]) for name in self._inputs}).logits.numpy()


def session_of(artifact: Artifact, weights: dict[str, np.ndarray]) -> OnnxSession:
    """Floats in the artifact's graph."""
    floats = {name: array.astype(np.float32) for name, array in weights.items()}
    return OnnxSession(write_graph(float_graph(read_graph(artifact.graph()), floats)))


def in_floats(dense: Artifact, kind: type) -> tuple[bytes, Callable, Callable]:
    """Bytes, what reads them, and the session of what was read."""
    weights = {name: array.astype(kind) for name, array in dense.dense_weights().items()}
    return save_arrays(weights), load_arrays, lambda found: session_of(dense, found)


def by_onnxruntime(dense: Artifact) -> tuple[bytes, Callable, Callable]:
    return rival_model(dense), OnnxSession, lambda session: session


def by_torchao(dense: Artifact, bits: int) -> tuple[bytes, Callable, Callable]:
    """Weights of linear layers and embeddings in integers: a scale a row in 8 bits, one for 32 weights in 4 bits."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup

    granularity = PerAxis(0) if bits == 8 else PerGroup(32)
    config = IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity)
    model = load_model(dense.folder)
    quantize_(model, config, filter_fn=lambda module, name: isinstance(module, nn.Linear | nn.Embedding))
    made = io.BytesIO()
    torch.save(model.state_dict(), made)
    inputs = list(read_graph(dense.graph()).inputs)

    def session(state: dict) -> TorchSession:
        twin = load_model(dense.folder)
        twin.load_state_dict(state, assign=True)
        return TorchSession(twin, inputs)

    return made.getvalue(), lambda data: torch.load(io.BytesIO(data), weights_only=False), session


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


def rows_of_rivals(dense: Artifact, task: Task, rows: Split) -> list[dict]:
    ways = {
        "safetensors fp32": lambda: in_floats(dense, np.float32),
        "safetensors fp16": lambda: in_floats(dense, np.float16),
        "ONNX Runtime dynamic int8": lambda: by_onnxruntime(dense),
        "torchao int8": lambda: by_torchao(dense, 8),
        "torchao int4, groups of 32": lambda: by_torchao(dense, 4),
    }
    found = []
    for name, way in ways.items():
        try:
            data, decode, session = way()
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        logits = Predictor(dense, session=session(decode(data))).logits(rows.texts, rows.pairs)
        packed = zstandard.ZstdCompressor(level=LEVEL).compress(data)
        row = {"name": name, "score": score_logits(task, logits, rows.labels)}
        found.append(row | {"bytes": len(data), "decode_s": fastest(decode, data)})
        behind = {"name": f"{name} + zstd", "bytes": len(packed)}
        found.append(row | behind | {"decode_s": fastest(behind_zstd(decode), packed)})
        print(name, file=sys.stderr)
    return found


def row_of_ours(name: str, artifact: Artifact, task: Task, rows: Split) -> dict:
    logits = Predictor(artifact).logits(rows.texts, rows.pairs)
    sizes = {row.name: row.value for row in measure_size(artifact)}
    return {
        "name": f"ours: {name}",
        "score": score_logits(task, logits, rows.labels),
        "bytes": artifact.weights_bytes,
        "package_bytes": artifact.package_bytes,
        "bound_bytes": sizes["entropy_bound_bytes"],
        "decode_s": fastest(lambda _: artifact.dense_weights(), b""),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense", type=Path)
    parser.add_argument("ours", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--max-rows", type=int, default=0, help="score on the first so many rows")
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dense = open_artifact(arguments.dense)
    task = Task.from_json(dense.facts["task"])
    rows = load_validation(arguments.task, task=task).split
    rows = rows.take(range(min(len(rows), arguments.max_rows or len(rows))))
    found = [row_of_ours("dense", dense, task, rows)]
    for text in arguments.ours:
        name, folder = text.split("=", 1)
        found.append(row_of_ours(name, open_artifact(Path(folder)), task, rows))
    found = [*rows_of_rivals(dense, task, rows), *found]
    show(found)
    if arguments.out:
        versions = library_versions("torch", "torchao", "onnxruntime", "safetensors", "zstandard", "multipress")
        head = {"task": arguments.task, "rows": len(rows), "computer": computer(), "versions": versions}
        arguments.out.write_text(json.dumps({**head, "models": found}, indent=1) + "\n", encoding="utf-8")


def show(table: list[dict]) -> None:
    print("| stored as | MB | package MB | score | decode s | above the bound |\n|---|---|---|---|---|---|")
    for row in sorted(table, key=lambda row: -row["bytes"]):
        package = f"{row['package_bytes'] / 1e6:.2f}" if "package_bytes" in row else ""
        above = f"{row['bytes'] / row['bound_bytes'] - 1:.1%}" if "bound_bytes" in row else ""
        cells = [row["name"], f"{row['bytes'] / 1e6:.2f}", package, f"{row['score']:.4f}"]
        print(f"| {' | '.join([*cells, format(row['decode_s'], '.2f'), above])} |")


if __name__ == "__main__":
    main()
