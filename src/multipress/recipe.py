"""The one place where methods are combined: their order, what is refused, and the calls of their hooks."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from torch import Tensor, nn

from multipress.errors import SettingError
from multipress.methods import Context, Method, Stage, Step, build_method
from multipress.spec import MethodSpec

__all__ = ["Recipe"]

# Pairs of methods of one stage that were tested together. Objectives add up and need no entry.
TESTED_TOGETHER: frozenset[frozenset[str]] = frozenset({frozenset({"structured", "vocabulary"})})


class Recipe:
    """Compression methods in order: STRUCTURE, SPARSITY, PRECISION, OBJECTIVE, then by name.

    Args:
        methods: Any order; none makes the dense control.

    Raises:
        SettingError: a method twice, or two of one stage that were not tested together.
    """

    def __init__(self, methods: list[Method]) -> None:
        self.methods = sorted(methods, key=lambda method: (method.stage, method.name))
        for first, second in combinations(self.methods, 2):
            pair = frozenset({first.name, second.name})
            if len(pair) == 1:
                raise SettingError(f"The method {first.name} is given twice.")
            if first.stage == second.stage != Stage.OBJECTIVE and pair not in TESTED_TOGETHER:
                raise SettingError(
                    f"{first.name} and {second.name} both change {first.stage.name.lower()}, and were not tested "
                    "together. Choose one."
                )

    @classmethod
    def from_specs(cls, specs: tuple[MethodSpec, ...]) -> Recipe:
        """The recipe of a run; raises `SpecError` or `SettingError`."""
        return cls([build_method(spec.name, spec.settings) for spec in specs])

    def specs(self) -> tuple[MethodSpec, ...]:
        """The methods in order with all their settings written out."""
        return tuple(MethodSpec(method.name, method.settings()) for method in self.methods)

    def versions(self) -> dict[str, int]:
        """Version of each method, a part of a run's identity."""
        return {method.name: method.version for method in self.methods}

    def needs(self, target: str = "classes") -> frozenset[str]:
        """What must be provided for a task of this kind, such as `teacher_logits`."""
        return frozenset().union(*(method.needs(target) for method in self.methods))

    def check_target(self, target: str) -> None:
        """Raise `SettingError` for settings of a method that are not for a task of this kind."""
        for method in self.methods:
            method.check_target(target)

    def learns(self) -> bool:
        """Whether a method learns from a teacher."""
        return bool(self.needs() | self.needs("text"))

    def label_specs(self, target: str = "classes") -> tuple[MethodSpec, ...]:
        """What the run that makes the teacher's logits, or translations, must know of the methods."""
        specs = [MethodSpec(method.name, method.label_settings(target)) for method in self.methods]
        return tuple(spec for spec in specs if spec.settings)

    def prepare(self, model: nn.Module, context: Context) -> nn.Module:
        """Prepares the model for training, method by method; changes `model` and returns the model to train."""
        for method in self.methods:
            model = method.prepare(model, context)
        return model

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Optimizer groups that methods added."""
        return [group for method in self.methods for group in method.parameter_groups(model)]

    def compute_loss(self, loss: Tensor, step: Step) -> Tensor:
        """The loss to minimize."""
        for method in self.methods:
            loss = method.compute_loss(loss, step)
        return loss

    def on_step_end(self, model: nn.Module, progress: float) -> None:
        """After each optimizer step."""
        for method in self.methods:
            method.on_step_end(model, progress)

    def convert(self, model: nn.Module) -> nn.Module:
        """Converts the model for storage, methods in reverse order; changes `model` and returns it."""
        for method in reversed(self.methods):
            model = method.convert(model)
        return model
