"""Magnitude pruning: the smallest weights of the encoder become zero, gradually, during training.

What it does:
    Ranks weights by absolute value and sets the smallest to zero until a share `sparsity` of them is gone. The
    share rises from 0 at `start` to its full value at `end` of the training; the weights left go on learning, the
    ones gone stay zero. Weights of attention and feed-forward layers are ranked, of a translator those of both sides;
    LayerNorm, pooler and head never; embeddings and biases only when asked.

When to use it:
    After quantization and distillation, when the file must be smaller still. 0.4 costs little; 0.6 is felt on
    small encoders. It makes the file smaller, not the model faster.

Settings:
    sparsity: Share of the ranked weights to remove, 0 to 1 (0.6; the paper uses 0.4 and 0.6).
    scope: `global` ranks all matrices together (default); `matrix` removes the same share of each.
    schedule: `linear` (default, the paper's) or `cubic` (fast first, slow last).
    start: Share of the training after which pruning begins (0.1: after the warm-up, as in the paper).
    end: Share of the training at which the full sparsity is reached (0.7).
    importance: `magnitude` (default); as controls `random`, or `none`, with sparsity 0, which takes nothing away.
    embeddings: Whether to rank the word embeddings too (false; the paper found that it "significantly harms
        accuracy").
    biases: Whether to rank the biases of attention and feed-forward layers too (false; Movva and Zhao 2020 do).
    updates: How often the mask grows between `start` and `end` (20).

Cost:
    Training time: 2 to 4 % (a mask in place after each step). Memory: one byte a weight.

With other methods:
    Acts before quantization: integer codes are made from masked weights, so every removed weight is an exact zero
    in the file. Distillation repairs much of its loss. Of weights that `structured` takes out none is counted.

Limits:
    Unstructured zeros do not make a dense matrix product faster. The file holds them for less than a bit each.

Source:
    Han et al. 2015, section 3 (magnitude); Zhu and Gupta 2017, equation 1 (gradual, cubic); Movva et al. 2022
    (shares, linear schedule, encoder only). Differs: the mask grows in `updates` steps, not at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from multipress.errors import SettingError
from multipress.methods.base import (
    Context,
    Method,
    Stage,
    check_choice,
    check_share,
    later,
    num_staying,
    staying,
    unique_weights,
)
from multipress.models.encoder import encoder_linears
from multipress.models.held_zeros import NUM_PRUNED
from multipress.reproducibility import seed_for

__all__ = ["Pruning", "keep_largest", "target_sparsity"]


@dataclass(frozen=True)
class _Target:
    """A weight, or a bias, that is ranked; its mask is a buffer of its layer.

    Args:
        name: Of the layer.
        module: The layer.
        values: What is ranked, as it is trained.
        kind: `weight` or `bias`.
    """

    name: str
    module: Any
    values: nn.Parameter
    kind: str = "weight"

    @property
    def full_name(self) -> str:
        """Its name in the model."""
        return f"{self.name}.{self.kind}"

    @property
    def mask_name(self) -> str:
        """Name of the buffer."""
        return "pruning_mask" if self.kind == "weight" else "pruning_mask_of_bias"

    @property
    def count_name(self) -> str:
        """What the layer calls the number of values that are gone."""
        return NUM_PRUNED[self.kind]

    @property
    def mask(self) -> Tensor:
        """Where it is kept, bool."""
        return cast(Tensor, getattr(self.module, self.mask_name))

    @property
    def now(self) -> Tensor:
        """What the layer holds after conversion."""
        return cast(Tensor, getattr(self.module, self.kind).detach())

    def num_staying(self) -> int:
        """How many of the values no other method takes out."""
        if self.kind == "weight":
            return num_staying(self.module, self.values)
        return int(self.staying_part(torch.ones_like(self.values)).numel())

    def staying_part(self, values: Tensor) -> Tensor:
        """Of something of its shape what no other method takes out."""
        rows, columns = staying(self.module)
        return values[rows][:, columns] if self.kind == "weight" else values[rows]

    def set_mask(self, kept: Tensor) -> None:
        """Keeps these values (n,) of those that stay, and no other."""
        rows, columns = staying(self.module)
        part = torch.zeros_like(self.values[rows], dtype=torch.bool)
        if self.kind == "weight":
            part[:, columns] = kept.view_as(part[:, columns])
        else:
            part.copy_(kept)
        self.mask.zero_()
        self.mask[rows] = part


@dataclass
class Pruning(Method):
    """Magnitude pruning; see the module's card."""

    name: ClassVar[str] = "pruning"
    stage: ClassVar[Stage] = Stage.SPARSITY

    sparsity: float = 0.6
    scope: str = "global"
    schedule: str = "linear"
    start: float = 0.1
    end: float = 0.7
    importance: str = "magnitude"
    embeddings: bool = False
    updates: int = 20
    biases: bool = later(False)

    def __post_init__(self) -> None:
        for name in ("sparsity", "start", "end"):
            check_share("pruning", name, getattr(self, name))
        check_choice("pruning", "scope", self.scope, ("global", "matrix"))
        check_choice("pruning", "schedule", self.schedule, ("linear", "cubic"))
        check_choice("pruning", "importance", self.importance, ("magnitude", "random", "none"))
        if self.importance == "none" and self.sparsity:
            raise SettingError(
                f"pruning.importance is none, but pruning.sparsity {self.sparsity}; only 0 takes nothing."
            )
        if self.sparsity == 0 and self.importance != "none":
            raise SettingError("pruning.sparsity is 0, so nothing would be pruned. Leave pruning out instead.")
        if self.start > self.end:
            raise SettingError(f"pruning.start {self.start} lies after pruning.end {self.end}.")
        if self.updates < 1:
            raise SettingError(f"pruning.updates is {self.updates}, but must be at least 1.")
        self._targets: dict[str, _Target] = {}
        self._level = -1
        self._counted = 0  # weights that the masks were last grown for
        self._seed = 0

    def prepare(self, model: nn.Module, context: Context) -> nn.Module:
        """Adds a mask of ones to each module whose weight is ranked; changes `model` and returns it."""
        ranked: set[nn.Module] = set(encoder_linears(model).values())
        if self.embeddings:
            ranked.add(model.get_input_embeddings())  # type: ignore[operator]
        modules = {name: module for name, module in model.named_modules() if module in ranked}
        self._targets = {name: _Target(name, module, weight) for name, module, weight in unique_weights(modules)}
        if self.biases:
            with_bias = {name: module for name, module in modules.items() if getattr(module, "bias", None) is not None}
            self._targets |= {f"{name}.bias": _Target(name, m, m.bias, "bias") for name, m in with_bias.items()}
        if not self._targets:
            raise SettingError("Pruning found no linear layer in the encoder to prune.")
        size = sum(target.values.numel() for target in self._targets.values())
        if self.importance != "none" and round(self.sparsity * size) == 0:
            raise SettingError(f"pruning.sparsity {self.sparsity} removes not even one weight of this model.")
        for target in self._targets.values():
            target.module.register_buffer(target.mask_name, torch.ones_like(target.values, dtype=torch.bool))
        self._level, self._counted = -1, 0
        self._seed = context.seed
        if context.ranking is not None:
            self._prune_at_once(context.ranking)
        return model

    @torch.no_grad()
    def _prune_at_once(self, ranking: dict[str, Tensor]) -> None:
        """A round of iterative pruning: what is smallest in another model is removed before the first step.

        Zeros of that model come first, so that a weight that an earlier round removed is never given back.
        """
        weights = {name: ranking[target.full_name] for name, target in self._targets.items()}
        for name, target in self._targets.items():
            target.mask.copy_(weights[name].to(target.values.device) != 0)
        self._grow_masks(self.sparsity, weights)
        self._level = self.updates
        for target in self._targets.values():
            target.values.mul_(target.mask)

    def on_step_end(self, model: nn.Module, progress: float) -> None:
        """Grows the masks when it is time, and zeroes the weights they remove."""
        level, count = self._level_at(progress), sum(self._num_staying())
        if level > self._level or count < self._counted:
            self._level, self._counted = max(level, self._level), count
            self._grow_masks(target_sparsity(self._level / self.updates, self.sparsity, self.schedule))
        with torch.no_grad():
            for target in self._targets.values():
                # The mask acts on the weight, not on its gradient: momentum would revive what only lacks a gradient.
                target.values.mul_(target.mask)

    def _level_at(self, progress: float) -> int:
        """How many of the `updates` growths are due."""
        if progress >= self.end:
            return self.updates
        if progress <= self.start:
            return 0
        return math.floor((progress - self.start) / (self.end - self.start) * self.updates)

    def _num_staying(self) -> list[int]:
        """How many weights of each matrix, and biases, no other method takes out."""
        return [target.num_staying() for target in self._targets.values()]

    def _grow_masks(self, sparsity: float, ranking: dict[str, Tensor] | None = None) -> None:
        """What leaves with its row or column counts as nothing; where less stays, less is marked."""
        scores = []
        for name, target in self._targets.items():
            values = target.values
            ranked = values if ranking is None else ranking[name].to(values.device)
            score = ranked.detach().abs() if self.importance == "magnitude" else self._random(name, values)
            # What is gone ranks below everything, so a mask never gives a weight back.
            scores.append(target.staying_part(score.masked_fill(~target.mask, -1.0)).flatten())
        if self.scope == "global":
            keep = keep_largest(torch.cat(scores), sparsity).split([score.numel() for score in scores])
        else:
            keep = tuple(keep_largest(score, sparsity) for score in scores)
        for kept, target in zip(keep, self._targets.values(), strict=True):
            target.set_mask(kept)

    def _random(self, name: str, weight: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed_for(self._seed, "pruning", name))
        return torch.rand(weight.shape, generator=generator).to(weight.device)

    def convert(self, model: nn.Module) -> nn.Module:
        """Removes the masks, leaving the zeros and `num_pruned` on each module; changes `model` and returns it."""
        self._check_reached()
        for target in self._targets.values():
            if torch.count_nonzero(target.now[~target.mask]):
                raise AssertionError("a pruned weight is not zero")
            mask = target.staying_part(target.mask)
            setattr(target.module, target.count_name, int(mask.numel() - torch.count_nonzero(mask)))
            delattr(target.module, target.mask_name)
        return model

    def _check_reached(self) -> None:
        sizes = self._num_staying()
        masks = [target.mask for target in self._targets.values()]
        removed = [size - int(mask.sum()) for size, mask in zip(sizes, masks, strict=True)]
        if self.scope == "global":
            reached = sum(removed) == round(self.sparsity * sum(sizes))
        else:
            reached = removed == [round(self.sparsity * size) for size in sizes]
        if not reached:
            raise SettingError(
                f"Pruning reached {sum(removed)} of {round(self.sparsity * sum(sizes))} weights: the training was too "
                "short for its schedule. Train longer or lower pruning.end."
            )


