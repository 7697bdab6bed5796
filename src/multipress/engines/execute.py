"""One run from its spec to its result in the store. What runs of one process have in common is made once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save

from multipress.artifact import Artifact
from multipress.checkpoint import save_model
from multipress.durable import write_bytes, write_json, write_text
from multipress.engines.identity import LIBRARIES, THREADS
from multipress.errors import DivergedError, InputError, MultipressError, RunError
from multipress.measure import measure_quality, measure_size
from multipress.methods import Context
from multipress.models import load_pretrained, read_first_token_only
from multipress.precision import route
from multipress.recipe import Recipe
from multipress.records import Measurement
from multipress.reproducibility import computer, library_versions
from multipress.runtime import Predictor
from multipress.runtime.tokenizer import TextEncoder
from multipress.spec import DataSpec, RunSpec
from multipress.store import Attempt, Store
from multipress.tasks import TaskData, load_task
from multipress.train import Rows, Saving, train

__all__ = ["ANYWHERE", "Executor", "OnStep", "Places", "read_measurements", "teach", "write_measurements"]

OnStep = Callable[[int, int, float], None]
LOG_EVERY_STEPS = 10
LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Places:
    """Where models and data are found; no part of a run's identity.

    Args:
        data_dir: Folder with `glue/<task>/<split>.parquet`; None: `MULTIPRESS_DATA`, then the hub.
        models_dir: Folder of model folders; None: `MULTIPRESS_MODELS`, then the hub.
    """

    data_dir: Path | None = None
    models_dir: Path | None = None


ANYWHERE = Places()  # what the environment names, and the hub


@dataclass
class _Log:
    """Collects the training log; it is written once, when the training has ended."""

    on_step: OnStep | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, done: int, total: int, loss: float) -> None:
        if done % LOG_EVERY_STEPS == 0 or done == total:
            self.lines.append({"step": done, "loss": loss})
        if self.on_step is not None:
            self.on_step(done, total, loss)

    def text(self, seconds: float) -> str:
        lines = [*self.lines, {"training_seconds": round(seconds, 1)}]
        return "".join(json.dumps(line) + "\n" for line in lines)


class Executor:
    """Executes runs of a store, one after the other, in this process.

    Args:
        store: Where runs are claimed and committed.
        places: Where models and data are found.
    """

    def __init__(self, store: Store, places: Places) -> None:
        self._store = store
        self._places = places
        torch.set_num_threads(THREADS)

    def execute(self, run_id: str, spec: RunSpec, on_step: OnStep | None = None) -> None:
        """Claim a run, execute it, and commit it or say why it failed; a run that is done is left alone.

        While another process works on the run, this one waits: what needs the run needs its result, whoever made it.
        """
        attempt = self._store.claim(run_id)
        while attempt is None:
            if self._store.done(run_id) is not None:
                return
            time.sleep(LOOK_AGAIN_SECONDS)
            attempt = self._store.claim(run_id)
        try:
            if spec.kind == "label":
                self._label(spec, attempt)
            else:
                self._train(spec, attempt, on_step)
        except DivergedError as error:
            attempt.fail("diverged", str(error), retryable=False)
        except InputError as error:
            attempt.fail("refused", str(error), retryable=False)
        except MultipressError as error:
            attempt.fail("failed", str(error), retryable=True)
        except Exception as error:  # noqa: BLE001 - any error of a library fails this run alone
            attempt.fail("failed", f"{type(error).__name__}: {error}", retryable=True)
        else:
            attempt.commit()
        finally:
            attempt.release()

    def _train(self, spec: RunSpec, attempt: Attempt, on_step: OnStep | None) -> None:
        """Train, store the artifact, open that again and measure it, all below the attempt's folder."""
        data = _load_data(spec.data, self._places)
        pretrained = load_pretrained(
            spec.model,
            label_names=data.task.labels,
            seed=spec.seed,
            dropout=spec.training.dropout,
            models_dir=self._places.models_dir,
        )
        teacher_logits = self._logits_of(spec.teacher, len(data.train)) if spec.teacher else None
        saving = Saving(attempt.folder.parent / "checkpoint.safetensors", attempt.run_id)
        log = _Log(on_step)
        started = time.perf_counter()
        model = train(
            read_first_token_only(pretrained.model),
            _encode(pretrained.tokenizer_json, spec.training.max_length, spec.data, self._places),
            Recipe.from_specs(spec.methods),
            spec.training,
            Context(data.task.target, spec.seed, teacher_logits),
            saving=saving,
            on_step=log,
        )
        write_text(attempt.folder / "log.jsonl", log.text(time.perf_counter() - started))
        artifact = save_model(
            attempt.folder / "artifact",
            model,
            tokenizer_json=pretrained.tokenizer_json,
            facts=_facts(attempt.run_id, spec, data),
        )
        _measure(artifact, data, attempt.folder)
        saving.path.unlink(missing_ok=True)

    def _label(self, spec: RunSpec, attempt: Attempt) -> None:
        folder = Path(spec.model)
        if spec.teacher:
            done = self._store.done(spec.teacher)
            if done is None:
                raise RunError(f"The teacher, run {spec.teacher}, is not done.")
            folder = done / "artifact"
        data = _load_data(spec.data, self._places)
        logits = teach(folder, data)
        write_bytes(attempt.folder / "logits.safetensors", save({"logits": logits}))

    def _logits_of(self, run_id: str, num_rows: int) -> torch.Tensor:
        done = self._store.done(run_id)
        if done is None:
            raise RunError(f"The teacher's logits, run {run_id}, are not done.")
        logits = load_file(done / "logits.safetensors")["logits"]
        if len(logits) != num_rows:
            raise RunError(f"Run {run_id} holds logits of {len(logits)} rows, not of {num_rows}.")
        return torch.from_numpy(logits)


