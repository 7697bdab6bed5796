"""Whether every export gives its artifact's answers, on whole validation sets, for every subset of methods.

    multipress study run studies/agreement.toml --runs RUNS
    python benchmarks/agreement.py RUNS -o results/agreement.jsonl

RUNS are folders of finished runs. Of each (task, methods) one run is taken: of the model given, seed 0, the highest
sparsity; all eight subsets of methods must be there for each task. All formats of `multipress export` (those for VNNI
and of reduced range too) are written, opened again and compared with the artifact on all validation rows, as `export`
does itself, and ONNX Runtime's own dynamic int8 of the same model beside them. A line for each file goes to OUT as it
comes; what is there already is not done again. `--table` only prints what is there. OpenVINO must be installed
(`pip install "multipress[openvino]"`), or left out by `--without-openvino`.
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
from multipress.errors import ArtifactError
from multipress.export import Export, known_exports, read_export
from multipress.export.model_file import write_model
from multipress.measure.parity import EXACT, ROUNDED, compare_logits, drift
from multipress.measure.rival import rival_session
from multipress.reproducibility import computer, library_versions
from multipress.runtime import Predictor
from multipress.runtime.products import has_exact_products
from multipress.store import Store
from multipress.tasks import Task, load_validation

RIVAL = "ONNX Runtime dynamic int8"
NUM_SUBSETS = 8
REDUCED = "onnx/model_qint8.onnx, reduced range"


def wanted_exports(openvino: bool) -> dict[str, Export]:
    """Every export that this computer can compare, by the name of its rows."""
    found = [export for export in known_exports() if has_exact_products() or not export.vnni]
    named = {export.file: export for export in found} | {REDUCED: Export("onnx", "int8", reduced_range=True)}
    return {name: export for name, export in named.items() if openvino or export.to != "openvino"}


def chosen_runs(folders: list[Path], model: str, tasks: list[str]) -> list[tuple[Path, dict]]:
    """Artifact and spec of one finished run for each task and subset of methods."""
    found: dict[tuple[str, tuple[str, ...]], tuple[float, Path, dict]] = {}
    for folder in folders:
        store = Store(folder)
        for run in store.runs():
            spec = run.spec
            if run.state != "done" or (spec["kind"], spec["model"], spec["seed"]) != ("train", model, 0):
                continue
            task, names = spec["data"]["task"], tuple(method["name"] for method in spec["methods"])
            settings = {key: value for method in spec["methods"] for key, value in method["settings"].items()}
            done = store.done(run.run_id)
            if task not in tasks or spec.get("start") or done is None:
                continue
            # Of dense runs with several learning rates the best one: a model that guesses agrees with anything.
            measured = (json.loads(line) for line in (done / "measurements.jsonl").read_text().splitlines())
            rank = settings.get("sparsity", 0.0) + next(row["value"] for row in measured if row["name"] == "score")
            if rank > found.get((task, names), (-1.0,))[0]:
                found[task, names] = (rank, done / "artifact", spec)
    return [(path, spec) for _, (_, path, spec) in sorted(found.items())]


def rows_of(path: Path, spec: dict, done: set[str], exports: dict[str, Export]):
    """One line a file of this artifact that is not in `done`."""
    artifact = open_artifact(path)
    run_id, weights = artifact.facts["run_id"], artifact.manifest["files"]["model.safetensors"]["sha256"]
    wanted = {name: export for name, export in exports.items() if f"{weights} {name}" not in done}
    with_rival = f"{weights} {RIVAL}" not in done
    if not wanted and not with_rival:
        return
    task = Task.from_json(artifact.facts["task"])
    split = load_validation(spec["data"]["task"], task=task).split
    reference = Predictor(artifact).logits(split.texts, split.pairs)
    common = {
        "run_id": run_id,
        "model": spec["model"],
        "task": spec["data"]["task"],
        "methods": {method["name"]: method["settings"] for method in spec["methods"]},
        "weights_sha256": weights,
        "computer": computer(),
        "versions": library_versions("multipress", "onnxruntime", "openvino"),
    }

    def line(file: str, session, bound):
        found = Predictor(artifact, session=session).logits(split.texts, split.pairs)
        parity = compare_logits(reference, found, task, split)
        faults = [] if bound is None else drift(parity, bound, float(np.abs(reference).max()))
        within = None if bound is None else "; ".join(faults) or True
        return {**common, "file": file, "parity": parity.to_json(), "within": within}

    for name, export in wanted.items():
        with tempfile.TemporaryDirectory() as beside:
            try:
                write_model(artifact, export, Path(beside))
            except ArtifactError as error:
                if artifact.facts["quantization"]:
                    raise
                yield {**common, "file": name, "parity": None, "within": f"not written: {error}"}
                continue
            session = read_export(Path(beside), export, artifact)
            yield line(name, session, ROUNDED if export.is_rounded(artifact) else EXACT)
    if with_rival:
        yield line(RIVAL, rival_session(artifact), None)


def show(lines: list[dict]) -> None:
    """Per kind of weights and file, over tasks: labels that differ, the least agreement and the worst changes."""
    heads = ["model", "weights", "file", "artifacts", "rows", "labels that differ", "least agreement"]
    heads += ["largest difference of a logit", "score, points", "beyond"]
    print(f"| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|")
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for row in lines:
        if row["parity"] is not None:
            weights = "integers" if "quantization" in row["methods"] else "floats"
            groups.setdefault((row["model"], weights, row["file"]), []).append(row)
    for (model, weights, file), rows in sorted(groups.items()):
        parities = [row["parity"] for row in rows]
        changes = [100 * parity["score_change"] for parity in parities]
        print(
            f"| {model} | {weights} | {file} | {len(rows)} | {sum(p['rows'] for p in parities):,} "
            f"| {sum(round((1 - p['agreement']) * p['rows']) for p in parities):,} "
            f"| {min(p['agreement'] for p in parities):.2%} | {max(p['largest_difference'] for p in parities):.1e} "
            f"| {min(changes):+.2f} to {max(changes):+.2f} "
            f"| {sum(row['within'] not in (True, None) for row in rows)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--model", default="minilm-l6")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "cola", "mrpc", "qnli", "banking77"])
    parser.add_argument("--without-openvino", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    if not arguments.table:
        if not arguments.without_openvino and find_spec("openvino") is None:
            sys.exit("OpenVINO is not installed; install it, or give --without-openvino.")
        done = {f"{row['weights_sha256']} {row['file']}" for row in lines}
        chosen = chosen_runs(arguments.runs, arguments.model, arguments.tasks)
        for task in arguments.tasks:
            found = sum(spec["data"]["task"] == task for _, spec in chosen)
            if found != NUM_SUBSETS:
                sys.exit(f"{task}: {found} of {NUM_SUBSETS} subsets of methods of {arguments.model} are in these runs.")
        for path, spec in chosen:
            for row in rows_of(path, spec, done, wanted_exports(not arguments.without_openvino)):
                lines.append(row)
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, sort_keys=True) + "\n")
                print(row["task"], sorted(row["methods"]), row["file"], row["within"], file=sys.stderr, flush=True)
    show(lines)


if __name__ == "__main__":
    main()
