"""A study as a tree of runs: what a grid expands to, and what runs have in common."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from multipress.engines.identity import artifact_sha256, identity_of
from multipress.engines.job import ANYWHERE, Job, Places
from multipress.engines.recover import recovery_of
from multipress.engines.teaching import check_teacher
from multipress.errors import ModelError, SettingError, SpecError
from multipress.methods import get_method
from multipress.models.catalogue import find_model
from multipress.models.encoder import expected_shapes
from multipress.models.families import family_of
from multipress.models.pretrained import Checked, identify, shape_by_name
from multipress.recipe import Recipe
from multipress.spec import DataSpec, MethodSpec, RunSpec, StudySpec, teaching_kind
from multipress.speed_ahead import shares_for_speedup
from multipress.tasks import TaskData, load_task
from multipress.tickets import TicketSpec

__all__ = ["Plan", "expand_chains"]

# The methods of the eight subsets that `subsets = "all"` means.
PAPER_METHODS = ("quantization", "distillation", "pruning")
Chain = tuple[tuple[MethodSpec, ...], ...]  # the recipes of stages that follow one another
DENSE: Chain = ((),)
_FOR_TICKETS = ("scope", "embeddings", "biases")


def expand_chains(study: StudySpec) -> list[Chain]:
    """Every chain of the grid, the dense control first: subsets times the product of the settings given as lists.

    Raises:
        SpecError: an unknown method, or settings of a method that no subset uses.
        SettingError: a setting that cannot be used, or methods that do not combine.
    """
    subsets = study.subsets
    if isinstance(subsets, str):
        subsets = tuple(
            subset for size in range(len(PAPER_METHODS) + 1) for subset in itertools.combinations(PAPER_METHODS, size)
        )
    stages = [_stages(subset) for subset in subsets]
    used = {name for chain in stages for stage in chain for name in stage}
    for name in sorted(used):
        get_method(name)
    for name in study.methods:
        get_method(name)
        if name not in used and not (name == "pruning" and study.tickets):
            raise SpecError(f"[methods.{name}] has no effect: no subset in methods.subsets uses {name}.")
    if study.tickets:
        Recipe.from_specs((MethodSpec("pruning", _ticket_settings(study)),))
    for chain in stages:
        _check_chain(chain)
    chains = [DENSE]
    for chain in stages:
        names = sorted({name for stage in chain for name in stage})
        for chosen in itertools.product(*(_settings_of(study, name) for name in names)):
            settings = dict(zip(names, chosen, strict=True))
            specs = tuple(tuple(MethodSpec(name, dict(settings[name])) for name in stage) for stage in chain)
            made = tuple(Recipe.from_specs(stage).specs() for stage in specs)
            if made not in chains:
                chains.append(made)
    return chains


def _ticket_settings(study: StudySpec) -> dict[str, Any]:
    """The settings of pruning that hold for rounds of it too.

    Raises:
        SpecError: `[methods.pruning]` holds what has no effect there, and no subset prunes.
        SettingError: a setting is unknown, or a list; rounds need one value.
    """
    settings = study.methods.get("pruning", {})
    get_method("pruning").check_names(settings)
    prunes = isinstance(study.subsets, str) or any("pruning" in st for one in study.subsets for st in _stages(one))
    for key, value in settings.items():
        if key not in _FOR_TICKETS and not prunes:
            raise SpecError(
                f"methods.pruning.{key} has no effect: no subset prunes, and of [tickets] only "
                f"{', '.join(_FOR_TICKETS)} can be set there."
            )
        if key in _FOR_TICKETS and isinstance(value, list):
            raise SettingError(f"methods.pruning.{key} is {value!r}, but [tickets] needs one value.")
    return {key: value for key, value in settings.items() if key in _FOR_TICKETS}


def _check_chain(chain: tuple[tuple[str, ...], ...]) -> None:
    """Raise `SpecError` for stages that the next one could not go on from.

    That could not tell removed weights from those that integers rounded to zero, or has all words where some are gone.
    """
    pruned = False
    for number, stage in enumerate(chain, 1):
        if "vocabulary" in stage and number < len(chain):
            raise SpecError(
                f"Stage {number} of {[list(stage) for stage in chain]} drops words, and stages follow, which begin "
                "with all of them. Drop words in the last stage."
            )
        pruned = pruned or "pruning" in stage
        if pruned and "quantization" in stage and number < len(chain):
            raise SpecError(
                f"Stage {number} of {[list(stage) for stage in chain]} quantizes pruned weights, and stages follow, "
                "which could not tell removed weights from those rounded to zero. Quantize pruned weights last."
            )


def _stages(subset: tuple[Any, ...]) -> tuple[tuple[str, ...], ...]:
    """The stages of a subset: names are one stage, tuples of names are several."""
    return (subset,) if all(isinstance(name, str) for name in subset) else subset


def _settings_of(study: StudySpec, name: str) -> list[dict[str, Any]]:
    """Each combination of a method's settings; a list is an axis."""
    settings = {key: value for key, value in study.methods.get(name, {}).items() if key != "teacher"}
    for key, value in settings.items():
        if value == []:
            raise SettingError(f"{name}.{key} is an empty list, so no run would have {name}.")
    axes = [value if isinstance(value, list) else [value] for value in settings.values()]
    return [dict(zip(settings, values, strict=True)) for values in itertools.product(*axes)]


