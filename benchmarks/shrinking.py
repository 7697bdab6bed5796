"""What a shrunk encoder is worth, against random weights of the same shape and other folders, by steps of recovery.

    python benchmarks/shrinking.py --shapes 2x128 3x192 --steps 0 100 400 --encoders DIR -o results/shrinking.jsonl
    python benchmarks/shrinking.py --shapes 2x128 --folders FOLDER --encoders DIR -o results/shrinking.jsonl

For each encoder: Spearman correlation of mean-pooled vectors' cosines on STS-B's whole validation set without any
training, and the score after fine-tuning on each task (whole validation or test set) with each of the learning rates,
which are the same for all encoders; compare the best of each. What is in the file or in DIR already is not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from scipy.stats import spearmanr
from transformers import BertConfig, BertModel

from multipress.engines.single import train_artifact
from multipress.models import load_pretrained
from multipress.models.catalogue import Shape
from multipress.models.encoder import model_inputs
from multipress.models.pretrained import identify
from multipress.reproducibility import computer, library_versions
from multipress.runtime.tokenizer import TextEncoder
from multipress.shrink import shrink_encoder
from multipress.spec import DataSpec, RunSpec, TrainingSpec
from multipress.tasks import load_task
from multipress.train import Rows, collate

SOURCE = "minilm-l6"
TRAINING = TrainingSpec(epochs=2, batch_size=16, max_length=64)


def random_encoder(shape: Shape, out: Path) -> Path:
    """A folder of this shape with weights as transformers draws them, seed 0, and the source's tokenizer."""
    checked = identify(SOURCE)
    values = checked.config.to_dict() | {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
    }
    torch.manual_seed(0)
    BertModel(BertConfig(**values)).save_pretrained(out)
    (out / "tokenizer.json").write_text(checked.tokenizer_json, encoding="utf-8")
    return out


@torch.no_grad()
def similarity(folder: str) -> float:
    """Spearman correlation of STS-B's scores with the cosines of mean-pooled last hidden states."""
    data = load_task(DataSpec(task="stsb")).dev
    loaded = load_pretrained(folder, label_names=(), seed=0)
    model = loaded.model.eval()
    encoder = TextEncoder(loaded.tokenizer_json, 128)
    vectors = []
    for texts in (data.texts, data.pairs):
        rows = Rows(encoder.encode(texts), None, encoder.pad_id)
        found = []
        for first in range(0, len(texts), 64):
            batch = collate(rows, np.arange(first, min(first + 64, len(texts))))
            hidden = model.bert(**model_inputs(model, batch)).last_hidden_state  # (B, T, D)
            mask = (batch["attention_mask"][:, 0, 0, :, None] == 0).float()
            found.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
        vectors.append(np.concatenate(found))
    left, right = vectors
    cosines = (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    return float(spearmanr(cosines, data.labels).statistic)


def fine_tuned(folder: str, task: str, rows: int, rate: float) -> float:
    spec = RunSpec("train", folder, DataSpec(task=task, max_train_rows=rows), replace(TRAINING, learning_rate=rate))
    with tempfile.TemporaryDirectory() as out:
        trained = train_artifact(spec, Path(out) / "artifact")
    return next(row.value for row in trained.measurements if row.name == "score")


def encoders(root: Path, shapes: list[str], all_steps: list[int]) -> dict[str, str]:
    """Folders of the encoders by name; those that are not there are made."""
    folders = {}
    for text, steps in itertools.product(shapes, [None, *all_steps]):
        layers, hidden = map(int, text.split("x"))
        shape = Shape(layers, hidden, hidden // 32, 4 * hidden)
        name = f"{text} {'random' if steps is None else f'{steps} steps'}"
        folder = root / name.replace(" ", "-")
        folders[name] = str(folder)
        if folder.is_dir():
            continue
        started = time.perf_counter()
        if steps is None:
            random_encoder(shape, folder)
        else:
            shrink_encoder(SOURCE, shape, folder, steps=steps)
        print(f"{name}: made in {time.perf_counter() - started:.0f} s", flush=True)
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", required=True, help="LAYERSxHIDDEN, heads of 32")
    parser.add_argument("--steps", nargs="+", type=int, default=[0, 100, 400])
    parser.add_argument("--folders", nargs="*", default=[], help="other encoders of the shapes, with their paths")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "banking77", "qqp"])
    parser.add_argument("--rows", type=int, default=4000, help="most training rows of a task")
    parser.add_argument("--rates", nargs="+", type=float, default=[3e-4, 1e-3])
    parser.add_argument("--encoders", required=True, type=Path, metavar="DIR", help="where encoders are kept")
    parser.add_argument("-o", "--out", required=True, type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = arguments.out
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    asked = (arguments.rows, TRAINING.epochs)
    known = {
        (row["encoder"], row["task"], row["learning_rate"])
        for row in done
        if row["learning_rate"] is None or (row["train_rows"], row["epochs"]) == asked
    }
    facts = {"versions": library_versions("torch", "transformers", "onnxruntime"), "computer": computer()}

    def add(encoder: str, task: str, rate: float | None, score: float, seconds: float) -> None:
        row = {"encoder": encoder, "task": task, "learning_rate": rate, "score": score, "seconds": round(seconds, 1)}
        row |= {"train_rows": arguments.rows if rate else 0, "epochs": TRAINING.epochs if rate else 0, "seed": 0}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | facts, sort_keys=True) + "\n")
        print(encoder, task, rate, round(score, 4), flush=True)

    folders = {Path(folder).name: folder for folder in arguments.folders}
    folders |= encoders(arguments.encoders, arguments.shapes, arguments.steps)
    for name, folder in folders.items():
        if (name, "stsb without training", None) not in known:
            started = time.perf_counter()
            add(name, "stsb without training", None, similarity(folder), time.perf_counter() - started)
        for task, rate in itertools.product(arguments.tasks, arguments.rates):
            if (name, task, rate) not in known:
                started = time.perf_counter()
                score = fine_tuned(folder, task, arguments.rows, rate)
                add(name, task, rate, score, time.perf_counter() - started)


if __name__ == "__main__":
    main()
