"""How fast a stored model predicts, against what people use: speed, score and bytes, in turns in one run.

    python benchmarks/latency.py DENSE OURS --task sst2 -o results/latency.json

DENSE is an artifact of the dense model, which the rivals compute: torch eager, ONNX Runtime in fp32 and with its
dynamic int8, OpenVINO's int8 by nncf (`pip install nncf openvino`, or `--without-openvino`), calibrated on 300 rows of
the train split; where the processor has bfloat16, OpenVINO computes the rest in it by default, and both are shown. OURS
is an artifact that was trained with quantization, as `predict --precision int8` computes it, and as the files that
`export` writes for any processor and for those with VNNI; further ones with `--more NAME=FOLDER`. All are timed batch
by batch in turns on one processor, large batches half as often; p50 and p95 in milliseconds, and how many times as fast
as ONNX Runtime's dynamic int8: by the medians, and the quartiles of the ratios of the same turns. Scores are those of
the whole validation set, with their change against the dense model and against the rival, and 95 % intervals. For the
cold start see `cold_start.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from multipress.artifact import open_artifact
from multipress.measure.intervals import change_interval
from multipress.measure.parity import compare_logits
from multipress.measure.rival import rival_model
from multipress.measure.speed import SHAPES, time_in_turns
from multipress.reproducibility import computer, cpu_flags, library_versions
from multipress.runtime import Predictor, TextEncoder, pad_batch
from multipress.runtime.graph_file import read_graph
from multipress.runtime.graph_writer import write_graph
from multipress.runtime.integer_graph import REDUCED_RANGE, float_graph, integer_graph
from multipress.runtime.products import has_exact_products
from multipress.runtime.session import OnnxSession, OpenVinoSession
from multipress.runtime.simple_graph import simple_graph
from multipress.spec import DataSpec
from multipress.tasks import Task, load_task, load_validation
from multipress.tasks.metrics import score_logits

DENSE = "ONNX Runtime fp32"
RIVAL = "ONNX Runtime dynamic int8"


class TorchSession:
    """The artifact as a torch module, attention and all as transformers has it."""

    def __init__(self, artifact) -> None:
        import torch

        from multipress.checkpoint import load_model

        torch.set_num_threads(1)
        self._torch, self._model = torch, load_model(artifact.folder)
        self._inputs = list(read_graph(artifact.graph()).inputs)

    def run(self, batch):
        with self._torch.no_grad():
            inputs = {name: self._torch.from_numpy(batch[name]) for name in self._inputs}
            return self._model(**inputs).logits.numpy()


def openvino_int8(artifact, rows, folder: Path) -> dict:
    """nncf's quantization of the dense model, calibrated on these rows: what computes it and its bytes, by name."""
    import nncf
    import openvino

    path = folder / "dense.onnx"
    path.write_bytes(fp32_bytes(artifact))
    encoder = TextEncoder(artifact.tokenizer_json(), artifact.facts["max_length"])
    inputs = list(read_graph(artifact.graph()).inputs)
    rows = [pad_batch([row], encoder.pad_id) for row in encoder.encode(rows.texts, rows.pairs)]
    data = nncf.Dataset([{name: row[name] for name in inputs} for row in rows])
    model = nncf.quantize(
        openvino.convert_model(path), data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
    )
    openvino.save_model(model, folder / "int8.xml", compress_to_fp16=False)
    kinds = ["fp32", *(["bf16"] if "avx512_bf16" in cpu_flags() else [])]
    sessions = {kind: OpenVinoSession(folder / "int8.xml", precision=kind) for kind in kinds}
    size = (folder / "int8.bin").stat().st_size
    return {f"OpenVINO int8 (nncf), the rest {kind}": (session, artifact, size) for kind, session in sessions.items()}


def fp32_bytes(artifact) -> bytes:
    return write_graph(float_graph(read_graph(artifact.graph()), artifact.dense_weights()))


def ours(name: str, artifact, openvino: bool) -> dict:
    """An artifact in integers: as it is predicted here, as it is exported, and with 7 bits where that is faster."""
    graph, tensors = simple_graph(read_graph(artifact.graph())), tensors_of(artifact)
    found = {name: Predictor(artifact, precision="int8").session}
    found[f"{name}, exported"] = OnnxSession(write_graph(integer_graph(graph, tensors)))
    if has_exact_products():
        found[f"{name}, exported for VNNI"] = OnnxSession(write_graph(integer_graph(graph, tensors, signed=True)))
    else:
        reduced = integer_graph(graph, tensors, REDUCED_RANGE, only_here=True)
        found[f"{name}, reduced range"] = OnnxSession(write_graph(reduced), max_tokens=512)
    if openvino and artifact.has_static_activations:
        found[f"{name}, by OpenVINO"] = Predictor(artifact, engine="openvino", precision="int8").session
    return {kind: (session, artifact, artifact.weights_bytes) for kind, session in found.items()}


def tensors_of(artifact):
    tensors = artifact.tensors()
    return tensors | {alias: tensors[name] for alias, name in artifact.aliases.items()}


