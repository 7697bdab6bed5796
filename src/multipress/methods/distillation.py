"""Distillation: the model learns a bigger model's outputs beside the labels.

What it does:
    Adds to the loss the distance between the model's logits and a teacher's on the same rows. The teacher runs
    once: its logits on the training rows are stored and read in each epoch.

When to use it:
    Whenever there is a better model than the one that is made small. The better the teacher, the more it helps; the
    model itself as its teacher cost points where it was measured (docs/log.md). Where no teacher is named, it is the
    largest model of the study, or for `train` the model itself; both are fine-tuned without compression first.

Settings:
    loss: `auto` (default): `kl` for classes and `mse` for a number; `kl`: divergence of the softened class
        distributions; `mse`: squared distance of the logits.
    temperature: Softens both distributions in `kl` (4.0); above 1 the small probabilities count more.
    alpha: Share of this term in the loss, 0 to 1; the labels have the rest (0.5).
    hidden: Weight of a further term, the distance of the hidden states to the teacher's (0: none). Where rows are few
        or classes many it can help more than the logits: 10 was the best of 0.3, 1, 3 and 10.
    augment: Further rows made of each training row by replacing words, labelled by the teacher alone (0). The number of
        steps stays that of the rows without them.
    replace: Share of the words that are replaced in them (0.3).
    layers: Which of the teacher's blocks each block learns from, in `hidden`: `uniform` (default), spread evenly from
        bottom to top, or `last`, the teacher's top blocks.

Cost:
    Training time: under 1 % beside one pass of the teacher over the rows. Memory: the logits. With `hidden`, the
    teacher runs in each step: a third of the time of training a model of its size.

With other methods:
    Touches no weight, so it combines with all. It repairs part of what pruning and low bits lose.

Limits:
    A teacher that is not better than the model will be makes the model worse. The teacher must have the same labels in
    the same order, and for `hidden` the same tokenizer. A teacher that has seen the same few rows is nearly certain of
    each, and then teaches little more than the labels do.

Source:
    Hinton et al. 2015, section 2 (`kl`, scaled by the squared temperature); Ba and Caruana 2014 (`mse`); Jiao et al.
    2020, TinyBERT, section 3.1 (`hidden`: embeddings and mapped blocks through one learned matrix where the widths
    differ; here one matrix for all blocks, which begins as a linear fit, the distance relative to the size of the
    teacher's states, and no term for attention). Movva et al. 2022 use distillation without naming loss or
    temperature; these defaults are ours. Their augmentation took synonyms from a list; `augment` takes the nearest
    words of the teacher's embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from multipress.errors import SettingError
from multipress.methods.base import Context, Method, Stage, Step, check_choice, check_share
from multipress.models.encoder import hidden_layers, model_inputs, spread_blocks
from multipress.precision import autocast, route

__all__ = ["PROJECTION", "Distillation", "distillation_loss"]


@dataclass
class Distillation(Method):
    """Distillation from cached logits, and from a teacher's hidden states; see the module's card."""

    name: ClassVar[str] = "distillation"
    stage: ClassVar[Stage] = Stage.OBJECTIVE
    version: ClassVar[int] = 2  # 2: the matrix between widths begins as a fit

    loss: str = "auto"
    temperature: float = 4.0
    alpha: float = 0.5
    hidden: float = 0.0
    augment: int = 0
    replace: float = 0.3
    layers: str = "uniform"

    def __post_init__(self) -> None:
        check_choice("distillation", "loss", self.loss, ("auto", "kl", "mse"))
        check_choice("distillation", "layers", self.layers, tuple(LAYER_MAPS))
        check_share("distillation", "alpha", self.alpha)
        check_share("distillation", "replace", self.replace)
        if not 0 <= self.augment <= 20:
            raise SettingError(f"distillation.augment is {self.augment}, but must be from 0 to 20.")
        if self.hidden < 0:
            raise SettingError(f"distillation.hidden is {self.hidden}, but must be at least 0.")
        if self.alpha == 0 and self.hidden == 0:
            raise SettingError(
                "distillation.alpha is 0, so the teacher would not count. Leave distillation out instead."
            )
        if not 0 < self.temperature <= 100:
            raise SettingError(f"distillation.temperature is {self.temperature}, but must be above 0 and at most 100.")
        self._kind = self.loss
        self._teacher_logits: Tensor | None = None
        self._hidden: _HiddenStates | None = None

    def needs(self) -> frozenset[str]:
        """The teacher's logits, the teacher itself where its hidden states count, or both."""
        wanted = {"teacher_logits": self.alpha, "teacher_model": self.hidden}
        return frozenset(name for name, weight in wanted.items() if weight)

    def label_settings(self) -> dict[str, Any]:
        """The further rows that the teacher must label."""
        return {"augment": self.augment, "replace": self.replace} if self.augment else {}

    def prepare(self, model: nn.Module, context: Context) -> nn.Module:
        """Takes the teacher from the context; where hidden states of another width count, adds a matrix."""
        if any(getattr(context, name) is None for name in self.needs()):
            raise SettingError("Distillation needs a teacher. Name one, or let the study train it.")
        if context.target == "number" and self.loss == "kl":
            raise SettingError("distillation.loss 'kl' needs classes; for a number, use loss=mse.")
        if self.loss == "auto":
            self._kind = "mse" if context.target == "number" else "kl"
        if self.alpha:
            self._teacher_logits = context.teacher_logits
        if self.hidden and context.teacher_model is not None:
            self._hidden = _HiddenStates(model, context.teacher_model, self.layers)
        return model

    def compute_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The weighted sum of the loss on labels and the distances to the teacher."""
        if self._teacher_logits is not None:
            teacher = self._teacher_logits[step.rows.cpu()].to(step.logits.device)  # (B, C)
            distance = distillation_loss(step.logits, teacher, self._kind, self.temperature)
            loss = (1 - self.alpha) * loss + self.alpha * distance
        if self._hidden is not None:
            loss = loss + self.hidden * self._hidden.distance(step)
        return loss

    def convert(self, model: nn.Module) -> nn.Module:
        """Takes away what looked at the hidden states."""
        if self._hidden is not None:
            self._hidden.remove(model)
        return model


# The teacher's block for each of a student's blocks, counted from 1.
LAYER_MAPS: dict[str, Callable[[int, int, int], int]] = {
    "uniform": lambda block, blocks, teacher_blocks: spread_blocks(blocks, teacher_blocks)[block - 1],
    "last": lambda block, blocks, teacher_blocks: max(1, teacher_blocks - blocks + block),
}
FIT_RIDGE = 0.01  # of the mean square, so that a first batch with few tokens gives a matrix too
PROJECTION = "distillation_projection"  # the name in the model, so that it is saved and resumed with it


class _HiddenStates:
    """Compares a model's hidden states with its teacher's: the embeddings, and each block with the one mapped to it.

    Where the widths differ, one matrix (D_teacher, D_model) stands between them, a part of the model until it is
    removed: a learned one, which begins as the best fit on the first batch, unless the model brings its own, as a
    shrunk encoder does.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module, layers: str) -> None:
        ours, theirs = hidden_layers(model), hidden_layers(teacher)
        blocks, teacher_blocks = len(ours) - 1, len(theirs) - 1
        chosen = [0, *(LAYER_MAPS[layers](block, blocks, teacher_blocks) for block in range(1, blocks + 1))]
        self._teacher = teacher.eval().requires_grad_(False)
        self._ours = _Capture(ours)
        self._theirs = _Capture([theirs[index] for index in chosen])
        config: Any = model.config
        teacher_config: Any = teacher.config
        widths = config.hidden_size, teacher_config.hidden_size
        self._learns_matrix = widths[0] != widths[1] and not hasattr(model, PROJECTION)
        if self._learns_matrix:
            setattr(model, PROJECTION, nn.Linear(*widths, bias=False))

    def distance(self, step: Step) -> Tensor:
        """Mean over the layers of the squared distance relative to the teacher's mean square, over real tokens."""
        device = step.logits.device
        self._teacher.to(device)
        with torch.no_grad(), autocast(route()):
            self._teacher(**model_inputs(self._teacher, step.inputs))
        ours, theirs = self._ours.take(), self._theirs.take()
        matrix = getattr(step.model, PROJECTION, None)
        real = (step.inputs["attention_mask"][:, 0, 0, :, None] == 0).float()  # (B, T, 1)
        if self._learns_matrix and step.progress == 0:
            _fit(matrix, [(mine, wanted[:, : mine.shape[1]]) for mine, wanted in zip(ours, theirs, strict=True)], real)
        total = torch.zeros((), device=device)
        for mine, wanted in zip(ours, theirs, strict=True):
            tokens = mine.shape[1]  # the last block may have computed the first token only
            target, mask = wanted[:, :tokens].float(), real[:, :tokens]
            found = (mine if matrix is None else matrix(mine)).float()
            total = total + ((found - target).square() * mask).sum() / (target.square() * mask).sum()
        return total / len(ours)

    def remove(self, model: nn.Module) -> None:
        """Leave model and teacher as they were."""
        for capture in (self._ours, self._theirs):
            capture.remove()
        if hasattr(model, PROJECTION):
            delattr(model, PROJECTION)


