"""The one training loop: batches of similar length, one recipe, checkpoints, bit-identical resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from multipress.batches import Rows, all_batches, collate, num_steps
from multipress.durable import write_bytes
from multipress.errors import CheckpointError, DivergedError
from multipress.methods import Context, Step
from multipress.models.encoder import model_inputs
from multipress.models.held_zeros import HeldZeros
from multipress.models.used_rows import UsedRows
from multipress.numbers import Numbers
from multipress.precision import autocast, device, route, use_route
from multipress.recipe import Recipe
from multipress.reproducibility import seed_for
from multipress.spec import TrainingSpec

__all__ = ["LOOP_VERSION", "Rows", "Saving", "collate", "num_steps", "train"]

LOOP_VERSION = 4  # raise it when the same run gives other weights
FIRST_BATCHES = 32  # what methods may fit on before the first step
MOST_SECONDS, SECONDS_A_SECOND = 60.0, 50  # between two checkpoints: at most, and for each second of writing one
FIRST_SAVE = 0.01  # seconds that writing the first is taken to take


@dataclass(frozen=True)
class Saving:
    """Where and how often the loop saves itself, so that an interrupted training goes on.

    Args:
        path: File of the checkpoint; it is replaced each time.
        identity: Written into the checkpoint; one with another identity is refused.
        every_steps: Optimizer steps between two checkpoints; 0: as often as takes a fiftieth of the time, at least once
            a minute. No result depends on when one is written.
        kept: Shares of the training after which the weights are kept, each in a file of its own beside the checkpoint.
    """

    path: Path
    identity: str
    every_steps: int = 0
    kept: tuple[float, ...] = ()

    def kept_path(self, share: float) -> Path:
        """The file of the weights after this share of the training."""
        return self.path.parent / f"kept-{share}.safetensors"


def train(  # noqa: PLR0913 - model, data, recipe, settings, and two ways to look on
    model: nn.Module,
    rows: Rows,
    recipe: Recipe,
    training: TrainingSpec,
    context: Context,
    *,
    part: tuple[float, float] = (0.0, 1.0),
    rewound: bool = False,
    saving: Saving | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> nn.Module:
    """Train a model under a recipe and convert it for storage; changes `model` and returns the converted one.

    Args:
        model: Classifier or translator with outputs `.logits`; float32. Where numbers are learned, it gives them as
            they are, before and after (`Numbers.into` makes a new head do so).
        rows: Training rows.
        recipe: Methods; none trains the dense control.
        training: Epochs, learning rate and so on.
        context: Target, seed and what the methods need.
        part: Which part of the steps that the settings ask for, as two shares; a stage of a longer training has some.
        rewound: Whether the learning rate is as it is in that part of all steps, not that of a training of its own.
        saving: Where checkpoints go; None: none are written.
        on_step: Called after each step with the steps done, all steps, and the loss.

    Raises:
        DivergedError: the loss became NaN or infinite.
        CheckpointError: there is a checkpoint that cannot be gone on from.
        SettingError: a method cannot work with this model or training.
    """
    name = route()
    use_route(name)
    torch.manual_seed(seed_for(context.seed, "training"))
    lengths = rows.lengths
    steps = num_steps(lengths[: len(lengths) - rows.num_made], training)
    first = round(part[0] * steps)
    total = max(1, round(part[1] * steps) - first)

    def batches(count: int) -> Iterator[np.ndarray]:
        return islice(all_batches(lengths, training, context.seed), first, first + count)

    def first_batches() -> Iterator[dict[str, Tensor]]:
        return (collate(rows, batch) for batch in batches(FIRST_BATCHES))

    held = HeldZeros(model, context.held)
    numbers = Numbers.of(rows.labels) if context.target == "number" and rows.labels is not None else None
    if numbers is not None:
        numbers.out_of(model)
        rows, context = _standardized(rows, context, numbers)
    model = recipe.prepare(model, replace(context, first_batches=first_batches, num_steps=total)).to(device()).train()
    used = _used_rows(model, rows)
    loop = _Loop(model, used, held, recipe, training, total)
    loop.numbers, loop.of_whole = numbers, (first, steps) if rewound else (0, total)
    done = loop.resume(saving) if saving is not None else 0
    for step, batch in enumerate(batches(total)):
        if step < done:
            continue
        loss = loop.step(step, collate(rows, batch), name)
        if on_step is not None:
            on_step(step + 1, loop.total, loss)
        if saving is not None:
            loop.keep(saving, step + 1)  # before a checkpoint says that this step is done
            loop.save_if_due(saving, step + 1)
    if used is not None:
        used.remove()
    model = recipe.convert(model.cpu().eval())
    held.finish()
    if numbers is not None:
        numbers.into(model)
    return model


def _standardized(rows: Rows, context: Context, numbers: Numbers) -> tuple[Rows, Context]:
    """The rows, and what a teacher says of them, with numbers as they are learned."""
    assert rows.labels is not None
    teacher = context.teacher_logits
    if teacher is not None:
        teacher = torch.from_numpy(numbers.standardized(teacher.numpy()))
    return replace(rows, labels=numbers.standardized(rows.labels)), replace(context, teacher_logits=teacher)


def _used_rows(model: nn.Module, rows: Rows) -> UsedRows | None:
    """The rows of the word embedding to train; None where its weight is an output layer's too, and all of it learns."""
    embedding: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    if sum(getattr(module, "weight", None) is embedding.weight for module in model.modules()) > 1:
        return None
    ids = {rows.pad_id}.union(*(row.ids for row in rows.encodings))
    return UsedRows(embedding, torch.tensor(sorted(ids)))


