"""A study: expand the grid to a tree of runs, skip what is done, keep going on failure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from multipress.engines.execute import ANYWHERE, Places
from multipress.engines.identity import artifact_sha256, identity_of
from multipress.engines.local import Job, default_workers, run_jobs
from multipress.errors import SettingError, SpecError
from multipress.methods import get_method
from multipress.models.bert import expected_shapes
from multipress.models.pretrained import Checked, identify
from multipress.recipe import Recipe
from multipress.records import Run
from multipress.spec import DataSpec, MethodSpec, RunSpec, StudySpec
from multipress.store import Store, cell_row
from multipress.tasks import TaskData, load_task

__all__ = ["Plan", "choose_rates", "expand_recipes", "run_study"]

PAPER_METHODS = (
    "quantization",
    "distillation",
    "pruning",
)  # of the eight subsets that `subsets = "all"` means
DENSE: tuple[MethodSpec, ...] = ()


def expand_recipes(study: StudySpec) -> list[tuple[MethodSpec, ...]]:
    """Every recipe of the grid, the dense control first: subsets times the product of the settings given as lists.

    Raises:
        SpecError: an unknown method, or settings of a method that no subset uses.
        SettingError: a setting that cannot be used, or methods that do not combine.
    """
    subsets = study.subsets
    if isinstance(subsets, str):
        subsets = tuple(
            subset for size in range(len(PAPER_METHODS) + 1) for subset in itertools.combinations(PAPER_METHODS, size)
        )
    used = {name for subset in subsets for name in subset}
    for name in study.methods:
        get_method(name)
        if name not in used:
            raise SpecError(f"[methods.{name}] has no effect: no subset in methods.subsets uses {name}.")
    recipes = [DENSE]
    for subset in subsets:
        choices = [_settings_of(study, name) for name in subset]
        for chosen in itertools.product(*choices):
            specs = tuple(MethodSpec(name, dict(settings)) for name, settings in zip(subset, chosen, strict=True))
            recipe = Recipe.from_specs(specs).specs()
            if recipe not in recipes:
                recipes.append(recipe)
    return recipes


def _settings_of(study: StudySpec, name: str) -> list[dict[str, Any]]:
    """Each combination of a method's settings; a list is an axis."""
    settings = {key: value for key, value in study.methods.get(name, {}).items() if key != "teacher"}
    for key, value in settings.items():
        if value == []:
            raise SettingError(f"{name}.{key} is an empty list, so no run would have {name}.")
    axes = [value if isinstance(value, list) else [value] for value in settings.values()]
    return [dict(zip(settings, values, strict=True)) for values in itertools.product(*axes)]


@lru_cache(maxsize=64)
def _identify(name: str, models_dir: Path | None) -> Checked:
    return identify(name, models_dir)


@lru_cache(maxsize=64)
def _load_task(data: DataSpec, data_dir: Path | None) -> TaskData:
    return load_task(data, data_dir)


@dataclass(frozen=True)
class Plan:
    """The runs of a study, named and ordered; nothing is run or written here.

    Args:
        study: What was asked.
        places: Where models and data are found.
    """

    study: StudySpec
    places: Places = ANYWHERE

    def check(self) -> None:
        """Read every model's header and every task's rows, and build every recipe, so that bad input shows first."""
        expand_recipes(self.study)
        for model in self.study.models:
            self.num_parameters(model)
        for data in self.study.data:
            self.data(data)
        self._teacher_model()

    def data(self, data: DataSpec) -> TaskData:
        """The rows of a task."""
        return _load_task(data, self.places.data_dir)

    def identify(self, model: str) -> Checked:
        """Config, tokenizer and hash of a model; its weights are not loaded."""
        return _identify(model, self.places.models_dir)

    def num_parameters(self, model: str) -> int:
        """Parameters of a model with two outputs."""
        shapes = expected_shapes(self.identify(model).config)
        return sum(prod(shape) for shape in shapes.values())

    def rate_jobs(self) -> dict[tuple[str, DataSpec], dict[float, Job]]:
        """For each (model, task) the dense run of each learning rate; empty where there is one rate only."""
        if len(self.study.learning_rates) == 1:
            return {}
        seed = self.study.seeds[0]
        return {
            (model, data): {rate: self._train(model, data, DENSE, seed, rate) for rate in self.study.learning_rates}
            for model in self.study.models
            for data in self.study.data
        }

    def jobs(self, rates: dict[tuple[str, DataSpec], float]) -> tuple[list[Job], list[Job]]:
        """All jobs in an order in which they can run, and those of them that are cells of the grid.

        Args:
            rates: The learning rate chosen for each (model, task).
        """
        recipes = expand_recipes(self.study)
        cells: list[Job] = []
        shared: dict[str, Job] = {}
        for seed, data in itertools.product(self.study.seeds, self.study.data):
            label = None
            if any("distillation" in {method.name for method in recipe} for recipe in recipes):
                for job in self._teacher(data, seed, rates):
                    shared[job.run_id] = label = job
            for model, recipe in itertools.product(self.study.models, recipes):
                teacher = label if any(method.name == "distillation" for method in recipe) else None
                cells.append(self._train(model, data, recipe, seed, rates[model, data], teacher))
        jobs = {job.run_id: job for job in [*(c for c in cells if not c.spec.methods), *shared.values(), *cells]}
        # Shared runs wait for nothing but a teacher; dense cells go first, because a teacher is one of them.
        return list(jobs.values()), cells

    def _teacher_model(self) -> str:
        """The model to fine-tune as the teacher, or the folder of an artifact."""
        wanted = self.study.methods.get("distillation", {}).get("teacher", "largest")
        if not isinstance(wanted, str):
            raise SpecError(f"methods.distillation.teacher is {wanted!r}, but must be a text.")
        if wanted == "largest":
            return max(self.study.models, key=self.num_parameters)
        if not (Path(wanted) / "manifest.json").is_file() and wanted not in self.study.models:
            raise SpecError(
                f'methods.distillation.teacher is {wanted!r}; write "largest", a model of the study '
                f"({', '.join(self.study.models)}) or the folder of an artifact."
            )
        return wanted

    def _teacher(self, data: DataSpec, seed: int, rates: dict[tuple[str, DataSpec], float]) -> list[Job]:
        """The run that makes a teacher, if there is one, and last the run that makes its logits."""
        model = self._teacher_model()
        if model not in self.study.models:
            spec = RunSpec("label", model, data)
            run_id = identity_of(spec, model_sha256=artifact_sha256(Path(model)), data_sha256=self.data(data).sha256)
            return [Job(run_id, spec)]
        teacher = self._train(model, data, DENSE, seed, rates[model, data])
        spec = RunSpec("label", model, data, teacher=teacher.run_id)
        return [teacher, Job(self._identity(spec), spec, needs=(teacher.run_id,))]

    def _train(
        self,
        model: str,
        data: DataSpec,
        recipe: tuple[MethodSpec, ...],
        seed: int,
        rate: float,
        label: Job | None = None,
    ) -> Job:
        training = replace(self.study.training, learning_rate=rate)
        spec = RunSpec("train", model, data, training, recipe, seed, teacher=label.run_id if label else "")
        return Job(self._identity(spec), spec, needs=(label.run_id,) if label else ())

    def _identity(self, spec: RunSpec) -> str:
        model_sha256 = self.identify(spec.model).sha256
        return identity_of(spec, model_sha256=model_sha256, data_sha256=self.data(spec.data).sha256)