def models(dense, mine, more, calibration, folder: Path) -> dict:
    """Name to session, the artifact whose tokenizer it needs, and bytes of weights on disk."""
    fp32, rival = fp32_bytes(dense), rival_model(dense)
    found = {
        "torch eager": (TorchSession(dense), dense, len(fp32)),
        DENSE: (OnnxSession(fp32), dense, len(fp32)),
        RIVAL: (OnnxSession(rival), dense, len(rival)),
    }
    if calibration is not None:
        found |= openvino_int8(dense, calibration, folder)
    found["ours fp32"] = (Predictor(mine).session, mine, mine.weights_bytes)
    for name, artifact in {"ours int8": mine, **more}.items():
        found |= ours(name, artifact, calibration is not None)
    return found


def fitting(found) -> list[tuple[int, int]]:
    """The shapes, none longer than what all models have positions for."""
    limit = min(artifact.max_tokens or SHAPES[-1][1] for _, artifact, _ in found.values())
    return list(dict.fromkeys((rows, min(tokens, limit)) for rows, tokens in SHAPES))


def timed(found, vocabulary: int, repeats: int) -> dict:
    """Times by name and shape; the large batch, which is slow, in half of the rounds."""
    sessions = {name: session for name, (session, _, _) in found.items()}
    shapes = fitting(found)
    small = [shape for shape in shapes if shape[0] == 1]
    large = [shape for shape in shapes if shape[0] > 1]
    times = time_in_turns(sessions, small, vocabulary, threads=1, repeats=repeats)
    return times | time_in_turns(sessions, large, vocabulary, threads=1, repeats=max(1, repeats // 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense", type=Path)
    parser.add_argument("ours", type=Path)
    parser.add_argument("--more", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--max-rows", type=int, help="score on the first so many rows")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--without-openvino", action="store_true")
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.without_openvino and not (find_spec("nncf") and find_spec("openvino")):
        sys.exit("OpenVINO or nncf is not installed; install them, or give --without-openvino.")
    dense, mine = open_artifact(arguments.dense), open_artifact(arguments.ours)
    more = {name: open_artifact(Path(folder)) for name, folder in (text.split("=", 1) for text in arguments.more)}
    task = Task.from_json(mine.facts["task"])
    rows = load_validation(arguments.task, task=task).split
    rows = rows.take(range(min(len(rows), arguments.max_rows or len(rows))))
    train = load_task(DataSpec(task=arguments.task)).train
    calibration = train.take(np.linspace(0, len(train) - 1, 300).astype(int))
    with tempfile.TemporaryDirectory() as folder:
        found = models(dense, mine, more, None if arguments.without_openvino else calibration, Path(folder))
        times = timed(found, int(dense.config["vocab_size"]), arguments.repeats)
        answers = {
            name: Predictor(artifact, session=session).logits(rows.texts, rows.pairs)
            for name, (session, artifact, _) in found.items()
        }
    table = []
    for name, (_, artifact, size) in found.items():
        parity = compare_logits(Predictor(artifact).logits(rows.texts, rows.pairs), answers[name], task, rows)
        score = score_logits(task, answers[name], rows.labels)
        row = {"model": name, "score": score, "agreement": parity.agreement, "bytes": size}
        for other, of in (("dense", DENSE), ("rival", RIVAL)):
            change = score - score_logits(task, answers[of], rows.labels)
            row[f"change_from_{other}"] = [change, *change_interval(task, answers[of], answers[name], rows.labels)]
        for shape in fitting(found):
            p50 = float(np.median(times[name, shape]))
            turns = times[RIVAL, shape] / times[name, shape]
            row[f"{shape[0]}x{shape[1]}"] = {
                "p50_ms": p50,
                "p95_ms": float(np.quantile(times[name, shape], 0.95)),
                "times_the_rival": float(np.median(times[RIVAL, shape])) / p50,
                "of_turns": [float(np.quantile(turns, share)) for share in (0.25, 0.5, 0.75)],
            }
        table.append(row)
    show(table)
    if arguments.out:
        versions = library_versions("torch", "transformers", "onnxruntime", "openvino", "nncf", "multipress")
        head = {"task": arguments.task, "rows": len(rows), "repeats": arguments.repeats, "computer": computer()}
        document = {**head, "versions": versions, "load": os.getloadavg()[0], "models": table}
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def show(table) -> None:
    shapes = [key for key, value in table[0].items() if isinstance(value, dict)]
    heads = ["model", *(f"{shape} ms (p95), times the rival" for shape in shapes), "score"]
    heads += ["points from dense", "agreement with its own floats", "MB"]
    print(f"| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|")
    for row in table:
        cells = [
            f"{row[shape]['p50_ms']:.1f} ({row[shape]['p95_ms']:.1f}), {row[shape]['times_the_rival']:.2f}"
            for shape in shapes
        ]
        change, low, high = (100 * value for value in row["change_from_dense"])
        cells += [
            f"{row['score']:.4f}",
            f"{change:+.2f} ({low:+.2f} to {high:+.2f})",
            f"{row['agreement']:.4f}",
            f"{row['bytes'] / 1e6:.1f}",
        ]
        print(f"| {row['model']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
