"""The protocol that every compression method follows: six hooks, each doing nothing unless overridden.

Rules that let methods combine without knowing each other:

- State lives in the model (buffers, parametrizations), so that saving the model saves the method.
- `prepare` is called by stage, `convert` in reverse. The forward pass sees `quantize(mask * weight)`.
- Methods read no files: a teacher's logits come in the context.
- When a method acts is a setting: `start` and `end` are shares of the training.
- A weight that several modules share is one weight.
- A method that has nothing to change raises `SettingError`.

What a method may leave for the methods after it: on an embedding `stored_rows`, the ids of those that will be stored,
where that is not all; on a linear layer the buffers `leaving_rows` and `leaving_columns` (bool), which mark what is
zero by now and will be taken out by `convert` (see `staying`).

What a method leaves on a module for storage, after `convert`: `weight_codes` (int8, the weight's shape), `weight_scale`
(float16, one a row, a single one, or (rows, groups)) and `weight_bits` where the weight is stored as integers;
`num_pruned` and `num_pruned_biases` where weights or biases were removed. On the model: `kept_words`, the old ids of
the words left, where words were dropped, and `num_dropped`, to which is added how many weights are gone with their
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, ClassVar

from torch import Tensor, nn

from multipress.errors import SettingError

__all__ = [
    "Context",
    "Method",
    "Stage",
    "Step",
    "check_choice",
    "check_share",
    "later",
    "num_staying",
    "staying",
    "unique_weights",
]


class Stage(IntEnum):
    """What a method changes; also the order in which methods are prepared."""

    STRUCTURE = 1  # shapes of modules: fewer layers, heads, neurons, dimensions, words
    SPARSITY = 2  # which weights are zero
    PRECISION = 3  # bits per weight and activation
    OBJECTIVE = 4  # what is minimized; the stored model is untouched


@dataclass
class Context:
    """What a method may know beside the model.

    Args:
        target: `classes`, `number` or `text`.
        seed: The run's seed.
        teacher_logits: (N, C), a teacher's logits on the N training rows, further rows that were made of them
            included; None unless a method needs them.
        teacher_states: (N, L + 1, D), a vector of each layer of the teacher for each of these rows, as
            `multipress.models.states.write_text_states` makes them; None unless a method needs them.
        teacher_model: The teacher as a torch module with the same tokenizer; None unless a method needs it.
        held: By the name of a weight, where it is kept (bool, of its shape); what was removed before this training is
            zero after every step.
        ranking: By the name of a weight, the weights of the model by whose size is pruned, where it is another than the
            one that is trained; None: this one.
        first_batches: Gives the first batches of the training, for what must be fitted before it: each what the model
            is called with, and `rows` (B,), indices of the rows. Set by the training loop.
        num_steps: Optimizer steps of the training. Set by the training loop.
        words: Gives the ids of the tokens, (n,), that the training rows and the tokenizer itself need, and, if
            asked, those of a general text; None where there is no tokenizer.
    """

    target: str = "classes"
    seed: int = 0
    teacher_logits: Tensor | None = None
    teacher_states: Tensor | None = None
    teacher_model: nn.Module | None = None
    held: dict[str, Tensor] = field(default_factory=dict)
    ranking: dict[str, Tensor] | None = None
    first_batches: Callable[[], Iterable[dict[str, Tensor]]] = tuple
    num_steps: int = 1
    words: Callable[[bool], Tensor] | None = None


@dataclass
class Step:
    """One training step, as `compute_loss` sees it.

    Args:
        model: The model.
        rows: (B,), indices of the batch's training rows.
        labels: (B,), class indices or numbers; None where the rows have none.
        logits: (B, C), the model's output, float32.
        progress: Share of the training done before this step, 0 to 1.
        inputs: What the model was called with: `input_ids` and `token_type_ids` (B, T), and the additive
            `attention_mask` (B, 1, 1, T), 0 where there is a token; for a translator `decoder_input_ids` (B, S).
        written: For a translator, (B, S) bool: which tokens the rows of `logits` and `labels` stand for, each a word
            that is to be written; `rows` has B entries all the same.
    """

    model: nn.Module
    rows: Tensor
    labels: Tensor | None
    logits: Tensor
    progress: float
    inputs: dict[str, Tensor] = field(default_factory=dict)
    written: Tensor | None = None


@dataclass
class Method:
    """A compression method. Its dataclass fields are its settings, each with a default."""

    name: ClassVar[str]
    stage: ClassVar[Stage]
    version: ClassVar[int] = 1  # raise it when the same settings give other results

    def needs(self, target: str = "classes") -> frozenset[str]:
        """What the training must be given for these settings and a task of this kind.

        `teacher_logits`, `teacher_states` and `teacher_model` are in the context; with `teacher_translations` the rows
        have those as what is to be written.
        """
        return frozenset()

    def check_target(self, target: str) -> None:
        """Raise `SettingError` for settings that are not for a task of this kind (`classes`, `number`, `text`)."""

    def label_settings(self, target: str = "classes") -> dict[str, Any]:
        """What the run that makes the teacher's logits must know of these settings; empty if nothing."""
        return {}

    def prepare(self, model: nn.Module, context: Context) -> nn.Module:
        """Before training: changes `model` and returns the model to train."""
        return model

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Optimizer groups of parameters that the method added: `params`, and `lr` where it has its own."""
        return []

    def compute_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss to minimize, given the loss so far."""
        return loss

    def on_step_end(self, model: nn.Module, progress: float) -> None:
        """After each optimizer step; `progress` is the share of the training done, 0 to 1."""

    def convert(self, model: nn.Module) -> nn.Module:
        """After training: changes `model` and returns the model to store, free of the method's own parts."""
        return model

    @classmethod
    def check_names(cls, settings: dict[str, Any]) -> None:
        """Raise `SettingError` for a setting that is unknown; it names the known ones."""
        known = sorted(f.name for f in fields(cls))
        for key in settings:
            if key not in known:
                raise SettingError(f"{cls.name} has no setting {key!r}; its settings are: {', '.join(known)}.")

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Method:
        """The method with these settings; the rest have their defaults.

        Raises:
            SettingError: an unknown setting (the known ones are named), or a value that cannot be used.
        """
        cls.check_names(settings)
        known = {f.name: f for f in fields(cls)}
        return cls(**{key: _fit(cls.name, known[key], value) for key, value in settings.items()})

    def settings(self) -> dict[str, Any]:
        """All settings, defaults written out; one that came `later` is left out where it is not used."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        unused = {f.name for f in fields(self) if f.metadata.get("later") and values[f.name] == f.default}
        return {name: value for name, value in values.items() if name not in unused}


def later(default: Any) -> Any:
    """A setting that a method did not have at first: where it is not used, the identity of a run is what it was."""
    return field(default=default, metadata={"later": True})


def _fit(method: str, known: Any, value: Any) -> Any:
    """The value in the type of the setting; a text such as `0.6` or `none` is read as what it says."""
    optional = "None" in str(known.type)
    wanted = next(kind for kind in (bool, int, float, str) if kind.__name__ in str(known.type))
    if optional and (value is None or (isinstance(value, str) and value.lower() == "none")):
        return None
    if isinstance(value, str) and wanted is not str:
        value = _read(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[wanted]
        raise SettingError(f"{method}.{known.name} is {value!r}, but must be {kind}{' or none' if optional else ''}.")
    return value


def _read(text: str) -> Any:
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for kind in (int, float):
        try:
            return kind(lowered)
        except ValueError:
            continue
    return text


def check_share(method: str, name: str, value: float) -> None:
    """Raises `SettingError` unless `value` is a share from 0 to 1."""
    if not 0 <= value <= 1:
        hint = f" For {value:g} %, write {value / 100:g}." if 1 < value <= 100 else ""
        raise SettingError(f"{method}.{name} is {value}, but is a share from 0 to 1.{hint}")


def check_choice(method: str, name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raises `SettingError` unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingError(f"{method}.{name} is {value!r}; choose from: {', '.join(map(str, choices))}.")


def unique_weights(modules: dict[str, nn.Module]) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Name, module and weight of each module; a weight that several hold comes once, with the first of them."""
    seen: set[int] = set()
    for name, module in modules.items():
        weight = module.weight
        if isinstance(weight, nn.Parameter) and id(weight) not in seen:
            seen.add(id(weight))
            yield name, module, weight


def staying(module: Any) -> tuple[Tensor | slice, Tensor | slice]:
    """Which rows and columns of a layer's weight no method takes out: `weight[rows][:, columns]` is what stays."""
    leaving = [getattr(module, name, None) for name in ("leaving_rows", "leaving_columns")]
    rows, columns = (slice(None) if mask is None or not mask.any() else ~mask for mask in leaving)
    return rows, columns


def num_staying(module: Any, weight: Tensor) -> int:
    """How many of a layer's weights no method takes out; `weight` is what it holds, whatever rounds it."""
    count = 1
    for index, size in zip(staying(module), weight.shape, strict=True):
        count *= size if isinstance(index, slice) else int(index.sum())
    return count
