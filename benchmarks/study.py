r"""A whole grid by the study engine, against its cells one by one with the Hugging Face Trainer, tuned and naive.

    python benchmarks/study.py --runs DIR --rows 1000 -o results/study-speed.json

The grid: eight subsets, sparsity .4 and .6, minilm-l6 and minilm-l3, SST-2 and banking77, one seed: 48 cells. Ours is
`multipress study run` from an empty folder, two workers of one thread, with `shared_start = 0.5`; everything is in its
time: reading, training, labelling, storing, scoring.

The rivals train each cell alone in a process of its own with two threads, as somebody would with the Trainer and a
script: `tuned` and `naive` as in benchmarks/training.py; with distillation a teacher of the right size runs in each
step of each cell; that it must be fine-tuned first is not counted, and as it is not, the scores of these cells say
nothing. Pruning and quantization cost them nothing here, which favours them. Of the rivals one cell in each group of
equal cost is run (model x task x with or without distillation; the naive one for a limited number of steps, then
scaled to all), the rest is that time again: 48 cells from 8 measured. Times of both sides are wall seconds, process
starts and scoring included.

Then the levers, each a factor of time from the tuned rival to ours, all from the runs above: the loop with two cells
at a time (a dense cell of the rival on both cores, over half of ours on one), what pruning and quantization cost us
(below 1), distillation (what it adds to a cell of the rival, over what it adds to ours, labelling counted), the shared
beginning (whole trainings in the grid over those trained). What their product leaves is the rest: starts, idle workers,
scoring. The time that `--dry-run` predicts for ours stands beside what it took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from multipress.engines.job import Job
from multipress.estimate import describe
from multipress.plan import Plan
from multipress.reproducibility import computer, library_versions
from multipress.spec import DataSpec, TrainingSpec
from multipress.store import Store
from multipress.study_file import read_study

MODELS = ("minilm-l6", "minilm-l3")
TASKS = ("sst2", "banking77")
EPOCHS = 2
RATE = 3e-4
THREADS = 2
NAIVE_STEPS = 8
STUDY = """
[study]
name = "speed"
[models]
names = ["minilm-l6", "minilm-l3"]
[tasks]
names = ["sst2", "banking77"]
max_train_rows = {rows}
[training]
epochs = 2
learning_rates = [3e-4]
batch_size = 32
max_length = 128
shared_start = {shared}
[methods]
subsets = "all"
[methods.pruning]
sparsity = [0.4, 0.6]
end = 0.6
[methods.quantization]
bits = [8]
[methods.distillation]
teacher = "minilm-l6"
"""


def train_cell(kind: str, model: str, task: str, rows: int, teacher: str, steps: int) -> None:
    """One cell of a rival, in this process; prints its seconds and its score as JSON."""
    began = time.perf_counter()
    import torch
    from training import MAX_LENGTH, encode, run_trainer, torch_logits

    from multipress.models import load_pretrained
    from multipress.tasks import evaluate_logits, load_task

    torch.set_num_threads(THREADS)
    data = load_task(DataSpec(task=task, max_train_rows=rows))
    encoded, tokenizer_json = encode(model, data)
    training = TrainingSpec(epochs=EPOCHS, learning_rate=RATE, max_length=MAX_LENGTH)
    taught_by = None
    if teacher:
        taught_by = load_pretrained(teacher, label_names=data.task.labels, seed=0).model.eval()
        taught_by.set_attn_implementation("sdpa")
    trained, times = run_trainer(kind, model, data, encoded, training, 0, steps, taught_by)
    found = {"training": times[-1] - times[0], "steps": len(times) - 1, "score": None}
    if steps < 0 and not teacher:
        logits = torch_logits(trained, tokenizer_json, data)
        found["score"] = evaluate_logits(data.task, logits, data.dev.labels)["score"]
    print(json.dumps(found | {"seconds": time.perf_counter() - began}))


def rival_cell(kind: str, model: str, task: str, rows: int, teacher: str, steps: int) -> dict[str, Any]:
    """The same in a process of its own, whose start is in its seconds."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--cell", kind, model, task, str(rows), teacher, str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - began}


def ours(runs: Path, spec: Path, workers: int) -> float:
    command = [sys.executable, "-m", "multipress", "study", "run", str(spec), "--runs", str(runs), "--workers"]
    began = time.perf_counter()
    subprocess.run([*command, str(workers)], check=True, capture_output=True)
    return time.perf_counter() - began


