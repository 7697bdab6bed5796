"""What is compared: a block is one model, task and seed; a place is a model and a task, whatever the seeds.

Means over blocks are means over places of the means over their seeds, so that each model and task counts alike where
some of them have more seeds than others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["Block", "Place", "by_place"]

Block = tuple[str, str, int | None]  # model, task, seed
Place = tuple[str, str]  # model, task

T = TypeVar("T")


def by_place(values: Mapping[Block, T]) -> dict[Place, list[T]]:
    """The values of each place, one a seed, in their order."""
    found: dict[Place, list[T]] = {}
    for (model, task, _), value in values.items():
        found.setdefault((model, task), []).append(value)
    return found
