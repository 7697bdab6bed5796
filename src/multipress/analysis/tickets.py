"""Rounds of iterative pruning: the score as zeros grow, against the dense run, random zeros and none at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from multipress.analysis.cells import Cell
from multipress.analysis.interaction import Levels
from multipress.analysis.resampling import GroupDraws
from multipress.analysis.uncertainty import LEVEL, percentile_ends

__all__ = ["ticket_rounds"]


class _Step(NamedTuple):
    """One round of one way of pruning.

    Args:
        importance: Which weights go; empty: the dense run.
        rewind: `rate`, or `weights`.
        settings: Of pruning, those that differ between ways.
        number: Of the round.
        sparsity: Share that is gone after it, as asked for.
    """

    importance: str
    rewind: str
    settings: str
    number: int
    sparsity: float

    def shown_settings(self, with_share: bool) -> str:
        """The settings; where schedules differ, with the share of the weights left that each round removes."""
        share = 1 - (1 - self.sparsity) ** (1 / max(1, self.number))
        return ", ".join(filter(None, [self.settings, f"share={share:.3g}" if with_share and share else ""]))

    def controls(self) -> dict[str, _Step | None]:
        """By the name of the difference, what the round is held against."""
        # Rounds with weights rewound are all one training where nothing is taken away, run as the first of them.
        number = self.number if self.rewind == "rate" else 1
        return {
            "change": _DENSE if self.importance else None,
            "less_random": None if self.importance in _CONTROLS else self._replace(importance="random"),
            "less_unpruned": (
                self._replace(importance="none", number=number, sparsity=0.0)
                if self.importance not in ("", "none")
                else None
            ),
        }


_DENSE = _Step("", "", "", 0, 0.0)
_CONTROLS = ("", "random", "none")


def ticket_rounds(cells: Sequence[Cell], drawn: GroupDraws | None = None) -> list[dict[str, Any]]:
    """The rounds of each way of pruning, the dense run before them; empty where nothing was pruned in rounds.

    Args:
        cells: Cells of a study.
        drawn: Scores in repetitions, for the intervals.

    Returns:
        Rows by model, task, way and round: `importance` (which weights go), `rewind` (`rate`, or `weights`), `settings`
        (of pruning, those that differ between ways, and the share that each round removes where it does), `round` (the
        dense run is 0, of no way), `sparsity_prunable` and `sparsity` (shares), `seeds`, `score`, `interval`, `change`
        (less the dense run's), `change_interval`, `less_random` (less the same round with as many zeros at random,
        rewound in the same way), `less_random_interval`,
        `less_unpruned` (less the same round in which nothing is taken away, rewound in the same way: a training as
        long), `less_unpruned_interval`, and `run_ids`. What is not known is None.
    """
    by_place: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.is_round or not cell.row["settings"]:
            by_place[cell.model, cell.task].append(cell)
    return [row for place, own in by_place.items() for row in _rows(place, own, drawn)]


def _rounds(cells: Sequence[Cell]) -> dict[str, int]:
    """Which round each run is: one more than the run whose zeros it has and adds to."""
    before = {cell.run_id: str(cell.row.get("mask_from", "")) for cell in cells}
    found = {}
    for run_id in before:
        number, at = 0, run_id
        while before.get(at):
            number, at = number + 1, before[at]
        found[run_id] = number
    return found


def _step(cell: Cell, number: int, shown: Collection[str]) -> _Step:
    """Which round of which way of pruning; `shown` are the settings that differ between ways."""
    if not cell.row["settings"]:
        return _DENSE
    settings = cell.row["settings"].get("pruning", {})
    others = ", ".join(f"{key}={settings[key]}" for key in sorted(shown) if key in settings)
    rewind = "weights" if cell.row.get("rewound") else "rate"
    return _Step(_importance(cell), rewind, others, number, float(settings.get("sparsity", 0)))


def _importance(cell: Cell) -> str:
    """By what is pruned; the dense run by nothing."""
    return str(cell.row["settings"].get("pruning", {}).get("importance", "magnitude")) if cell.row["settings"] else ""


def _rows(place: tuple[str, str], own: Sequence[Cell], drawn: GroupDraws | None) -> list[dict[str, Any]]:
    asked = [cell.row["settings"].get("pruning", {}) for cell in own if cell.row["settings"]]
    if not asked:
        return []
    keys = {key for one in asked for key in one} - {"importance", "sparsity"}
    shown = {key for key in keys if len({repr(one.get(key)) for one in asked}) > 1}
    numbers = _rounds(own)
    rounds: dict[tuple[_Step, Levels], list[Cell]] = defaultdict(list)
    for cell in own:
        if cell.is_done:
            rounds[_step(cell, numbers[cell.run_id], shown), cell.levels].append(cell)
    by_step: dict[_Step, list[Sequence[Cell]]] = defaultdict(list)
    for (step, _), cells in rounds.items():
        by_step[step].append(cells)
    several_shares = len({step[:-1] for step in by_step}) < len(by_step)
    found = []
    for (step, _), cells in rounds.items():
        row = {
            **dict(zip(("model", "task"), place, strict=True)),
            "importance": step.importance,
            "rewind": step.rewind,
            "settings": step.shown_settings(several_shares),
            "round": step.number,
            "sparsity_prunable": _share(cells, "sparsity_prunable"),
            "sparsity": _share(cells, "sparsity"),
            "seeds": len(cells),
            "score": fmean(float(cell.score or 0) for cell in cells),
            "interval": _ends(_draws(cells, drawn), drawn),
        }
        for name, other in step.controls().items():
            control = by_step.get(other, ()) if other else ()
            # Of two that differ in what is not told here none is taken.
            row[name], row[f"{name}_interval"] = _difference(cells, control[0] if len(control) == 1 else (), drawn)
        found.append({**row, "run_ids": [cell.run_id for cell in cells]})
    return sorted(found, key=lambda row: (row["importance"], row["rewind"], row["settings"], row["round"]))


def _share(cells: Sequence[Cell], name: str) -> float | None:
    """A share of zeros; the dense run and rounds in which nothing is taken away have none."""
    shares = [cell.row["metrics"].get(name) for cell in cells]
    if all(_importance(cell) in ("", "none") for cell in cells):
        return 0.0
    return None if None in shares else fmean(shares)


def _difference(
    cells: Sequence[Cell], others: Sequence[Cell], drawn: GroupDraws | None
) -> tuple[float | None, tuple[float, float] | None]:
    """Mean score less the others', over the seeds that both have, and its interval on the same rows.

    There is none where one has seeds that the other lacks: the repetitions are of all of its seeds.
    """
    by_seed = {cell.seed: cell for cell in others}
    pairs = [(cell, by_seed[cell.seed]) for cell in cells if cell.seed in by_seed]
    if not pairs:
        return None, None
    difference = fmean(float(a.score or 0) - float(b.score or 0) for a, b in pairs)
    if not len(pairs) == len(cells) == len(others):
        return difference, None
    own, other = (_draws(side, drawn) for side in (cells, others))
    return difference, _ends(None if own is None or other is None else own - other, drawn)


def _draws(cells: Sequence[Cell], drawn: GroupDraws | None) -> np.ndarray | None:
    """Mean scores of these runs in the repetitions (R,)."""
    first = cells[0]
    return None if drawn is None else drawn.scores.get((first.model, first.task, first.levels))


def _ends(draws: np.ndarray | None, drawn: GroupDraws | None) -> tuple[float, float] | None:
    return None if draws is None or drawn is None else percentile_ends(draws, draws, drawn.dof, LEVEL)
