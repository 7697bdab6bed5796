r"""Examples per second of our training loop against the Hugging Face Trainer, naive and tuned, alternating in one run.

    python benchmarks/training.py speed --models minilm-l6 minilm-l3 --rounds 3 -o results/training-speed.json
    python benchmarks/training.py scores --tasks rte mrpc cola stsb --models minilm-l6 --rows 0 \
        --learning-rates 5e-5 1e-4 2e-4 -o results/training-scores.jsonl

- *naive*: Trainer, float32, every text padded to 128 tokens, torch's default attention.
- *tuned*: Trainer with dynamic padding, batches grouped by length, the fused optimizer, and bfloat16 where the CPU
  multiplies it in hardware.
- *ours*: `multipress.train`; *ours, dropout 0.1* is the same with the rivals' dropout.

All start from the same weights, with the same rows, batch size, schedule and learning rate, one thread, tokenization
done before. The Trainer keeps the dropout of the model's config (0.1), as a user would; ours has none by default.
`speed` times a whole epoch of 50 batches (one of the Trainer's groups by length, so that long and short batches are in
it as often as in a long training; the naive rival, whose batches are all alike, 6 batches), after a warm-up, and prints
the median over rounds. `scores` trains to the end and scores the whole validation set (the Trainer's model by torch,
ours from the stored artifact); the naive rival, which differs from the tuned one in padding only, is left out there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

from multipress.checkpoint import save_model
from multipress.measure import measure_quality
from multipress.methods import Context
from multipress.models import load_pretrained, read_first_token_only
from multipress.models.encoder import encoder_linears
from multipress.numbers import Numbers
from multipress.precision import product_rate, route
from multipress.recipe import Recipe
from multipress.reproducibility import computer, cpu_flags, library_versions
from multipress.runtime.tokenizer import TextEncoder, batches_by_length, pad_batch
from multipress.spec import DataSpec, TrainingSpec
from multipress.tasks import TaskData, evaluate_logits, load_task
from multipress.train import Rows, train

MAX_LENGTH = 128
GROUP_BATCHES = 50  # the Trainer sorts so many batches together by length
NAIVE_STEPS = 6


class Stopwatch(TrainerCallback):
    """Notes the time at the beginning and after every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.times.append(time.perf_counter())

    def on_step_end(self, args, state, control, **kwargs):
        self.times.append(time.perf_counter())


def fast_tokenizer(tokenizer_json: str) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer

    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer_json), **names)


def trainer_rows(rows: Rows, padded: bool) -> list[dict]:
    table = []
    for encoding, label in zip(rows.encodings, rows.labels, strict=True):
        fill = MAX_LENGTH - len(encoding.ids) if padded else 0
        table.append(
            {
                "input_ids": encoding.ids + [rows.pad_id] * fill,
                "token_type_ids": encoding.type_ids + [0] * fill,
                "attention_mask": [1] * len(encoding.ids) + [0] * fill,
                "labels": label.item(),
            }
        )
    return table


class DistillingTrainer(Trainer):
    """Learns from a teacher that runs in each step, as scripts with the Trainer do it; temperature 4, both halves."""

    teacher: torch.nn.Module

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        outputs = model(**inputs)
        with torch.no_grad():
            wanted = self.teacher(**{key: value for key, value in inputs.items() if key != "labels"}).logits / 4
        found = (outputs.logits / 4).log_softmax(-1)
        divergence = torch.nn.functional.kl_div(found, wanted.log_softmax(-1), reduction="batchmean", log_target=True)
        loss = outputs.loss / 2 + 8 * divergence
        return (loss, outputs) if return_outputs else loss


