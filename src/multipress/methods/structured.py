"""Structured pruning: whole attention heads, feed-forward neurons and blocks go, gradually, during training.

What it does:
    Takes out the heads, neurons and blocks without which the loss would change least, a few at a time between `start`
    and `end` of the training; the others go on learning and make up for them. After the training the matrices are cut:
    the model is smaller and faster everywhere, with no zeros to store. With `speedup`, how many heads and how many
    neurons go is chosen by times that were measured on this computer, once (`multipress.speed_ahead`): of all shapes
    that are so much faster, the one that leaves most of both.

When to use it:
    When latency counts: it is the method that makes a model faster. Give it a teacher (distillation), and 8-bit
    integers (quantization, `predict --precision int8`), whose gain multiplies with its own.

Settings:
    heads: Share of the attention heads to remove, over all blocks together (0.5, or what `speedup` finds).
    neurons: The same of the feed-forward neurons (0.5, or what `speedup` finds).
    layers: The same of the blocks (0). The first and the last block stay. Heads and neurons are shares of those in the
        blocks that are left.
    speedup: How many times as fast to become (none). Before the run gets its name, it is turned into the shares above
        that are not given; they stand in the recipe, so that the run is the same on a computer with other times.
    batch: Rows of the batch that is timed for `speedup` (1).
    length: Tokens of its rows (128).
    start: Share of the training after which removal begins (0.1).
    end: Share of the training at which all is removed (0.6).
    updates: How many times something is removed between them (20).
    importance: `gradient` (default) or `random` as a control.

Cost:
    Training time: 3 to 6 %. `speedup` times some shapes first: under a minute, kept for this computer.

With other methods:
    Acts first: pruning and quantization count what stays only. Distillation repairs much of its loss. In a chain, a
    later stage begins with the smaller matrices.

Limits:
    Each block that stays keeps a head and a neuron at least. Widths of the hidden state stay: `multipress shrink`
    changes those. Blocks are taken out as they are, without a step between.

Source:
    Michel et al. 2019, equation 2 (importance of a head: the mean of the absolute change of the loss to first order);
    Molchanov et al. 2019 (the same of neurons). Differs: the importance is an average over the training's own last
    steps, not a pass of its own; of a block it is that of its putting through what came in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from multipress.errors import SettingError
from multipress.methods.base import Context, Method, Stage, check_choice, check_share
from multipress.models.families import family_of
from multipress.models.structure import (
    block_axes,
    block_shapes_of,
    drop_blocks,
    head_size,
    keep_units,
    unit_indices,
)
from multipress.reproducibility import seed_for

__all__ = ["Structured"]

_UNITS = ("heads", "neurons")
_MEMORY = 0.98  # of the average importance: about the last 50 steps count


@dataclass
class Structured(Method):
    """Structured pruning; see the module's card."""

    name: ClassVar[str] = "structured"
    stage: ClassVar[Stage] = Stage.STRUCTURE

    heads: float | None = None
    neurons: float | None = None
    layers: float = 0.0
    speedup: float | None = None
    batch: int = 1
    length: int = 128
    start: float = 0.1
    end: float = 0.6
    updates: int = 20
    importance: str = "gradient"

    def __post_init__(self) -> None:
        if self.speedup is None:
            self.heads = 0.5 if self.heads is None else self.heads
            self.neurons = 0.5 if self.neurons is None else self.neurons
        for name in (*_UNITS, "layers", "start", "end"):
            value = getattr(self, name)
            if value is not None:
                check_share("structured", name, value)
        for name in ("batch", "length", "updates"):
            if getattr(self, name) < 1:
                raise SettingError(f"structured.{name} is {getattr(self, name)}, but must be at least 1.")
        check_choice("structured", "importance", self.importance, ("gradient", "random"))
        if self.speedup is not None and not 1 < self.speedup <= 100:
            raise SettingError(f"structured.speedup is {self.speedup}, but must be above 1 and at most 100.")
        if self.heads == self.neurons == self.layers == 0:
            raise SettingError("structured has shares of 0, so nothing would be removed. Leave it out instead.")
        if self.start > self.end:
            raise SettingError(f"structured.start {self.start} lies after structured.end {self.end}.")
        self._blocks: list[Any] = []
        self._hooks: list[RemovableHandle] = []
        self._parts: list[tuple[Any, nn.Parameter, Any]] = []
        self._seed = 0

    def prepare(self, model: nn.Module, context: Context) -> nn.Module:
        """Adds to each block what leaves it and how important each part is; changes `model` and returns it."""
        if family_of(model).writes:
            raise SettingError("structured takes parts out of encoders alone; this model is a translator.")
        if self.heads is None or self.neurons is None:
            raise SettingError(
                f"structured.speedup {self.speedup} was not turned into shares of heads and neurons. Give them, or "
                "train by `multipress train` or a study, which measure this computer first."
            )
        self._blocks = list(family_of(model).block_list(model))
        self._seed = context.seed
        self._check(block_shapes_of(model))
        device = next(model.parameters()).device
        for block, sizes in zip(self._blocks, block_shapes_of(model), strict=True):
            block.register_buffer("leaves", torch.zeros((), dtype=torch.bool, device=device))
            block.register_buffer("importance", torch.zeros((), device=device))
            for unit, size in zip(_UNITS, sizes, strict=True):
                block.register_buffer(f"{unit}_leave", torch.zeros(size, dtype=torch.bool, device=device))
                block.register_buffer(f"{unit}_importance", torch.zeros(size, device=device))
            self._hooks.append(block.register_forward_hook(_pass_through))
        size = head_size(model)
        for module, axis in block_axes(model).values():
            block = self._blocks[axis.block]
            self._parts.append((module, module.weight, axis))
            for name, length in zip(("leaving_rows", "leaving_columns"), module.weight.shape, strict=True):
                module.register_buffer(name, torch.zeros(length, dtype=torch.bool, device=device))
            if axis.number == 1:  # what leads out: its input is what the units give
                width = size if axis.unit == "heads" else 1
                self._hooks.append(module.register_forward_pre_hook(_Watch(block, axis.unit, width)))
        return model

    def _check(self, shapes: list[tuple[int, int]]) -> None:
        """Raises `SettingError` where too much or nothing would be removed."""
        left = len(shapes) - round(self.layers * len(shapes))
        if left < min(2, len(shapes)):
            raise SettingError(
                f"structured.layers {self.layers} leaves {left} of {len(shapes)} blocks; the first and the last stay."
            )
        removed = len(shapes) - left
        for place, unit in enumerate(_UNITS):
            total = sum(shape[place] for shape in shapes) * left // len(shapes)
            count = round((getattr(self, unit) or 0) * total)
            removed += count
            if total - count < left:
                raise SettingError(
                    f"structured.{unit} {getattr(self, unit)} leaves {total - count} of {total} {unit} for {left} "
                    "blocks, but each needs one."
                )
        if not removed:
            raise SettingError("structured removes not even one head or neuron of this model. Raise its shares.")

    def on_step_end(self, model: nn.Module, progress: float) -> None:
        """Removes what is due, and zeroes the weights of all that is removed."""
        time = self._time(progress)
        self._leave_blocks(time)
        for unit in _UNITS:
            self._leave_units(unit, time)
        size = head_size(model)
        with torch.no_grad():
            for module, weight, axis in self._parts:
                block = self._blocks[axis.block]
                units = getattr(block, f"{axis.unit}_leave")
                leaving = module.leaving_columns if axis.number else module.leaving_rows
                leaving[unit_indices(units, axis, size)] = True
                if block.leaves:
                    module.leaving_rows.fill_(True)
                weight.masked_fill_(module.leaving_rows[:, None] | module.leaving_columns, 0.0)
                if module.bias is not None and axis.number == 0:
                    module.bias.masked_fill_(module.leaving_rows, 0.0)

    def _time(self, progress: float) -> float:
        """How much of the schedule has passed, 0 to 1, in steps of one update."""
        if progress >= self.end:
            return 1.0
        if progress <= self.start:
            return 0.0
        return math.floor((progress - self.start) / (self.end - self.start) * self.updates) / self.updates

    def _leave_blocks(self, time: float) -> None:
        """Blocks leave in the first half of the schedule, so that shares of heads are of those that stay."""
        due = round(round(self.layers * len(self._blocks)) * min(1.0, 2 * time))
        due -= sum(int(block.leaves) for block in self._blocks)
        between = [block for block in self._blocks[1:-1] if not block.leaves]
        scores = self._scores("blocks", [block.importance for block in between])
        for index in torch.argsort(scores, stable=True)[: max(due, 0)].tolist():
            between[index].leaves.fill_(True)

    def _leave_units(self, unit: str, time: float) -> None:
        """The least important heads or neurons leave, until so many of the blocks that stay are gone as are due."""
        staying = [block for block in self._blocks if not block.leaves]
        leaving = [getattr(block, f"{unit}_leave") for block in staying]
        num_left = len(self._blocks) - round(self.layers * len(self._blocks))
        total = sum(len(getattr(block, f"{unit}_leave")) for block in self._blocks) * num_left // len(self._blocks)
        due = round(round(getattr(self, unit) * total) * time) - sum(int(mask.sum()) for mask in leaving)
        if due <= 0:
            return
        scores = self._scores(unit, [getattr(block, f"{unit}_importance") for block in staying])
        parts = scores.masked_fill(torch.cat(leaving), math.inf).split([len(mask) for mask in leaving])
        for mask, part in zip(leaving, parts, strict=True):
            part[torch.where(mask, -math.inf, part).argmax()] = math.inf  # a block keeps its best one
        chosen = torch.zeros_like(torch.cat(leaving))
        chosen[torch.argsort(torch.cat(parts), stable=True)[:due]] = True
        for mask, new in zip(leaving, chosen.split([len(mask) for mask in leaving]), strict=True):
            mask |= new

    def _scores(self, what: str, importances: list[Tensor]) -> Tensor:
        if not importances:
            return torch.zeros(0)
        scores = torch.cat([importance.flatten() for importance in importances])
        if self.importance == "gradient":
            return scores
        generator = torch.Generator().manual_seed(seed_for(self._seed, "structured", what))
        return torch.rand(scores.shape, generator=generator).to(scores.device)

    def convert(self, model: nn.Module) -> nn.Module:
        """Cuts the matrices, leaving `num_dropped` on the model; changes `model` and returns it."""
        if self._time(1.0) < 1 or not self._has_reached():
            raise SettingError("structured did not reach its shares: the training was too short for its schedule.")
        before = sum(parameter.numel() for parameter in model.parameters())
        for hook in self._hooks:
            hook.remove()
        stays = [not bool(block.leaves) for block in self._blocks]
        kept = [{unit: ~getattr(block, f"{unit}_leave") for unit in _UNITS} for block in self._blocks]
        for module, _, _ in self._parts:
            del module.leaving_rows, module.leaving_columns
        for block in self._blocks:
            del block.leaves, block.importance
            for unit in _UNITS:
                delattr(block, f"{unit}_leave")
                delattr(block, f"{unit}_importance")
        keep_units(model, kept)
        drop_blocks(model, stays)
        dropped = before - sum(parameter.numel() for parameter in model.parameters())
        model.num_dropped = getattr(model, "num_dropped", 0) + dropped  # type: ignore[assignment]
        return model

    def _has_reached(self) -> bool:
        staying = [block for block in self._blocks if not block.leaves]
        return len(self._blocks) - len(staying) == round(self.layers * len(self._blocks)) and all(
            sum(int(getattr(block, f"{unit}_leave").sum()) for block in staying)
            == round(getattr(self, unit) * sum(len(getattr(block, f"{unit}_leave")) for block in staying))
            for unit in _UNITS
        )


