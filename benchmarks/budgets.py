r"""`multipress compress` under budgets against dynamic int8 and the best cell of a plain grid of the same time.

    python benchmarks/budgets.py prepare DIR --task sst2 --rows 10000 --select 2000 --epochs 3 --learning-rate 1e-4
    python benchmarks/budgets.py compress DIR --max-mb 10 --minutes 20 -o results/budgets.jsonl
    python benchmarks/budgets.py grid DIR --max-mb 10 --minutes 20 -o results/budgets.jsonl

`prepare` fine-tunes minilm-l6 with the Hugging Face Trainer, as a user has it, and writes the model's folder, the rows
to train on, other rows of the training file to select by, and the task's validation (or test) rows to report on.
`compress` runs the command on them and keeps the table at its end: the model before, ONNX Runtime's dynamic int8, and
the winner, on the rows to report on. `grid` spends the same minutes on a study of the paper's methods (quantization
with and without distillation and pruning, in bits and of shapes that fit the limit), and takes the cell that is the
best by the rows to select by; its score is on the rows to report on. Shrunk encoders that it begins with are made
before, outside its time. What is done is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from training import encode, facts, run_trainer

from multipress.budget.start import store_original
from multipress.engines.job import ANYWHERE
from multipress.spec import DataSpec, TrainingSpec
from multipress.store import Store
from multipress.tasks import load_task

MODEL = "minilm-l6"
MAX_LENGTH = 64
MULTIPRESS = [sys.executable, "-m", "multipress"]

GRID = """
[study]
name = "grid"
seeds = [0]

[models]
names = {models}

[tasks]
train = "train.csv"
dev = "select.csv"

[training]
epochs = {epochs}
learning_rates = {learning_rates}
batch_size = 32
max_length = {max_length}

[methods]
subsets = [
  ["quantization", "distillation"], ["quantization", "distillation", "pruning"],
  ["quantization"], ["quantization", "pruning"],
]

[methods.quantization]
bits = {bits}

[methods.distillation]
teacher = "{teacher}"

[methods.pruning]
sparsity = [{sparsity}]
"""


def prepare(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    data = load_task(DataSpec(task=arguments.task, max_train_rows=arguments.rows + arguments.select))
    order = np.random.default_rng(0).permutation(len(data.train))
    parts = {
        "train": (data.train, order[: arguments.rows]),
        "select": (data.train, order[arguments.rows :]),
        "test": (data.dev, np.arange(len(data.dev))),
    }
    for name, (split, chosen) in parts.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((split.texts[i], data.task.labels[split.labels[i]]) for i in chosen)
    own = load_task(DataSpec(train=str(folder / "train.csv"), dev=str(folder / "select.csv")))
    training = TrainingSpec(epochs=arguments.epochs, learning_rate=arguments.learning_rate, max_length=MAX_LENGTH)
    rows, tokenizer_json = encode(MODEL, own)
    model, _ = run_trainer("tuned", MODEL, own, rows, training, 0)
    model.save_pretrained(folder / "model")
    (folder / "model" / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")


def compress(arguments: argparse.Namespace) -> dict:
    folder: Path = arguments.folder
    of_size, of_speed = (f"{value:g}" if value else "" for value in (arguments.max_mb, arguments.max_ms))
    out = folder / f"small-{of_size or f'{of_speed}ms'}-{arguments.minutes:g}"
    files = [part for name in ("train", "select", "test") for part in (_OPTIONS[name], str(folder / f"{name}.csv"))]
    limits = ["--time-limit", f"{arguments.minutes:g}"]
    limits += ["--max-mb", of_size] * bool(of_size) + ["--max-ms", of_speed] * bool(of_speed)
    command = ["compress", str(folder / "model"), *files, *limits, "--max-length", f"{MAX_LENGTH}", "-o", str(out)]
    done = subprocess.run([*MULTIPRESS, *command, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    tries = [cell for cell in Store(Path(found["store"])).cells() if cell["methods"]]
    kept = {key: found[key] for key in ("rows", "recipe", "length", "missed", "change")}
    return {**kept, "tries": len(tries)}


_OPTIONS = {"train": "--train", "select": "--dev", "test": "--test"}


def grid(arguments: argparse.Namespace) -> dict:
    folder: Path = arguments.folder
    own = load_task(DataSpec(train=str(folder / "train.csv"), dev=str(folder / "select.csv")))
    teacher = store_original(str(folder / "model"), own.task, MAX_LENGTH, folder, ANYWHERE)
    name = f"grid-{arguments.max_mb:g}-{arguments.minutes:g}"
    study = GRID.format(
        models=json.dumps([str(folder / "model") if model == "model" else model for model in arguments.models]),
        epochs=arguments.epochs,
        learning_rates=arguments.learning_rates,
        max_length=MAX_LENGTH,
        bits=arguments.bits,
        teacher=teacher,
        sparsity=arguments.sparsity,
    )
    (folder / f"{name}.toml").write_text(study, encoding="utf-8")
    runs = folder / name
    command = [*MULTIPRESS, "study", "run", str(folder / f"{name}.toml"), "--runs", str(runs)]
    running = subprocess.Popen(command, start_new_session=True)
    try:
        running.wait(60 * arguments.minutes)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGINT)
        running.wait()
    cells = [cell for cell in Store(runs).cells() if cell["state"] == "done"]
    fitting = [cell for cell in cells if cell["package_bytes"] <= 1e6 * arguments.max_mb]
    if not fitting:
        return {"tries": len(cells), "score": None}
    best = max(fitting, key=lambda cell: cell["score"])
    artifact = Store(runs).done(best["run_id"]) / "artifact"
    command = [*MULTIPRESS, "evaluate", str(artifact), "--data", str(folder / "test.csv"), "--json"]
    said = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    what = {key: best[key] for key in ("model", "methods", "package_bytes")}
    return {"tries": len(cells), "score": said["score"], "select_score": best["score"], **what}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "compress", "grid"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--select", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of the Trainer")
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[3e-4, 1e-3], help="of the grid")
    parser.add_argument("--max-mb", type=float)
    parser.add_argument("--max-ms", type=float, help="of `compress`, in place of a size or beside it")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--models", nargs="+", default=["model"], help="of the grid; `model` is the fine-tuned one")
    parser.add_argument("--bits", nargs="+", type=int, default=[4, 3], help="of the grid")
    parser.add_argument("--sparsity", type=float, default=0.6, help="of the grid")
    parser.add_argument("-o", "--out", type=Path, default=Path("results/budgets.jsonl"))
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve()
    if arguments.what != "prepare" and arguments.max_mb is None and (arguments.what == "grid" or not arguments.max_ms):
        parser.error("a limit is missing")
    if arguments.what == "prepare":
        prepare(arguments)
        return
    started = time.perf_counter()
    found = (compress if arguments.what == "compress" else grid)(arguments)
    asked = {"what": arguments.what, "rows_of": arguments.folder.name}
    asked |= {"max_mb": arguments.max_mb, "max_ms": arguments.max_ms}
    asked |= {"minutes": arguments.minutes, "seconds": round(time.perf_counter() - started)}
    with arguments.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**asked, **found, **facts()}, sort_keys=True) + "\n")
    print(asked, found)


if __name__ == "__main__":
    main()