def target_sparsity(time: float, sparsity: float, schedule: str) -> float:
    """Sparsity wanted at a time of the schedule.

    Args:
        time: 0 at the start of the schedule, 1 at its end.
        sparsity: Final sparsity.
        schedule: `linear` or `cubic` (Zhu and Gupta 2017, equation 1, from an initial sparsity of 0).
    """
    return sparsity * time if schedule == "linear" else sparsity * (1 - (1 - time) ** 3)


def keep_largest(scores: Tensor, sparsity: float) -> Tensor:
    """Mark what to keep: all but the `round(sparsity * N)` smallest scores.

    Args:
        scores: (N,), any order.
        sparsity: Share to drop, 0 to 1.

    Returns:
        (N,) bool with exactly `round(sparsity * N)` False; ties are dropped from the front.
    """
    num_dropped = round(sparsity * scores.numel())
    if num_dropped == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    # The k-th smallest in linear time; a sort of ten million scores takes ten times as long.
    threshold = scores.kthvalue(num_dropped).values
    keep = scores > threshold
    num_tied_kept = scores.numel() - num_dropped - int(keep.sum())
    if num_tied_kept > 0:
        tied = (scores == threshold).nonzero().flatten()
        keep[tied[tied.numel() - num_tied_kept :]] = True
    return keep
