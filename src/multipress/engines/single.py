"""One model trained for one user: the runs it needs, in this process, and its artifact put where they want it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from multipress.artifact import Artifact, open_artifact
from multipress.checkpoint import save_model
from multipress.durable import is_free, move_folder
from multipress.engines.execute import Executor, OnStep, read_measurements, read_notes
from multipress.engines.identity import artifact_sha256, identity_of
from multipress.engines.job import ANYWHERE, Places
from multipress.engines.teaching import check_teacher
from multipress.errors import ArtifactError, InputError, ModelError, RunError, SettingError
from multipress.measure import measure_parts, measure_quality, measure_size
from multipress.models import load_pretrained
from multipress.models.pretrained import Checked, identify
from multipress.recipe import Recipe
from multipress.records import Measurement
from multipress.shrink import make_named
from multipress.spec import RunSpec, teaching_kind
from multipress.speed_ahead import shares_for_speedup
from multipress.store import Store
from multipress.tasks import TaskData, load_task

__all__ = ["Trained", "check_given_teacher", "train_artifact"]


def check_given_teacher(spec: RunSpec, teacher: str, places: Places) -> None:
    """Raise `InputError` for a teacher that cannot teach, as far as that can be known without training.

    Args:
        spec: The run.
        teacher: As in `train_artifact`.
        places: Where models and data are found.
    """
    recipe = Recipe.from_specs(spec.methods)
    if not _learns(recipe, teacher) or not teacher:
        return
    task = load_task(spec.data, places.data_dir).task
    is_artifact = (Path(teacher) / "manifest.json").is_file()
    checked = None if is_artifact else identify(teacher, places.models_dir)
    if checked is not None:
        checked.check_target(task.target)
    own = checked.tokenizer if checked is not None else 0
    check_teacher(teacher, own, recipe, task, identify(spec.model, places.models_dir).tokenizer)


def _learns(recipe: Recipe, teacher: str) -> bool:
    """Whether a method learns from a teacher; a teacher for none is an error."""
    if teacher and not recipe.learns():
        raise InputError("A teacher is given, but no method learns from one. Add --method distillation.")
    return recipe.learns()


@dataclass(frozen=True)
class Trained:
    """What `train_artifact` made.

    Args:
        artifact: The artifact at its final place.
        measurements: Quality and sizes of that artifact.
        notes: What a user should know of the rows and the model.
    """

    artifact: Artifact
    measurements: list[Measurement]
    notes: tuple[str, ...]


def train_artifact(
    spec: RunSpec,
    out: Path,
    *,
    teacher: str = "",
    places: Places = ANYWHERE,
    on_step: OnStep | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Trained:
    """Train a model under a recipe and put its artifact at `out`.

    Everything on the way lies in `<out>.partial`, a store of runs: the same call goes on where it was stopped, and
    does nothing if `out` holds its result already.

    Args:
        spec: The run, kind `train`; its methods may leave settings out.
        out: Folder to make; must not exist yet or be empty.
        teacher: For distillation: an artifact, a fine-tuned classifier, or an encoder to fine-tune first; empty: the
            model itself, fine-tuned without compression.
        places: Where models and data are found.
        on_step: Called after each step with the steps done, all steps, and the loss; of the teacher's training too.
        on_note: Called with what happens on the way: a teacher that is fine-tuned first, and its score.

    Raises:
        InputError: model, data, settings or `out` cannot be used.
        RunError: the training failed.
    """
    recipe = Recipe.from_specs(spec.methods)  # what is wrong is said first
    learns_from_teacher = _learns(recipe, teacher)
    for name in filter(None, (spec.model, teacher)):
        make_named(name, on_step=on_step, on_note=on_note)
    checked = identify(spec.model, places.models_dir)
    checked.check_length(spec.training.max_length)
    data = load_task(spec.data, places.data_dir)
    checked.check_target(data.task.target)
    recipe.check_target(data.task.target)
    recipe = Recipe.from_specs(shares_for_speedup(recipe.specs(), checked.config, on_note))
    spec = replace(spec, methods=recipe.specs())
    single = _Single(Store(out.parent / f"{out.name}.partial"), places, data)
    label_id, label = single.name_label(spec, teacher) if learns_from_teacher else ("", None)
    spec = replace(spec, teacher=label_id)
    run_id = identity_of(spec, model_sha256=checked.sha256, data_sha256=data.sha256)
    single.check_free({run_id, label_id, label.teacher if label else ""})
    if _is_there(out, run_id):
        shutil.rmtree(single.store.folder, ignore_errors=True)
        artifact = open_artifact(out)
        quality, outputs = measure_quality(artifact, data.dev, data.task)
        parts = measure_parts(artifact, data.dev, outputs, data.dev_unseen, checked.tokenizer_json)
        measurements = [*quality, *parts, *measure_size(artifact)]
        return Trained(artifact, measurements, (f"{out} was there already.", *data.notes))
    try:
        if label is not None:
            single.make_label(label_id, label, spec, on_step, on_note)
        single.execute(run_id, spec, on_step)
    except InputError:
        single.tidy()
        raise
    done = single.store.done(run_id)
    assert done is not None
    measurements, notes = read_measurements(done), read_notes(done)
    move_folder(done / "artifact", out)
    shutil.rmtree(single.store.folder)
    return Trained(open_artifact(out), measurements, notes)


def _is_there(out: Path, run_id: str) -> bool:
    """Whether `out` holds this run's artifact.

    Raises:
        ArtifactError: it holds something else.
    """
    if is_free(out):
        return False
    try:
        if open_artifact(out).facts["run_id"] == run_id:
            return True
    except ArtifactError:
        pass
    raise ArtifactError(f"{out} exists already and holds something else. Name another place, or remove it.")


class _Single:
    """The runs that one artifact needs, executed here one after the other."""

    def __init__(self, store: Store, places: Places, data: TaskData) -> None:
        self.store = store
        self._places = places
        self._data = data

    def execute(self, run_id: str, spec: RunSpec, on_step: OnStep | None) -> None:
        """Execute a run if it is not done.

        Raises:
            InputError: it was refused.
            RunError: it failed.
        """
        self.store.check_writable()
        self.store.register(run_id, spec.to_json())
        Executor(self.store, self._places).execute(run_id, spec, on_step)
        run = self.store.run(run_id)
        if run.state == "refused":
            raise InputError(run.why)
        if run.state != "done":
            raise RunError(run.why)

    def check_free(self, run_ids: set[str]) -> None:
        """Raise `SettingError` if the folder for what is on the way holds anything but these runs."""
        if not self.store.folder.is_dir():
            return
        # What ended for good may be tried with other settings; what can go on, or is a user's file, must not be lost.
        # A name with a dot is what a crash left of the store's own writing.
        names = {entry.name for entry in self.store.folder.iterdir() if not entry.name.startswith(".")} - {"teachers"}
        ended = {run.run_id for run in self.store.runs() if run.state in ("refused", "diverged")}
        if names - run_ids - ended:
            raise SettingError(
                f"{self.store.folder} holds something else, such as an unfinished training with other settings. Go "
                "on with the same command as then, name another place with -o, or remove that folder."
            )

    def tidy(self) -> None:
        """Remove the folder for what is on the way, unless it holds work that is done, such as a teacher."""
        if self.store.folder.is_dir() and not any(run.state == "done" for run in self.store.runs()):
            shutil.rmtree(self.store.folder)

    def make_label(
        self, run_id: str, label: RunSpec, spec: RunSpec, on_step: OnStep | None, on_note: Callable[[str], None]
    ) -> None:
        """Make the teacher's logits, and the teacher first where it must be trained, as `spec` without its methods."""
        if label.teacher:
            dense = replace(spec, model=label.model, methods=(), teacher="")
            if self.store.done(label.teacher) is None:
                itself = label.model == spec.model
                advice = " A larger model, named by --teacher, teaches more than the model itself." if itself else ""
                on_note(f"The teacher, {label.model}, is fine-tuned first, without compression.{advice}")
            self.execute(label.teacher, dense, on_step)
            done = self.store.done(label.teacher)
            assert done is not None
            score = next(row.value for row in read_measurements(done) if row.name == "score")
            on_note(f"The teacher's score is {score:.4f}.")
        self.execute(run_id, label, None)

    def name_label(self, spec: RunSpec, teacher: str) -> tuple[str, RunSpec]:
        """The run that makes the teacher's logits, and its identity; a classifier made elsewhere is stored first."""
        name = teacher or spec.model
        folder = Path(name)
        if teacher and not (folder / "manifest.json").is_file():
            folder = self._adopt(name, spec) or folder
        recipe = Recipe.from_specs(spec.methods)
        target = self._data.task.target
        wanted = recipe.label_specs(target)
        kind = teaching_kind(wanted)
        is_artifact = (folder / "manifest.json").is_file()
        own = 0 if is_artifact else self._checked(name).tokenizer
        check_teacher(str(folder), own, recipe, self._data.task, self._checked(spec.model).tokenizer)
        if is_artifact:
            label = RunSpec(kind, str(folder), spec.data, methods=wanted)
            return self._identity(label, artifact_sha256(folder)), label
        self._checked(name).check_target(target)
        model_sha256 = self._checked(name).sha256
        dense = replace(spec, model=name, methods=(), teacher="")
        label = RunSpec(kind, name, spec.data, methods=wanted, teacher=self._identity(dense, model_sha256))
        return self._identity(label, model_sha256), label

    def _adopt(self, name: str, spec: RunSpec) -> Path | None:
        """Store a classifier that was fine-tuned elsewhere as an artifact; None if it is an encoder without a head.

        Raises:
            SettingError: it has a head for other labels.
        """
        task = self._data.task
        self._checked(name).check_target(task.target)
        if not self._checked(name).tokenizer_json:
            return None
        pretrained = load_pretrained(name, label_names=task.labels, seed=spec.seed, models_dir=self._places.models_dir)
        if pretrained.note:
            raise SettingError(
                f"The teacher {name} was fine-tuned for other labels than {', '.join(task.labels[:5])}... "
                "Names and order must be equal; set id2label in its config.json if they only lack their names."
            )
        if pretrained.new_head:
            return None
        folder = self.store.folder / "teachers" / pretrained.sha256[:12] / Path(name).name
        if not (folder / "manifest.json").is_file():
            facts = {"run_id": "", "task": task.to_json(), "max_length": spec.training.max_length}
            try:
                save_model(folder, pretrained.model, tokenizer_json=pretrained.tokenizer_json, facts=facts)
            except ArtifactError as error:
                raise ModelError(f"The teacher {name} cannot be stored: {error}") from None
        return folder

    def _checked(self, name: str) -> Checked:
        return identify(name, self._places.models_dir)

    def _identity(self, spec: RunSpec, model_sha256: str) -> str:
        return identity_of(spec, model_sha256=model_sha256, data_sha256=self._data.sha256)