def run_trainer(
    kind: str,
    name: str,
    data: TaskData,
    rows: Rows,
    training: TrainingSpec,
    seed: int,
    steps: int = -1,
    teacher: torch.nn.Module | None = None,
):
    """Train with the Hugging Face Trainer; returns the model and the times after each step."""
    pretrained = load_pretrained(name, label_names=data.task.labels, seed=seed, dropout=0.1)
    pretrained.model.set_attn_implementation("sdpa")
    tuned = kind == "tuned"
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            folder,
            num_train_epochs=training.epochs,
            max_steps=steps,
            per_device_train_batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            warmup_steps=round(training.warmup * training.epochs * len(rows.labels) / training.batch_size),
            train_sampling_strategy="group_by_length" if tuned else "random",
            bf16=tuned and bool(cpu_flags() & {"avx512_bf16", "amx_bf16"}),
            use_cpu=True,
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = (DistillingTrainer if teacher else Trainer)(
            pretrained.model,
            arguments,
            train_dataset=trainer_rows(rows, padded=not tuned),
            data_collator=DataCollatorWithPadding(fast_tokenizer(pretrained.tokenizer_json)),
            callbacks=[watch],
        )
        trainer.teacher = teacher
        trainer.train()
    return pretrained.model.eval(), watch.times


def run_ours(name: str, data: TaskData, rows: Rows, training: TrainingSpec, seed: int):
    """Train with our loop; returns the model, its tokenizer, and the times at the beginning and after each step."""
    pretrained = load_pretrained(name, label_names=data.task.labels, seed=seed, dropout=training.dropout)
    if data.task.target == "number":
        Numbers.of(rows.labels).into(pretrained.model)
    times = [time.perf_counter()]
    model = train(
        read_first_token_only(pretrained.model),
        rows,
        Recipe([]),
        training,
        Context(data.task.target, seed),
        on_step=lambda *_: times.append(time.perf_counter()),
    )
    return model, pretrained.tokenizer_json, times


def examples_per_second(times: list[float], num_rows: int) -> float:
    return num_rows / (times[-1] - times[0])


def encode(name: str, data: TaskData) -> tuple[Rows, str]:
    tokenizer_json = load_pretrained(name, label_names=data.task.labels, seed=0).tokenizer_json
    encoder = TextEncoder(tokenizer_json, MAX_LENGTH)
    return Rows(encoder.encode(data.train.texts, data.train.pairs), data.train.labels, encoder.pad_id), tokenizer_json


def speed(arguments: argparse.Namespace) -> dict:
    training = TrainingSpec(epochs=1, learning_rate=1e-5, max_length=MAX_LENGTH)
    num_rows = GROUP_BATCHES * training.batch_size
    data = load_task(DataSpec(task="sst2", max_train_rows=num_rows))
    result: dict = {"rows": num_rows, "batch_size": training.batch_size, "route": route(), "models": {}}
    for name in arguments.models:
        rows, _ = encode(name, data)
        warm = Rows(rows.encodings[:64], rows.labels[:64], rows.pad_id)
        found: dict[str, list[float]] = {"naive": [], "tuned": [], "ours, dropout 0.1": [], "ours": []}
        for round_number in range(arguments.rounds):
            for kind, rates in found.items():
                if kind in ("naive", "tuned"):
                    steps = NAIVE_STEPS if kind == "naive" else -1
                    run_trainer(kind, name, data, warm, training, round_number, 1)
                    times = run_trainer(kind, name, data, rows, training, round_number, steps)[1]
                    done = NAIVE_STEPS * training.batch_size if kind == "naive" else num_rows
                else:
                    ours = replace(training, dropout=0.1 if kind != "ours" else 0.0)
                    run_ours(name, data, warm, ours, round_number)
                    times, done = run_ours(name, data, rows, ours, round_number)[2], num_rows
                rates.append(examples_per_second(times, done))
        medians = {kind: statistics.median(values) for kind, values in found.items()}
        result["models"][name] = {
            "examples_per_second": medians,
            "all_rounds": found,
            "ours_over_tuned": medians["ours"] / medians["tuned"],
            "ours_with_dropout_over_tuned": medians["ours, dropout 0.1"] / medians["tuned"],
            "ours_over_naive": medians["ours"] / medians["naive"],
            **limits(name, data, rows, medians["ours"]),
        }
        print(name, {k: round(v, 2) for k, v in medians.items()}, flush=True)
    return result