class _Loop:
    """What lives from one step to the next: the model under its recipe, and the optimizer."""

    def __init__(
        self,
        model: nn.Module,
        used: UsedRows | None,
        held: HeldZeros,
        recipe: Recipe,
        training: TrainingSpec,
        total: int,
    ) -> None:
        self.model = model
        self.used = used
        self.held = held
        self.recipe = recipe
        self.training = training
        self.total = total
        self.saved, self.took_to_save = time.monotonic(), FIRST_SAVE
        self.numbers: Numbers | None = None
        self.of_whole = (0, total)  # the first step among those that the learning rate is reckoned by, and all of them
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(model, used, recipe, training),
            lr=training.learning_rate,
            betas=(0.9, training.adam_beta2),
            fused=True,
        )
        self.highest_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def step(self, index: int, batch: dict[str, Tensor], route_name: str) -> float:
        """One optimizer step; returns the loss."""
        labels, rows = batch.pop("labels", None), batch.pop("rows")
        with autocast(route_name):
            logits = self.model(**model_inputs(self.model, batch)).logits.float()  # (B, C), or (B, S, V)
        written = None
        if logits.ndim == 3:  # each token that is to be written is a row, its word the class
            assert labels is not None
            written = labels >= 0
            logits, labels = logits[written], labels[written]
        loss = _label_loss(logits, labels, self.training.label_smoothing)
        loss = self.recipe.compute_loss(
            loss, Step(self.model, rows, labels, logits, index / self.total, batch, written)
        )
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(index)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.training.max_grad_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm)
        first, whole = self.of_whole
        factor = rate_factor(first + index, whole, self.training.warmup, self.training.schedule)
        for group, highest in zip(self.optimizer.param_groups, self.highest_rates, strict=True):
            group["lr"] = highest * factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.used is not None:
            self.used.write()
        self.recipe.on_step_end(self.model, (index + 1) / self.total)
        self.held.apply()
        if self.used is not None:
            self.used.read()
        return value

    def save_if_due(self, saving: Saving, steps_done: int) -> None:
        """Save if so many steps or seconds have gone by; after the last step there is nothing to go on with."""
        begun = time.monotonic()
        is_late = begun - self.saved >= min(MOST_SECONDS, SECONDS_A_SECOND * self.took_to_save)
        is_due = steps_done % saving.every_steps == 0 if saving.every_steps else is_late
        if steps_done < self.total and is_due:
            self.save(saving, steps_done)
            self.saved = time.monotonic()
            self.took_to_save = self.saved - begun

    def save(self, saving: Saving, steps_done: int) -> None:
        """Write model, optimizer and random state as one safetensors file, whole or not at all."""
        tensors = {f"model.{key}": value for key, value in self._state().items()}
        for index, parameter in enumerate(self.parameters):
            # A parameter that has had no gradient yet, such as a step to be learned later, has none.
            state = self.optimizer.state.get(parameter) or {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        tensors["random"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random_cuda"] = torch.cuda.get_rng_state()
        metadata = {
            "identity": saving.identity,
            "steps_done": str(steps_done),
            "loop_version": str(LOOP_VERSION),
        }
        write_bytes(saving.path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata))

    def keep(self, saving: Saving, steps_done: int) -> None:
        """Write the weights that are to be kept after so many steps."""
        for share in saving.kept:
            if steps_done == max(1, round(share * self.total)):
                weights = {name: value.detach().cpu().contiguous() for name, value in self.model.named_parameters()}
                if self.numbers is not None:
                    weights = self.numbers.into_weights(self.model, weights)
                write_bytes(saving.kept_path(share), save(weights))

    def resume(self, saving: Saving) -> int:
        """Load the checkpoint if there is one; returns the steps done.

        Raises:
            CheckpointError: the checkpoint is of another run or does not hold all that the loop needs.
        """
        if not saving.path.exists():
            return 0
        try:
            with safe_open(saving.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - a file, not a dict
        except Exception as error:  # noqa: BLE001 - the library raises its own untyped error
            raise CheckpointError(f"The checkpoint {saving.path} is damaged ({error}).") from None
        if metadata.get("identity") != saving.identity or metadata.get("loop_version") != str(LOOP_VERSION):
            raise CheckpointError(f"The checkpoint {saving.path} belongs to another run.")
        self._load(tensors, saving.path)
        return int(metadata["steps_done"])

    def _load(self, tensors: dict[str, Tensor], path: Path) -> None:
        stored = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
        state = self._state()
        wanted = {
            f"optimizer.{i}.{key}" for i in range(len(self.parameters)) for key in ("step", "exp_avg", "exp_avg_sq")
        }
        if set(stored) != set(state) or not wanted | {"random"} <= set(tensors):
            raise CheckpointError(f"The checkpoint {path} lacks a part of the training's state.")
        with torch.no_grad():
            for key, value in state.items():
                value.copy_(stored[key])
        if self.used is not None:
            self.used.read()
        optimizer: dict[int, dict[str, Any]] = {
            index: {key: tensors[f"optimizer.{index}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index in range(len(self.parameters))
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": optimizer})
        torch.set_rng_state(tensors["random"])
        if "random_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random_cuda"])

    def _state(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, a shared one once."""
        named = [*self.model.named_parameters(), *self.model.named_buffers()]
        return {name: tensor.detach() for name, tensor in named}


def _parameter_groups(
    model: nn.Module, used: UsedRows | None, recipe: Recipe, training: TrainingSpec
) -> list[dict[str, Any]]:
    added = recipe.parameter_groups(model)
    taken = {id(parameter) for group in added for parameter in group["params"]}
    own = [parameter for parameter in model.parameters() if id(parameter) not in taken and parameter.requires_grad]
    if used is not None:
        own.append(used.rows)
    return [
        {"params": [p for p in own if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0},
        *added,
    ]


def _label_loss(logits: Tensor, labels: Tensor | None, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of classes, mean square of numbers, over the rows that have a label; 0 if none has one."""
    if labels is None:
        return logits.new_zeros(())
    labelled = labels >= 0 if labels.dtype == torch.int64 else ~labels.isnan()
    if not labelled.all():
        if not labelled.any():
            return logits.sum() * 0.0
        logits, labels = logits[labelled], labels[labelled]
    if labels.dtype == torch.int64:
        return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    return functional.mse_loss(logits.squeeze(-1), labels)


def rate_factor(step: int, total: int, warmup: float, schedule: str = "linear") -> float:
    """Share of the highest learning rate at a step: a linear rise over `warmup * total` steps, then as `schedule` says.

    `linear`: in a line to 0. `inverse_sqrt`: by the inverse square root of the step (Vaswani et al. 2017).
    """
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "inverse_sqrt":
        return math.sqrt((rising + 1) / (step + 1))
    return max(0.0, (total - step) / max(1.0, total - rising))
