"""One model trained for one user: the runs it needs, in this process, and its artifact put where they want it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from multipress.artifact import Artifact, open_artifact
from multipress.checkpoint import save_model
from multipress.engines.execute import ANYWHERE, Executor, OnStep, Places, read_measurements
from multipress.engines.identity import artifact_sha256, identity_of
from multipress.errors import ArtifactError, InputError, MultipressError, RunError
from multipress.models import load_pretrained
from multipress.models.pretrained import identify
from multipress.recipe import Recipe
from multipress.records import Measurement
from multipress.spec import RunSpec
from multipress.store import Store
from multipress.tasks import TaskData, load_task

__all__ = ["Trained", "train_artifact"]


@dataclass(frozen=True)
class Trained:
    """What `train_artifact` made.

    Args:
        artifact: The artifact at its final place.
        measurements: Quality and sizes of that artifact.
        data: The rows it was trained and scored on.
    """

    artifact: Artifact
    measurements: list[Measurement]
    data: TaskData


def train_artifact(
    spec: RunSpec, out: Path, *, teacher: str = "", places: Places = ANYWHERE, on_step: OnStep | None = None
) -> Trained:
    """Train a model under a recipe and put its artifact at `out`.

    Everything on the way lies in `<out>.partial`, a store of runs: the same call goes on where it was stopped.

    Args:
        spec: The run, kind `train`; its methods may leave settings out.
        out: Folder to make; must not exist yet or be empty.
        teacher: For distillation: an artifact, a fine-tuned classifier, or an encoder to fine-tune first; empty: the
            model itself, fine-tuned without compression.
        places: Where models and data are found.
        on_step: Called after each step with the steps done, all steps, and the loss.

    Raises:
        InputError: model, data, settings or `out` cannot be used.
        RunError: the training failed.
    """
    recipe = Recipe.from_specs(spec.methods)
    if teacher and "teacher_logits" not in recipe.needs():
        raise InputError("A teacher is given, but no method learns from one. Add --method distillation.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(f"{out} exists already. Name another place, or remove it.")
    data = load_task(spec.data, places.data_dir)
    spec = replace(spec, methods=recipe.specs())
    store = Store(out.parent / f"{out.name}.partial")
    store.check_writable()
    executor = Executor(store, places)
    if "teacher_logits" in recipe.needs():
        label = _label_spec(spec, teacher, data, store, executor, places)
        spec = replace(spec, teacher=_execute(label[0], label[1], store, executor, None))
    model_sha256 = identify(spec.model, places.models_dir).sha256
    run_id = identity_of(spec, model_sha256=model_sha256, data_sha256=data.sha256)
    _execute(run_id, spec, store, executor, on_step)
    done = store.done(run_id)
    assert done is not None
    measurements = read_measurements(done / "measurements.jsonl")
    if out.exists():
        out.rmdir()
    os.rename(done / "artifact", out)
    shutil.rmtree(store.folder)
    return Trained(open_artifact(out), measurements, data)


def _execute(run_id: str, spec: RunSpec, store: Store, executor: Executor, on_step: OnStep | None) -> str:
    """Execute a run if it is not done; returns its id.

    Raises:
        InputError: it was refused.
        RunError: it failed.
    """
    store.register(run_id, spec.to_json())
    executor.execute(run_id, spec, on_step)
    run = store.run(run_id)
    if run.state == "refused":
        raise InputError(run.why)
    if run.state != "done":
        raise RunError(run.why or f"Another process is at work in {store.folder}. Wait for it.")
    return run_id


def _label_spec(
    spec: RunSpec, teacher: str, data: TaskData, store: Store, executor: Executor, places: Places
) -> tuple[str, RunSpec]:
    """The run that makes the teacher's logits; a teacher that must be trained is trained here."""
    name = teacher or spec.model
    folder = Path(name)
    if not (folder / "manifest.json").is_file():
        adopted = _adopt(name, spec, data, store.folder / "teacher", places) if teacher else None
        if adopted is None:
            dense = replace(spec, model=name, methods=())
            model_sha256 = identify(name, places.models_dir).sha256
            run_id = identity_of(dense, model_sha256=model_sha256, data_sha256=data.sha256)
            label = RunSpec("label", name, spec.data, teacher=_execute(run_id, dense, store, executor, None))
            return identity_of(label, model_sha256=model_sha256, data_sha256=data.sha256), label
        folder = adopted
    label = RunSpec("label", str(folder), spec.data)
    return identity_of(label, model_sha256=artifact_sha256(folder), data_sha256=data.sha256), label


def _adopt(name: str, spec: RunSpec, data: TaskData, folder: Path, places: Places) -> Path | None:
    """Store a classifier that was fine-tuned elsewhere as an artifact; None if it has no head for these labels."""
    pretrained = load_pretrained(name, label_names=data.task.labels, seed=spec.seed, models_dir=places.models_dir)
    if pretrained.new_head:
        return None
    facts = {"run_id": "", "task": data.task.to_json(), "max_length": spec.training.max_length}
    try:
        save_model(folder, pretrained.model, tokenizer_json=pretrained.tokenizer_json, facts=facts)
    except MultipressError as error:
        raise InputError(f"The teacher {name} cannot be stored: {error}") from None
    return folder
