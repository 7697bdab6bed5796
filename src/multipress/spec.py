"""What is asked: a study, its runs, and the identity of a run.

Standard library only. A `StudySpec` is what a study file asks for; a `RunSpec` is one run, plain data, written as JSON;
`run_id` is a hash of all that can change a run's result.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multipress.errors import SpecError
from multipress.tickets import TicketSpec

__all__ = [
    "SCHEDULES",
    "TRAINING_OPTIONS",
    "DataSpec",
    "MethodSpec",
    "RunSpec",
    "Stages",
    "StudySpec",
    "TrainingSpec",
    "canonical_json",
    "default_training",
    "known_settings",
    "SEARCH_NAME",
    "check_study_name",
    "run_id",
    "TEACHING_KINDS",
    "teaching_kind",
]


@dataclass(frozen=True)
class DataSpec:
    """Which rows a run trains on and is scored on.

    Args:
        task: A registered task (`sst2`, `banking77`); empty when files are given.
        train: File of the training rows; empty for a registered task.
        dev: File of the validation rows; empty for a registered task.
        text: One or two columns that hold the text; empty: found by name.
        label: Column that holds the label; empty: found by name.
        target: `classes`, `number`, `text` (the label is a text to be written, such as a translation), or empty: found
            from the labels.
        metric: The metric that is the score; empty: the task's own.
        labels: Of files, the names of the classes in their order; empty: those of the training rows, sorted.
        max_train_rows: Size of a seeded sample of the training rows; 0 for all.
        max_eval_rows: The same for the validation rows.
        sample_seed: Seed of both samples. It is not the run's seed, so that all seeds see the same rows.
    """

    task: str = ""
    train: str = ""
    dev: str = ""
    text: tuple[str, ...] = ()
    label: str = ""
    target: str = ""
    metric: str = ""
    labels: tuple[str, ...] = ()
    max_train_rows: int = 0
    max_eval_rows: int = 0
    sample_seed: int = 0

    @property
    def name(self) -> str:
        """The task's name, or the name of the file of its training rows."""
        return self.task or Path(self.train).name


SCHEDULES = ("linear", "inverse_sqrt")
# What the command line can set, each by an option of its name.
TRAINING_OPTIONS = (
    "epochs", "learning_rate", "batch_size", "batch_tokens", "max_length", "warmup", "schedule", "dropout",
    "label_smoothing",
)  # fmt: skip
# Where they are not used, the identity of a run is what it was without them.
_LATER_IN_TRAINING = ("schedule", "label_smoothing", "batch_tokens", "adam_beta2")