@torch.no_grad()
def _fit(matrix: nn.Linear, pairs: list[tuple[Tensor, Tensor]], real: Tensor) -> None:
    """Sets a matrix so that it takes the first states to the second ones as well as a linear map can.

    From random weights it would pull the model's states into random directions for its first hundreds of steps.

    Args:
        matrix: (D, d).
        pairs: States (B, T, d) and (B, T, D).
        real: (B, T, 1), 1 where there is a token.
    """
    inside = [real[:, : mine.shape[1], 0].bool() for mine, _ in pairs]
    x = torch.cat([mine[mask].float() for (mine, _), mask in zip(pairs, inside, strict=True)])  # (N, d)
    y = torch.cat([wanted[mask].float() for (_, wanted), mask in zip(pairs, inside, strict=True)])  # (N, D)
    products = x.T @ x
    ridge = FIT_RIDGE * products.diagonal().mean() * torch.eye(len(products), device=x.device)
    matrix.weight.copy_(torch.linalg.solve(products + ridge, x.T @ y).T)


class _Capture:
    """Keeps the outputs of some modules in the order in which they are given; a module may be given twice."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self._outputs: dict[nn.Module, Tensor] = {}
        self._modules = modules
        self._hooks = [module.register_forward_hook(self._keep) for module in set(modules)]

    def _keep(self, module: nn.Module, _: Any, output: Any) -> None:
        self._outputs[module] = output[0] if isinstance(output, tuple) else output

    def take(self) -> list[Tensor]:
        """The outputs (B, T, D) of the last forward pass; they are not kept longer."""
        outputs = [self._outputs[module] for module in self._modules]
        self._outputs.clear()
        return outputs

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def distillation_loss(student: Tensor, teacher: Tensor, loss: str, temperature: float) -> Tensor:
    """Distance between two sets of logits, a scalar.

    Args:
        student: (B, C).
        teacher: (B, C).
        loss: `kl`: mean over rows of KL(teacher || student) at `temperature`, times its square, so that the size of
            the gradient does not depend on it; `mse`: mean squared difference.
        temperature: Above 0; unused by `mse`.
    """
    if loss == "mse":
        return functional.mse_loss(student, teacher)
    divergence = functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2
