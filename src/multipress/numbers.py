"""Numbers of any size are learned as numbers of mean 0 and spread 1; the model's output layer carries both.

A score from 0 to 100 or a price is far from what a new head gives, and the loss of its first steps would drown
everything else. Outside the training a model's output is the number itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from multipress.errors import SettingError
from multipress.methods.quantization.grid import QuantizedWeight
from multipress.models.families import family_of

__all__ = ["Numbers"]

SCALES = (1e-7, 6e4)  # what float16, in which scales of integers are stored, can hold


@dataclass(frozen=True)
class Numbers:
    """Mean and spread of the numbers that are to be learned.

    Args:
        mean: Their mean.
        spread: Their standard deviation; 1 where all are equal.
    """

    mean: float
    spread: float

    @classmethod
    def of(cls, labels: np.ndarray) -> Numbers:
        """Of the rows that have a label: (N,) floats, NaN where there is none."""
        known = labels[~np.isnan(labels)].astype(np.float64)
        spread = float(known.std()) if len(known) else 0.0
        return cls(float(known.mean()) if len(known) else 0.0, spread or 1.0)

    def standardized(self, values: np.ndarray) -> np.ndarray:
        """Numbers, labels or a teacher's, as they are learned, float32."""
        return ((values.astype(np.float64) - self.mean) / self.spread).astype(np.float32)

    @torch.no_grad()
    def into(self, model: nn.Module) -> None:
        """Change a model that gives standardized numbers so that it gives the numbers themselves.

        Raises:
            SettingError: the layer's integers cannot carry so large or so small a spread.
        """
        layer = _output(model)
        if hasattr(layer, "weight_codes"):
            scale = layer.weight_scale.double() * self.spread
            if not SCALES[0] < scale.abs().min() <= scale.abs().max() < SCALES[1]:
                raise SettingError(
                    f"The labels' spread, {self.spread:g}, is beyond what a quantized model can give. Divide or "
                    "multiply them by a power of ten."
                )
            layer.weight_scale = scale.to(layer.weight_scale.dtype)
            layer.weight.copy_(QuantizedWeight(layer.weight_codes, layer.weight_scale).dense())
        else:
            layer.weight.mul_(self.spread)
        layer.bias.copy_(self._carried_by(layer.bias))

    @torch.no_grad()
    def out_of(self, model: nn.Module) -> None:
        """Change a model that gives the numbers themselves so that it gives standardized ones."""
        layer = _output(model)
        layer.weight.div_(self.spread)
        layer.bias.copy_((layer.bias.double() - self.mean) / self.spread)

    def into_weights(self, model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A model's weights by name, in floats, such that they give the numbers themselves; `model` stays."""
        name = family_of(model).output
        carried = {
            f"{name}.weight": weights[f"{name}.weight"] * self.spread,
            f"{name}.bias": self._carried_by(weights[f"{name}.bias"]),
        }
        return weights | carried

    def _carried_by(self, bias: Tensor) -> Tensor:
        return (bias.double() * self.spread + self.mean).to(bias.dtype)


def _output(model: nn.Module) -> Any:
    return cast("Any", model.get_submodule(family_of(model).output))
