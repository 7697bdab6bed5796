"""Weights that were removed before a training and stay removed through it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["NUM_PRUNED", "HeldZeros"]

NUM_PRUNED = {"weight": "num_pruned", "bias": "num_pruned_biases"}  # what a layer calls how many are removed


class HeldZeros:
    """Keeps what a model that was pruned before has lost: these weights are zero after every step.

    Args:
        model: The model, before methods prepare it.
        masks: By the name of a weight or a bias, where it is kept: bool, of its shape.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        modules = dict(model.named_modules())
        self._held = []
        for name, mask in masks.items():
            place, _, kind = name.rpartition(".")
            self._held.append((modules[place], kind, getattr(modules[place], kind), mask))
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Zero them."""
        for _, _, values, mask in self._held:
            values.mul_(mask.to(values.device))

    def finish(self) -> None:
        """Note on each module how many of its weights are removed, unless a method has removed more of them."""
        for module, kind, _, mask in self._held:
            axis, indices = getattr(module, "stored_indices", (0, None))
            if indices is not None and axis < mask.ndim:  # rows or columns were taken out since
                mask = mask.index_select(axis, indices)
            removed = int(mask.numel() - torch.count_nonzero(mask))
            count = NUM_PRUNED[kind]
            setattr(module, count, max(removed, getattr(module, count, 0)))