class Plan:
    """The runs of a study, named and ordered; nothing is run or written here. Models and rows are read once.

    Args:
        study: What was asked.
        places: Where models and data are found.
        only_counts: Nothing will be run, so a model that cannot be had may be one whose shape its name says.

    Attributes:
        absent: Such models.
    """

    def __init__(self, study: StudySpec, places: Places = ANYWHERE, *, only_counts: bool = False) -> None:
        self.study = study
        self.places = places
        self.absent: list[str] = []
        self._only_counts = only_counts
        self._data: dict[DataSpec, TaskData] = {}
        self._models: dict[str, Checked] = {}
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        self._made: dict[str, Job] = {}

    def check(self) -> None:
        """Read every model's header and every task's rows, and build every recipe, so that bad input shows first."""
        stages = [Recipe.from_specs(stage) for chain in expand_chains(self.study) for stage in chain]
        for model in self.trained_models():
            self.identify(model).check_length(self.study.training.max_length)
        targets = [self.data(data).task.target for data in self.study.data]
        for recipe in stages:
            for target in targets:
                recipe.check_target(target)
        teacher = self._teacher_model()
        learning = [recipe for recipe in stages if recipe.learns()]
        if learning and not self.absent:
            own = 0 if _is_artifact(teacher) else self.identify(teacher).tokenizer
            for recipe, data, model in itertools.product(learning, self.study.data, self.study.models):
                task = self.data(data).task
                check_teacher(teacher, own, recipe, task, self.identify(model).tokenizer)
        for data in self.study.data:
            for model in self.trained_models():
                self.identify(model).check_target(self.data(data).task.target)
        for model, recipe in itertools.product(self.study.models, stages):
            shares_for_speedup(recipe.specs(), self.identify(model).config)  # one that is too high ends the study here

    def data(self, data: DataSpec) -> TaskData:
        """The rows of a task."""
        if data not in self._data:
            self._data[data] = load_task(data, self.places.data_dir)
        return self._data[data]

    def identify(self, model: str) -> Checked:
        """Config, tokenizer and hash of a model; its weights are not loaded."""
        if model not in self._models:
            shape = shape_by_name(model) if self._only_counts and not self._is_here(model) else None
            if shape is not None:
                self.absent.append(model)
            self._models[model] = shape or identify(model, self.places.models_dir)
        return self._models[model]

    def _is_here(self, model: str) -> bool:
        try:
            find_model(model, self.places.models_dir, download=False)
        except ModelError:
            return False
        return True

    def num_parameters(self, model: str) -> int:
        """Parameters of a model with two outputs."""
        return sum(prod(shape) for shape in self._shapes_of(model).values())

    def multiplied_weights(self, model: str) -> float:
        """Weights that each token is multiplied with: the blocks' matrices, and the words' of what is written."""
        config = self.identify(model).config
        family = family_of(config)
        inside = tuple(f"{family.prefix}.{place}." for place in (family.blocks, family.decoder_blocks) if place)
        shapes = self._shapes_of(model)
        weights = sum(prod(shape) for name, shape in shapes.items() if name.startswith(inside) and len(shape) == 2)
        weights += config.vocab_size * config.hidden_size * family.writes
        # BERT's last block computes its queries, output and feed-forward network for the first token only.
        return float(weights * (1 - 5 / 6 / config.num_hidden_layers * family.has_first_token))

    def _shapes_of(self, model: str) -> dict[str, tuple[int, ...]]:
        if model not in self._shapes:
            self._shapes[model] = expected_shapes(self.identify(model).config)
        return self._shapes[model]

    def _largest_model(self) -> str:
        return max(self.study.models, key=self.num_parameters)

    def teacher_name(self) -> str:
        """The teacher; where it is an artifact, the largest model of the study, which is taken to be as large."""
        teacher = self._teacher_model()
        return self._largest_model() if _is_artifact(teacher) else teacher

    def trained_models(self) -> list[str]:
        """The study's models, and the teacher if it is another model that must be fine-tuned."""
        teacher = self._teacher_model()
        is_other = teacher not in self.study.models and not _is_artifact(teacher)
        return [*self.study.models, *([teacher] if is_other else [])]

    def recoveries(self) -> list[Job]:
        """The runs that make those models which are made from another one; they come before all others."""
        teacher = self.study.methods.get("distillation", {}).get("teacher", "")
        names = dict.fromkeys([*self.study.models, *([teacher] if isinstance(teacher, str) else [])])
        return [job for name in names if (job := recovery_of(name)) is not None]

    def rate_jobs(self) -> dict[tuple[str, DataSpec], dict[float, Job]]:
        """For each (model, task) the dense run of each learning rate; empty where there is one rate only."""
        if len(self.study.learning_rates) == 1:
            return {}
        seed = self.study.seeds[0]
        return {
            (model, data): {rate: self._chain(model, data, DENSE, seed, rate) for rate in self.study.learning_rates}
            for model in self.trained_models()
            for data in self.study.data
        }

    def cells(self, rates: dict[tuple[str, DataSpec], float]) -> list[Job]:
        """The cells of the grid, in order.

        Args:
            rates: The learning rate of each (model, task). Where there is none, the dense runs of all rates stand for
                the cells, so that what went wrong is seen; where the teacher has none, nothing is distilled.
        """
        chains = expand_chains(self.study)
        cells: list[Job] = []
        for seed, data, model in itertools.product(self.study.seeds, self.study.data, self.study.models):
            if (model, data) not in rates:
                cells += [self._chain(model, data, DENSE, seed, rate) for rate in self.study.learning_rates]
                continue
            for chain in chains:
                if not any(_learns(stage) for stage in chain) or self._has_teacher(data, rates):
                    cells.append(self._chain(model, data, chain, seed, rates[model, data], rates))
            if self.study.tickets:
                cells += self._tickets(self.study.tickets, model, data, seed, rates[model, data])
        return cells

    def with_needs(self, jobs: Iterable[Job]) -> list[Job]:
        """Jobs and all they need, each after what it needs; those without methods first, because others need them."""
        ordered: dict[str, Job] = {}

        def add(job: Job) -> None:
            for run_id in job.needs:
                if run_id not in ordered:
                    add(self._made[run_id])
            ordered.setdefault(job.run_id, job)

        for job in sorted(jobs, key=lambda job: bool(job.spec.methods)):
            add(job)
        return list(ordered.values())

    def _has_teacher(self, data: DataSpec, rates: dict[tuple[str, DataSpec], float]) -> bool:
        teacher = self._teacher_model()
        return _is_artifact(teacher) or (teacher, data) in rates

    def _chain(
        self,
        model: str,
        data: DataSpec,
        chain: Chain,
        seed: int,
        rate: float,
        rates: dict[tuple[str, DataSpec], float] | None = None,
    ) -> Job:
        """The last run of a chain; all stages together have the steps of one training."""
        shared = self.study.shared_start
        ends = [shared + (1 - shared) * number / len(chain) for number in range(len(chain) + 1)]
        stages = [*([((), (0.0, shared))] if shared else []), *zip(chain, itertools.pairwise(ends), strict=True)]
        training = replace(self.study.training, learning_rate=rate)
        spec = RunSpec("train", model, data, training, seed=seed, shared=shared)
        job, before = None, Chain()
        for asked, part in stages:
            stage = shares_for_speedup(asked, self.identify(model).config)
            label = self._label(data, seed, rates or {}, stage) if _learns(stage) else None
            job = self._job(
                replace(
                    spec,
                    methods=stage,
                    teacher=label.run_id if label else "",
                    start=job.run_id if job else "",
                    part=part,
                    before=before,
                )
            )
            before = (*before, stage) if part[0] or not shared else ()  # what is shared is no stage of a cell
        assert job is not None
        return job

    def _tickets(self, tickets: TicketSpec, model: str, data: DataSpec, seed: int, rate: float) -> list[Job]:
        """Rounds of iterative pruning, each with the zeros of the last one."""
        dense = self._chain(model, data, DENSE, seed, rate)
        # The begin of the dense training once more, as a run of its own: that weights are kept for others changes what
        # a run leaves, and so its name.
        early, at = dense, float(tickets.at or 0)
        if ("weights" in tickets.rewind or tickets.weight_rounds) and at:
            early = self._job(replace(dense.spec, kept=(1.0,), part=(0.0, at), rewound=True))
        others = _ticket_settings(self.study)
        rewound = f"{early.run_id}@1.0" if at else ""
        rounds = []

        def run(recipe: tuple[MethodSpec, ...], last: Job, number: int, rewind: str, before: Chain) -> Job:
            part = tickets.part(number) if rewind == "rate" else (at if tickets.rate_to else 0.0, 1.0)
            job = self._job(
                replace(
                    dense.spec,
                    methods=recipe,
                    start=last.run_id if rewind == "rate" else rewound,
                    mask_from=last.run_id,
                    part=part,
                    rewound=part[0] > 0,
                    before=before if rewind == "rate" else (),
                )
            )
            rounds.append(job)
            return job

        for rewind, importance in itertools.product(tickets.rewind, tickets.importance):
            last, before = dense, Chain()
            for number in range(1, tickets.num_rounds(rewind, importance) + 1):
                sparsity = tickets.sparsity(number, importance)
                settings = {**others, "sparsity": sparsity, "importance": importance, "start": 0.0, "end": 0.0}
                recipe = Recipe.from_specs((MethodSpec("pruning", settings),)).specs()
                if number in tickets.rounds_with_weights(importance):
                    run(recipe, last, number, "weights", ())
                last = run(recipe, last, number, rewind, before)
                before = (*before, recipe)
        return rounds

    def _teacher_model(self) -> str:
        """The model to fine-tune as the teacher, or the folder of an artifact."""
        wanted = self.study.methods.get("distillation", {}).get("teacher", "largest")
        if not isinstance(wanted, str) or not wanted:
            raise SpecError(
                f'methods.distillation.teacher is {wanted!r}; write "largest", a model, or the folder of an artifact.'
            )
        return self._largest_model() if wanted == "largest" else wanted

    def _label(
        self, data: DataSpec, seed: int, rates: dict[tuple[str, DataSpec], float], recipe: tuple[MethodSpec, ...]
    ) -> Job:
        """The run that makes the logits of a recipe's teacher."""
        wanted = Recipe.from_specs(recipe).label_specs(self.data(data).task.target)
        kind = teaching_kind(wanted)
        model = self._teacher_model()
        if _is_artifact(model):
            spec = RunSpec(kind, model, data, methods=wanted)
            run_id = identity_of(spec, model_sha256=artifact_sha256(Path(model)), data_sha256=self.data(data).sha256)
            return self._made.setdefault(run_id, Job(run_id, spec))
        teacher = self._chain(model, data, DENSE, seed, rates[model, data])
        return self._job(RunSpec(kind, model, data, methods=wanted, teacher=teacher.run_id))

    def _job(self, spec: RunSpec) -> Job:
        """The job of a run; what it needs was made before."""
        model_sha256 = self.identify(spec.model).sha256
        run_id = identity_of(spec, model_sha256=model_sha256, data_sha256=self.data(spec.data).sha256)
        needs = dict.fromkeys([spec.teacher, spec.start.partition("@")[0], spec.mask_from])
        return self._made.setdefault(run_id, Job(run_id, spec, tuple(name for name in needs if name)))


def _is_artifact(name: str) -> bool:
    return (Path(name) / "manifest.json").is_file()


def _learns(recipe: tuple[MethodSpec, ...]) -> bool:
    """Whether a recipe needs a teacher."""
    return Recipe.from_specs(recipe).learns()