def rival_grid(
    kind: str, rows: int, scores: dict[tuple[str, str, tuple[str, ...]], float]
) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of all cells by a rival, from one measured cell of each group; and those cells, ours beside them."""
    total, groups = 0.0, []
    for model in MODELS:
        for task in TASKS:
            for distils in (False, True):
                steps = -1 if kind == "tuned" else NAIVE_STEPS
                teacher = "minilm-l6" if distils else ""
                found = rival_cell(kind, model, task, rows, teacher, steps)
                whole = EPOCHS * -(-rows // 32)
                if kind == "naive":  # its scoring is not counted at all
                    found["seconds"] += found["training"] * (whole / found["steps"] - 1)
                # six recipes without distillation and six with it, of twelve
                total += 6 * found["seconds"]
                group = {"model": model, "task": task, "distils": distils, **found}
                group["ours"] = None if distils else scores.get((model, task, ()))
                groups.append(group)
                print(kind, group, flush=True)
    return total, groups


def run_seconds(store: Store, run_id: str) -> float:
    """How long a run took in its worker."""
    done = store.done(run_id)
    assert done is not None, run_id
    return (done / "DONE").stat().st_mtime - (done / "spec.json").stat().st_mtime


def levers(
    store: Store, jobs: list[Job], groups: list[dict[str, Any]], over_ours: float, num_cells: int
) -> dict[str, float]:
    """Factors of time from the tuned rival to ours, see above."""
    seconds: dict[str, list[float]] = {"shared": [], "dense": [], "compressed": [], "learning": [], "label": []}
    for job in jobs:
        names = {method.name for method in job.spec.methods}
        kind = "label" if job.spec.kind == "label" else "shared" if job.spec.part == (0.0, job.spec.shared) else ""
        kind = kind or ("learning" if "distillation" in names else "compressed" if names else "dense")
        seconds[kind].append(run_seconds(store, job.run_id))
    mean = {kind: sum(values) / len(values) for kind, values in seconds.items()}
    rival = {distils: sum(g["seconds"] for g in groups if g["distils"] == distils) for distils in (False, True)}
    of_dense = rival[False] / (len(groups) / 2)
    plain = (5 * mean["compressed"] + mean["dense"]) / 6 + mean["shared"]
    labelling = sum(seconds["label"]) / len(seconds["learning"])
    factors = {
        "loop and two cells at a time": of_dense / ((mean["shared"] + mean["dense"]) / 2),
        "pruning and quantization": (mean["shared"] + mean["dense"]) / plain,
        "teacher's outputs once": (1 + rival[True] / rival[False])
        / (1 + (mean["learning"] + mean["shared"] + labelling) / plain),
        "shared beginning": num_cells * plain / (num_cells * (plain - mean["shared"]) + sum(seconds["shared"])),
    }
    product = 1.0
    for factor in factors.values():
        product *= factor
    return factors | {"rest": over_ours / product}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="a folder; an empty one begins anew")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--cell", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        kind, model, task, rows, teacher, steps = arguments.cell
        train_cell(kind, model, task, int(rows), teacher, int(steps))
        return
    arguments.runs.mkdir(parents=True, exist_ok=True)
    spec, timed = arguments.runs / "study.toml", arguments.runs / "ours.json"
    store = Store(arguments.runs / "runs")
    if arguments.output is None:
        parser.error("-o is needed")
    if not timed.exists():  # else an earlier call was stopped among the rivals, and goes on there
        if store.folder.exists():
            parser.error(f"{arguments.runs} holds a study that was stopped; its time is lost. Remove it.")
        spec.write_text(STUDY.format(rows=arguments.rows, shared=0.5))
        predicted = describe(Plan(read_study(spec)), store, 2)
        timed.write_text(json.dumps([ours(store.folder, spec, 2), predicted]))
    seconds, predicted = json.loads(timed.read_text())
    plan = Plan(read_study(spec))
    rates = {(model, data): RATE for model in plan.trained_models() for data in plan.study.data}
    cells = plan.cells(rates)
    runs = plan.with_needs(cells)
    trained = sum(job.spec.part[1] - job.spec.part[0] for job in runs if job.spec.kind == "train")
    print(f"{predicted}\nours: {seconds:.0f} s for {len(cells)} cells; {trained:.1f} whole trainings", flush=True)
    result: dict[str, Any] = {
        "command": " ".join(sys.argv),
        "rows": arguments.rows,
        "cells": len(cells),
        "ours_s": seconds,
    }
    result["predicted"] = predicted.splitlines()[2]
    result |= {"trainings": trained, "computer": computer(), "versions": library_versions("torch", "transformers")}
    scores = {(row["model"], row["task"], tuple(row["methods"])): row["score"] for row in store.cells()}
    for kind in ("tuned", "naive"):
        total, groups = rival_grid(kind, arguments.rows, scores)
        result[kind] = {"seconds": total, "over_ours": total / seconds, "measured": groups}
        print(f"{kind}: {total:.0f} s, {total / seconds:.1f} times ours", flush=True)
    tuned = result["tuned"]
    result["levers"] = levers(store, runs, tuned["measured"], tuned["over_ours"], len(cells))
    print(result["levers"])
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
