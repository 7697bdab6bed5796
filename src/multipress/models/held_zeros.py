"""Weights that were removed before a training and stay removed through it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["HeldZeros"]


class HeldZeros:
    """Keeps what a model that was pruned before has lost: these weights are zero after every step.

    Args:
        model: The model, before methods prepare it.
        masks: By the name of a weight, where it is kept: bool, of the weight's shape.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        modules = dict(model.named_modules())
        self._held = []
        for name, mask in masks.items():
            module = modules[name.removesuffix(".weight")]
            self._held.append((module, module.weight, mask))
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Zero them."""
        for _, weight, mask in self._held:
            weight.mul_(mask.to(weight.device))  # type: ignore[operator]

    def finish(self) -> None:
        """Note on each module how many of its weights are removed, unless a method has removed more of them."""
        for module, _, mask in self._held:
            axis, indices = getattr(module, "stored_indices", (0, None))
            if indices is not None:  # rows or columns were taken out since
                mask = mask.index_select(axis, indices)
            removed = int(mask.numel() - torch.count_nonzero(mask))
            module.num_pruned = max(removed, getattr(module, "num_pruned", 0))  # type: ignore[assignment]