def limits(name: str, data: TaskData, rows: Rows, rate: float) -> dict[str, float]:
    """How far our loop is from what matrix products alone would allow."""
    model = load_pretrained(name, label_names=data.task.labels, seed=0).model
    weights = sum(module.weight.numel() for module in encoder_linears(model).values())
    layers = model.config.num_hidden_layers
    tokens = float(np.mean([len(row.ids) for row in rows.encodings]))
    needed = 6 * weights * (layers - 5 / 6) / layers * tokens / 1e9
    peak = product_rate(1024, 1024, 1024) / 1e9
    return {
        "gflop_per_example": needed,
        "matrix_product_gflop_per_second": peak,
        "share_of_matrix_product_peak": rate * needed / peak,
    }


def scores(arguments: argparse.Namespace) -> None:
    out = Path(arguments.out)
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    keys = ("task", "model", "kind", "seed", "learning_rate", "epochs", "train_rows")
    known = {tuple(row[key] for key in keys) for row in done}
    cells = itertools.product(arguments.tasks, arguments.models, arguments.seeds, arguments.learning_rates)
    for task, name, seed, rate in cells:
        data = load_task(DataSpec(task=task, max_train_rows=arguments.rows))
        rows, tokenizer_json = encode(name, data)
        training = TrainingSpec(epochs=arguments.epochs, learning_rate=rate, max_length=MAX_LENGTH)
        for kind in arguments.kinds:
            if (task, name, kind, seed, rate, training.epochs, len(data.train)) in known:
                continue
            started = time.perf_counter()
            if kind == "tuned":
                model, _ = run_trainer(kind, name, data, rows, training, seed)
                logits = torch_logits(model, tokenizer_json, data)
            else:
                dropout = 0.0 if kind == "ours" else 0.1
                model, _, _ = run_ours(name, data, rows, replace(training, dropout=dropout), seed)
                logits = artifact_logits(model, tokenizer_json, data)
            score = evaluate_logits(data.task, logits, data.dev.labels)["score"]
            row = {"task": task, "model": name, "kind": kind, "seed": seed, "score": score}
            row |= {"train_rows": len(data.train), "dev_rows": len(data.dev), "epochs": training.epochs}
            row |= {"learning_rate": rate, "seconds": round(time.perf_counter() - started, 1), **facts()}
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, sort_keys=True) + "\n")
            print({key: row[key] for key in ("task", "model", "kind", "seed", "score", "seconds")}, flush=True)


def torch_logits(model: torch.nn.Module, tokenizer_json: str, data: TaskData) -> np.ndarray:
    """Logits of the validation rows by torch, in batches of similar length."""
    encoder = TextEncoder(tokenizer_json, MAX_LENGTH)
    rows = encoder.encode(data.dev.texts, data.dev.pairs)
    logits = np.zeros((len(rows), data.task.num_outputs), np.float32)
    for chosen in batches_by_length([len(row.ids) for row in rows], 32):
        batch = pad_batch([rows[index] for index in chosen], encoder.pad_id)
        with torch.no_grad():
            logits[chosen] = model(**{key: torch.from_numpy(value) for key, value in batch.items()}).logits.numpy()
    return logits


def artifact_logits(model: torch.nn.Module, tokenizer_json: str, data: TaskData) -> np.ndarray:
    said = {"run_id": "", "task": data.task.to_json(), "max_length": MAX_LENGTH}
    with tempfile.TemporaryDirectory() as folder:
        artifact = save_model(Path(folder) / "artifact", model, tokenizer_json=tokenizer_json, facts=said)
        return measure_quality(artifact, data.dev, data.task)[1]


def facts() -> dict:
    return {"versions": library_versions("torch", "transformers", "accelerate", "onnxruntime"), "computer": computer()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "scores"])
    parser.add_argument("--models", nargs="+", default=["minilm-l6", "minilm-l3"])
    parser.add_argument("--tasks", nargs="+", default=["sst2", "banking77"])
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[1e-4], help="each with each task")
    parser.add_argument("--kinds", nargs="+", default=["tuned", "ours"], help='also: "ours, dropout 0.1"')
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rows", type=int, default=10_000, help="most training rows; 0: all")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--out", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "scores":
        scores(arguments)
        return
    result = {**speed(arguments), **facts()}
    Path(arguments.out).write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