def run_study(
    study: StudySpec,
    folder: Path,
    *,
    places: Places = ANYWHERE,
    num_workers: int = 0,
    on_end: Callable[[Run, int, int], None] = lambda run, ended, total: None,
) -> list[Run]:
    """Run what is not done yet of a study; the same call goes on where an earlier one was stopped.

    Runs that are done are left alone; those that failed in a way that may pass are tried again.

    Args:
        study: What is asked.
        folder: The store.
        places: Where models and data are found.
        num_workers: Worker processes; 0: one a core.
        on_end: Called when a run has ended, with how many have ended and how many there are.

    Returns:
        The cells of the grid, in order, each with its state.

    Raises:
        InputError: the study, a model or a task cannot be used; nothing was run.
        StoreError: the folder cannot be written to; nothing was run.
    """
    store = Store(folder)
    store.check_writable()
    plan = Plan(study, places)
    plan.check()
    workers = num_workers or default_workers()
    candidates = plan.rate_jobs()
    _run([job for by_rate in candidates.values() for job in by_rate.values()], store, places, workers, on_end)
    rates = choose_rates(study, candidates, store)
    jobs, cells = plan.jobs(rates)
    store.save_study(study.name, {"cells": [cell.run_id for cell in cells], "spec": asdict(study)})
    _run(jobs, store, places, workers, on_end)
    runs = {run.run_id: run for run in store.runs()}
    return [runs[cell.run_id] for cell in cells]


def choose_rates(
    study: StudySpec, candidates: dict[tuple[str, DataSpec], dict[float, Job]], store: Store
) -> dict[tuple[str, DataSpec], float]:
    """The learning rate of each (model, task): the one whose dense run scored best, the smaller one of equals.

    Raises:
        SpecError: none of the dense runs of a (model, task) ended well.
    """
    if not candidates:
        only = study.learning_rates[0]
        return {(model, data): only for model in study.models for data in study.data}
    chosen = {}
    for key, by_rate in candidates.items():
        scores = {rate: _score(store, job.run_id) for rate, job in by_rate.items()}
        good = {rate: score for rate, score in scores.items() if score is not None}
        if not good:
            raise SpecError(f"No learning rate worked for {key[0]} on {key[1].task}: all its dense runs failed.")
        chosen[key] = max(sorted(good), key=lambda rate: good[rate])
    return chosen


def _score(store: Store, run_id: str) -> float | None:
    score = cell_row(store.run(run_id), store.done(run_id))["score"]
    return None if score is None else float(score)


def _run(
    jobs: Iterable[Job],
    store: Store,
    places: Places,
    num_workers: int,
    on_end: Callable[[Run, int, int], None],
) -> None:
    jobs = list(jobs)
    for job in jobs:
        store.register(job.run_id, job.spec.to_json())
    runs = {job.run_id: store.run(job.run_id) for job in jobs}
    left = [job for job in jobs if _to_do(runs[job.run_id])]
    ended = len(jobs) - len(left)

    def report(job: Job) -> None:
        nonlocal ended
        ended += 1
        on_end(store.run(job.run_id), ended, len(jobs))

    as_texts = {key: None if value is None else str(value) for key, value in asdict(places).items()}
    run_jobs(left, store, num_workers=num_workers, places=as_texts, on_end=report)


def _to_do(run: Run) -> bool:
    return run.state in ("pending", "running") or (run.state == "failed" and run.retryable)
