"""Whether every export gives its artifact's answers, on whole validation sets, for every subset of methods.

    python benchmarks/agreement.py RUNS... -o results/agreement.jsonl --model minilm-l3 --tasks sst2 cola banking77

RUNS are folders of finished runs. Of each (task, methods) one run is taken: of the model given, seed 0, the highest
sparsity. All formats of `multipress export` are written, opened again and compared with the artifact on all validation
rows, as `export` does itself, and ONNX Runtime's own dynamic int8 of the same model beside them. A line for each file
goes to OUT as it comes; what is there already is not done again. `--table` only prints what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from multipress.artifact import open_artifact
from multipress.errors import ArtifactError
from multipress.export import FORMATS, Export, read_export
from multipress.export.model_file import write_model
from multipress.measure.parity import EXACT, ROUNDED, check_parity, compare_logits
from multipress.measure.rival import rival_session
from multipress.reproducibility import computer, library_versions
from multipress.runtime import Predictor
from multipress.store import Store
from multipress.tasks import Task, load_validation

RIVAL = "ONNX Runtime dynamic int8"
EXPORTS = [
    Export(to, precision)
    for to in FORMATS
    for precision in ("fp32", "bf16", "int8")
    if precision == "fp32" or (to == "openvino") or (to, precision) == ("onnx", "int8")
]


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


def rows_of(path: Path, spec: dict, done: set[str]):
    """One line a file of this artifact that is not in `done`."""
    artifact = open_artifact(path)
    run_id, weights = artifact.facts["run_id"], artifact.manifest["files"]["model.safetensors"]["sha256"]
    wanted = [export for export in EXPORTS if f"{weights} {export.file}" not in done]
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
        within = None
        if bound is not None:
            try:
                check_parity(parity, bound, float(np.abs(reference).max()), file)
                within = True
            except Exception as error:  # noqa: BLE001 - what is beyond the bound is a row too
                within = str(error)
        return {**common, "file": file, "parity": parity.to_json(), "within": within}

    for export in wanted:
        with tempfile.TemporaryDirectory() as beside:
            try:
                write_model(artifact, export, Path(beside))
            except ArtifactError as error:
                if artifact.facts["quantization"]:
                    raise
                yield {**common, "file": export.file, "parity": None, "within": f"not written: {error}"}
                continue
            session = read_export(Path(beside), export, artifact)
            yield line(export.file, session, ROUNDED if export.is_rounded else EXACT)
    if with_rival:
        yield line(RIVAL, rival_session(artifact), None)


def show(lines: list[dict]) -> None:
    """Per task and file: artifacts, rows, the least agreement, the largest difference and the worst change."""
    print(
        "| task | file | artifacts | rows | least agreement | largest difference of a logit | score, points | beyond |"
    )
    print("|---" * 8 + "|")
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in lines:
        if row["parity"] is not None:
            groups.setdefault((row["task"], row["file"]), []).append(row)
    for (task, file), rows in sorted(groups.items()):
        parities = [row["parity"] for row in rows]
        changes = [100 * parity["score_change"] for parity in parities]
        print(
            f"| {task} | {file} | {len(rows)} | {sum(p['rows'] for p in parities):,} "
            f"| {min(p['agreement'] for p in parities):.2%} | {max(p['largest_difference'] for p in parities):.1e} "
            f"| {min(changes):+.2f} to {max(changes):+.2f} "
            f"| {sum(row['within'] not in (True, None) for row in rows)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--model", default="minilm-l3")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "cola", "banking77"])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    if not arguments.table:
        done = {f"{row['weights_sha256']} {row['file']}" for row in lines}
        for path, spec in chosen_runs(arguments.runs, arguments.model, arguments.tasks):
            for row in rows_of(path, spec, done):
                lines.append(row)
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, sort_keys=True) + "\n")
                print(row["task"], sorted(row["methods"]), row["file"], row["within"], file=sys.stderr, flush=True)
    show(lines)


if __name__ == "__main__":
    main()
