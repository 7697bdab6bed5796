"""Cells grouped over seeds: mean and spread of the score, both sizes, change against the dense model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, TypeVar

from multipress.analysis.cells import Cell, label_of, levels_json

__all__ = ["Group", "Summary", "group_cells", "on_every_task", "summarize"]

T = TypeVar("T")


@dataclass(frozen=True)
class Summary:
    """Mean and spread of some numbers.

    Args:
        mean: Plain mean; None of no number.
        sd: Standard deviation with n - 1 below; None of fewer than two numbers.
        low: Smallest number.
        high: Largest number.
        n: How many numbers.
    """

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    n: int


def summarize(values: Sequence[float]) -> Summary:
    """Mean and spread of numbers; of equal numbers the mean is exactly that number."""
    if not values:
        return Summary(None, None, None, None, 0)
    low, high = min(values), max(values)
    mean = low if low == high else fmean(values)
    return Summary(mean, stdev(values) if len(values) > 1 else None, low, high, len(values))


@dataclass(frozen=True)
class Group:
    """Cells that differ in the seed alone.

    Args:
        model: Name of the model.
        task: Name of the task, as in `Cell`.
        levels: Methods and their levels; empty: the dense control.
        run_ids: All runs, those that are done before the others.
        score: Of the runs that are done.
        change: Score minus the dense control's of the same model, task and seed, for seeds that both have.
        sizes: Mean bytes by name over the runs that are done; None where nothing was measured.
        num_failed: Runs that failed, diverged or were refused.
        num_waiting: Runs that are pending or running.
    """

    model: str
    task: str
    levels: tuple[tuple[str, str], ...]
    run_ids: tuple[str, ...]
    score: Summary
    change: Summary
    sizes: dict[str, float | None]
    num_failed: int
    num_waiting: int

    @property
    def key(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """Model, task and levels: what tells it from all other groups."""
        return self.model, self.task, self.levels

    @property
    def label(self) -> str:
        """The methods with their levels, such as `Q8+KD+P60`; `dense` for none."""
        return label_of(level for _, level in self.levels)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods."""
        return tuple(name for name, _ in self.levels)

    def ratio(self, size: str) -> float | None:
        """How many times smaller it is than the dense fp32 weights, by one of its sizes."""
        dense, own = self.sizes.get("dense_bytes"), self.sizes.get(size)
        return dense / own if dense and own else None

    def to_json(self) -> dict[str, Any]:
        """The group as plain JSON values."""
        return {
            **asdict(self),
            **levels_json(self.levels),
            "label": self.label,
            "run_ids": list(self.run_ids),
            "ideal_ratio": self.ratio("ideal_bytes"),
            "ratio": self.ratio("weights_bytes"),
        }


def on_every_task(groups: Iterable[tuple[tuple[str, str], str, T]]) -> tuple[dict[tuple[str, str], list[T]], int]:
    """What a mean over tasks may be made of: the combinations of a model and methods that every task has.

    Args:
        groups: Of each group with a result, its model and label, its task, and what is wanted of it.

    Returns:
        By model and label what is wanted, one a task; and how many combinations some task lacks.
    """
    tasks: set[str] = set()
    found: dict[tuple[str, str], list[T]] = {}
    for key, task, one in groups:
        tasks.add(task)
        found.setdefault(key, []).append(one)
    whole = {key: own for key, own in found.items() if len(own) == len(tasks)}
    return whole, len(found) - len(whole)


def group_cells(cells: Sequence[Cell]) -> list[Group]:
    """Group cells over seeds, in the order in which they first appear; no cell is dropped."""
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.task, cell.levels), []).append(cell)
    return [_group(members, groups.get((model, task, ()), [])) for (model, task, _), members in groups.items()]


def _group(members: Sequence[Cell], dense: Sequence[Cell]) -> Group:
    done = [cell for cell in members if cell.is_done]
    dense_scores = {cell.seed: cell.score for cell in dense if cell.is_done}
    first = members[0]
    changes = []
    for cell in done:
        reference = dense_scores.get(cell.seed)
        if cell.score is not None and reference is not None:
            changes.append(cell.score - reference)
    waiting = sum(cell.state in ("pending", "running") for cell in members)
    return Group(
        model=first.model,
        task=first.task,
        levels=first.levels,
        run_ids=tuple(cell.run_id for cell in sorted(members, key=lambda cell: not cell.is_done)),
        score=summarize([cell.score for cell in done if cell.score is not None]),
        change=summarize(changes),
        sizes={name: _mean_size(done, name) for name in first.sizes},
        num_failed=len(members) - len(done) - waiting,
        num_waiting=waiting,
    )


def _mean_size(cells: Sequence[Cell], name: str) -> float | None:
    return summarize([size for cell in cells if (size := cell.sizes.get(name)) is not None]).mean
