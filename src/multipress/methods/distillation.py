"""Distillation: the model learns a bigger model's outputs beside the labels.

What it does:
    Adds to the loss the distance between the model's logits and a teacher's on the same rows. The teacher runs
    once: its logits on the training rows are stored and read in each epoch.

When to use it:
    Whenever there is a better model than the one that is made small: a larger one, or the same one before it was
    compressed. The smaller the model, the more it helps.

Settings:
    loss: `kl` (default): divergence of the softened class distributions; `mse`: squared distance of the logits (the
        only one for a number).
    temperature: Softens both distributions in `kl` (2.0); above 1 the small probabilities count more.
    alpha: Share of this term in the loss, 0 to 1; the labels have the rest (0.5).

Cost:
    Training time: under 1 % beside one pass of the teacher over the rows. Memory: the logits.

With other methods:
    Touches no weight, so it combines with all. It repairs part of what pruning and low bits lose.

Limits:
    A teacher that is not better than the model will be makes the model worse. The teacher must have the same labels in
    the same order. A teacher that has seen the same few rows is nearly
    certain of each, and then teaches little more than the labels do.

Source:
    Hinton et al. 2015, section 2 (`kl`, scaled by the squared temperature); Ba and Caruana 2014 (`mse`). Movva et al.
    2022 use distillation without naming loss or temperature; these defaults are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from multipress.errors import SettingError
from multipress.methods.base import Context, Method, Stage, Step, check_choice, check_share

__all__ = ["Distillation", "distillation_loss"]


@dataclass
class Distillation(Method):
    """Distillation from cached logits; see the module's card."""

    name: ClassVar[str] = "distillation"
    stage: ClassVar[Stage] = Stage.OBJECTIVE
    needs: ClassVar[frozenset[str]] = frozenset({"teacher_logits"})

    loss: str = "kl"
    temperature: float = 2.0
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_choice("distillation", "loss", self.loss, ("kl", "mse"))
        check_share("distillation", "alpha", self.alpha)
        if self.alpha == 0:
            raise SettingError(
                "distillation.alpha is 0, so the teacher would not count. Leave distillation out instead."
            )
        if not 0 < self.temperature <= 100:
            raise SettingError(f"distillation.temperature is {self.temperature}, but must be above 0 and at most 100.")
        self._teacher_logits: Tensor | None = None

    def prepare(self, model: nn.Module, context: Context) -> nn.Module:
        """Takes the teacher's logits from the context; the model stays as it is."""
        if context.teacher_logits is None:
            raise SettingError("Distillation needs a teacher. Name one, or let the study train it.")
        if context.target == "number" and self.loss == "kl":
            raise SettingError("distillation.loss 'kl' needs classes; for a number, use loss=mse.")
        self._teacher_logits = context.teacher_logits
        return model

    def compute_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The weighted sum of the loss on labels and the distance to the teacher."""
        assert self._teacher_logits is not None
        teacher = self._teacher_logits[step.rows.cpu()].to(step.logits.device)  # (B, C)
        distance = distillation_loss(step.logits, teacher, self.loss, self.temperature)
        return (1 - self.alpha) * loss + self.alpha * distance


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