def _pass_through(block: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """What comes out of a block: what went in, where it has left; before, notes what that would do to the loss."""
    if block.leaves:
        return inputs[0]  # type: ignore[no-any-return]
    if output.requires_grad and output.shape == inputs[0].shape:
        change = (inputs[0] - output).detach()

        def note(gradient: Tensor) -> None:
            by_row = (change.float() * gradient.float()).flatten(1).sum(1)  # (B,)
            _average(block.importance, by_row.abs().sum())

        output.register_hook(note)
    return output


class _Watch:
    """Notes what the loss would change to first order without each of the units that a layer reads."""

    def __init__(self, block: Any, unit: str, width: int) -> None:
        self._block, self._unit, self._width = block, unit, width

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        given = inputs[0]  # (B, T, units x width)
        if not given.requires_grad:
            return
        values = given.detach()

        def note(gradient: Tensor) -> None:
            by_row = (values * gradient).sum(1, dtype=torch.float32)  # (B, units x width)
            by_unit = by_row.view(len(by_row), -1, self._width).sum(2).abs().sum(0)
            _average(getattr(self._block, f"{self._unit}_importance"), by_unit)

        given.register_hook(note)


def _average(kept: Tensor, new: Tensor) -> None:
    kept.mul_(_MEMORY).add_(new, alpha=1 - _MEMORY)