def teach(folder: Path, data: TaskData) -> np.ndarray:
    """Logits (N, C), float32, of the artifact in `folder` on the training rows.

    Raises:
        InputError: its labels are not the task's, in the same order.
    """
    predictor = Predictor(folder)
    labels = tuple(predictor.artifact.facts["task"]["labels"])
    if labels != data.task.labels:
        raise InputError(
            f"The teacher {folder.name} knows the labels {', '.join(labels[:5])}..., not those of {data.task.name}. "
            "Names and order must be equal."
        )
    return predictor.logits(data.train.texts, data.train.pairs)


def _facts(run_id: str, spec: RunSpec, data: TaskData) -> dict[str, Any]:
    """What an artifact says of how it was made; names of files without their folders."""
    named = replace(spec.data, train=Path(spec.data.train).name, dev=Path(spec.data.dev).name)
    return {
        "run_id": run_id,
        "spec": replace(spec, data=named).to_json(),
        "task": data.task.to_json(),
        "max_length": spec.training.max_length,
        "route": route(),
        "versions": library_versions("multipress", *LIBRARIES),
        "computer": computer(),
    }


def _measure(artifact: Artifact, data: TaskData, folder: Path) -> None:
    """Score and weigh a stored artifact; writes measurements, predictions on the validation rows, and data facts."""
    quality, logits = measure_quality(artifact, data.dev, data.task)
    write_measurements(folder / "measurements.jsonl", [*quality, *measure_size(artifact)])
    write_bytes(folder / "predictions.safetensors", save({"logits": logits, "labels": data.dev.labels}))
    write_json(folder / "data.json", {"sha256": data.sha256, "notes": list(data.notes), "facts": data.facts})


def write_measurements(path: Path, rows: list[Measurement]) -> None:
    """Measurement rows as JSON lines."""
    write_text(path, "".join(json.dumps(row.to_json(), sort_keys=True) + "\n" for row in rows))


def read_measurements(path: Path) -> list[Measurement]:
    """The rows that `write_measurements` wrote."""
    return [Measurement(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


@lru_cache(maxsize=4)
def _load_data(spec: DataSpec, places: Places) -> TaskData:
    return load_task(spec, places.data_dir)


@lru_cache(maxsize=4)
def _encode(tokenizer_json: str, max_length: int, data: DataSpec, places: Places) -> Rows:
    rows = _load_data(data, places).train
    encoder = TextEncoder(tokenizer_json, max_length)
    return Rows(encoder.encode(rows.texts, rows.pairs), rows.labels, encoder.pad_id)