@dataclass(frozen=True)
class TrainingSpec:
    """How a model is trained; the same for all cells that are compared.

    Args:
        epochs: Passes over the training rows.
        learning_rate: Highest learning rate of AdamW; it warms up and falls linearly to 0.
        batch_size: Rows a step.
        max_length: Tokens kept of a row, special tokens counted.
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: AdamW's weight decay; none on biases and LayerNorm.
        dropout: Dropout in embeddings, attention and blocks. 0 by default: see docs/log.md.
        max_grad_norm: Gradients are scaled down to this global norm; 0: never.
        schedule: How the learning rate goes on after the warm-up: `linear` to 0, or `inverse_sqrt`: by the inverse
            square root of the step, as in Vaswani et al. 2017.
        label_smoothing: Share of a label's probability that is spread over all classes or words.
        batch_tokens: Tokens a step in place of rows: of both sides of a translation, padding counted; 0: `batch_size`
            rows.
        adam_beta2: AdamW's second decay; 0.98 is the habit for translation.
    """

    epochs: int = 3
    learning_rate: float = 1e-4
    batch_size: int = 32
    max_length: int = 128
    warmup: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.0
    max_grad_norm: float = 1.0
    schedule: str = "linear"
    label_smoothing: float = 0.0
    batch_tokens: int = 0
    adam_beta2: float = 0.999

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("max_length", 1), ("batch_tokens", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SpecError(f"training.{name} is {value!r}, but must be a whole number of at least {least}.")
        if self.schedule not in SCHEDULES:
            raise SpecError(f"training.schedule is {self.schedule!r}; choose from: {', '.join(SCHEDULES)}.")
        if self.max_length < 3:
            raise SpecError(f"training.max_length is {self.max_length}; a text needs at least 3 tokens.")
        for name, low, high in (
            ("learning_rate", 0.0, 1.0),
            ("warmup", 0.0, 1.0),
            ("weight_decay", 0.0, 1.0),
            ("dropout", 0.0, 0.9),
            ("max_grad_norm", 0.0, 1e9),
            ("label_smoothing", 0.0, 0.9),
            ("adam_beta2", 0.0, 0.99999),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise SpecError(f"training.{name} is {value!r}, but must be from {low} to {high}.")
            object.__setattr__(self, name, float(value))  # 0 and 0.0 are one setting, with one identity

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values; those that came later are left out where they are not used."""
        values = asdict(self)
        for name in _LATER_IN_TRAINING:
            if values[name] == getattr(TrainingSpec, name):
                del values[name]
        return values


def default_training(model: str) -> TrainingSpec:
    """How a model is trained where nothing else is said: a translator that is made new learns longer and otherwise."""
    if not model.startswith("transformer-"):
        return TrainingSpec()
    return TrainingSpec(
        epochs=30,
        learning_rate=2e-3,
        dropout=0.1,
        schedule="inverse_sqrt",
        label_smoothing=0.1,
        batch_tokens=4096,
        adam_beta2=0.98,
    )


@dataclass(frozen=True)
class MethodSpec:
    """One compression method with all its settings written out."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


TEACHING_KINDS = ("label", "generate")


def teaching_kind(wanted: tuple[MethodSpec, ...]) -> str:
    """The kind of a run in which a teacher does what methods want: `label` the training rows, or `generate` texts."""
    return "generate" if any("sequences" in method.settings for method in wanted) else "label"


_OF_CHAINS = ("start", "mask_from", "part", "kept", "before", "shared", "rewound")


@dataclass(frozen=True)
class RunSpec:
    """One run.

    Args:
        kind: `train` (makes an artifact), `label` (a teacher's logits on the training rows; of a translator none, its
            words are asked for in each step), `generate` (a teacher's translations of them) or `recover` (a smaller
            encoder that the model's name stands for).
        model: Short name, folder or hub id of the model to train, or of the teacher's model for `label`.
        data: The rows.
        training: The training settings.
        methods: Compression methods in the order in which they are prepared; empty: the dense control.
        seed: Seed of the head, of the order of rows and of dropout.
        start: run_id of the run whose artifact's weights the training begins with, its zeros kept; `RUN@SHARE`
            stands for the weights that were kept after that share of its training. Empty: the model's own weights.
        mask_from: run_id of the run by whose weights is pruned before the first step; empty: by the training's own.
        part: Which part of the steps that `training` asks for, as two shares; stages of one chain have the steps of one
            training together.
        rewound: Whether the learning rate is as it is in that part of the whole training, not that of a training of its
            own.
        kept: Shares of the training after which the weights are kept for other runs to start with.
        before: The methods of the stages that `start` stands for, the first one first; for tables only.
        shared: Share of the steps before all of them, which the cells of a study have in common; for tables only.
        teacher: run_id of the run whose artifact is the teacher (`label`), or of the `label` run whose logits
            are learned from (`train`); empty where there is none.
    """

    kind: str
    model: str
    data: DataSpec
    training: TrainingSpec = TrainingSpec()
    methods: tuple[MethodSpec, ...] = ()
    seed: int = 0
    teacher: str = ""
    start: str = ""
    mask_from: str = ""
    part: tuple[float, float] = (0.0, 1.0)
    kept: tuple[float, ...] = ()
    before: tuple[tuple[MethodSpec, ...], ...] = ()
    shared: float = 0.0
    rewound: bool = False

    def to_json(self) -> dict[str, Any]:
        """The run as plain JSON values; what only chains have is left out of other runs."""
        values = asdict(self) | {"training": self.training.to_json()}
        for name in _OF_CHAINS:
            if values[name] == getattr(RunSpec, name):
                del values[name]
        if not self.data.labels:
            del values["data"]["labels"]
        return values

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RunSpec:
        """The run that `to_json` wrote."""
        data = dict(value["data"])
        data["text"] = tuple(data["text"])
        data["labels"] = tuple(data.get("labels", ()))
        return cls(
            **{
                **value,
                "data": DataSpec(**data),
                "training": TrainingSpec(**value["training"]),
                "methods": tuple(MethodSpec(**method) for method in value["methods"]),
                "part": tuple(value.get("part", cls.part)),
                "kept": tuple(value.get("kept", ())),
                "before": tuple(tuple(MethodSpec(**m) for m in stage) for stage in value.get("before", ())),
            }
        )

    @property
    def method_names(self) -> tuple[str, ...]:
        """Names of the methods, in order."""
        return tuple(method.name for method in self.methods)


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def known_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """A method's settings without those that came later and have their default: as earlier runs tell them."""
    return {name: value for name, value in settings.items() if (name, value) != ("activation_scale", "dynamic")}


def run_id(spec: RunSpec, facts: dict[str, Any]) -> str:
    """Identity of a run: 12 hex digits of the SHA-256 of all that can change its result.

    Args:
        spec: The run. Names of models and paths of data files are left out: the hashes in `facts` stand for them.
        facts: What the spec cannot know: hashes of model weights and rows, versions of the methods, of the loop,
            of packing and of the libraries, precision, threads.
    """
    settings = spec.to_json()
    del settings["model"]
    for name in ("train", "dev", "labels"):
        settings["data"].pop(name, None)
    # Settings that came later: where they are not used, the identity is what it was.
    if not spec.data.metric:
        del settings["data"]["metric"]
    for method in itertools.chain(settings["methods"], *settings.get("before", ())):
        method["settings"] = known_settings(method["settings"])
    text = canonical_json({"settings": settings, "facts": facts})
    return hashlib.sha256(text.encode()).hexdigest()[:12]


Stages = tuple[tuple[str, ...], ...]
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


SEARCH_NAME = "search-"  # what the names of a search's studies begin with, whose cells are tries of one question


def check_study_name(name: str) -> None:
    """Raise `SpecError` for a name that cannot be a file's."""
    if not isinstance(name, str) or not _STUDY_NAME.fullmatch(name):
        raise SpecError(
            f"The study is named {name!r}, but its name may hold only letters, digits, '.', '_' and '-', "
            "starting with a letter or digit."
        )


@dataclass(frozen=True)
class StudySpec:
    """A grid of runs, as a study file says it.

    Args:
        name: Name of the study.
        models: Short names, folders or hub ids.
        data: One `DataSpec` a task.
        seeds: Seeds; each cell is run with each.
        training: Training settings; the learning rate is chosen from `learning_rates`.
        learning_rates: If several, the best for the dense run of (model, task) is chosen, then fixed.
        subsets: `all`, or lists of method names; the empty list is the dense control. A list of such lists is a
            chain of stages, one after another.
        shared_start: Share of the steps that all cells of one (model, task, seed) have in common, trained without
            compression; 0: none.
        tickets: Rounds of iterative pruning beside the subsets; None: none.
        methods: Settings of each method; a list is an axis of the grid.
        report_to: Trackers that get a copy of each run, such as `tensorboard`.
    """

    name: str
    models: tuple[str, ...]
    data: tuple[DataSpec, ...]
    seeds: tuple[int, ...] = (0,)
    training: TrainingSpec = TrainingSpec()
    learning_rates: tuple[float, ...] = (1e-4,)
    subsets: tuple[tuple[str, ...] | Stages, ...] | str = "all"
    shared_start: float = 0.0
    tickets: TicketSpec | None = None
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_study_name(self.name)
