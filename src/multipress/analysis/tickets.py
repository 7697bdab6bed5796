"""Rounds of iterative pruning: the score as zeros grow, against the dense run and against random zeros."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from multipress.analysis.cells import Cell
from multipress.analysis.resampling import GroupDraws
from multipress.analysis.uncertainty import LEVEL, percentile_ends

__all__ = ["ticket_rounds"]

_Family = tuple[str, str]  # which weights go, and what is rewound


def ticket_rounds(cells: Sequence[Cell], drawn: GroupDraws | None = None) -> list[dict[str, Any]]:
    """The rounds of each way of pruning, the dense run before them; empty where nothing was pruned in rounds.

    Args:
        cells: Cells of a study.
        drawn: Scores in repetitions, for the intervals.

    Returns:
        Rows by model, task, way and round: `importance` (which weights go), `rewind` (`rate`, or `weights`), `round`
        (the dense run is 0, of no way), `sparsity_prunable` and `sparsity` (shares), `seeds`, `score`, `interval`,
        `change` (less the dense run's), `change_interval`, `less_random` (less the round of as many zeros at random),
        `less_random_interval`, and `run_ids`. What is not known is None.
    """
    by_place: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        if set(cell.row["settings"]) <= {"pruning"}:
            by_place[cell.model, cell.task].append(cell)
    found = []
    for place, own in by_place.items():
        if any(len(cell.row.get("stages", ())) > 1 for cell in own):
            zeros = sorted({_zeros([cell]) for cell in own})
            rounds: dict[tuple[_Family, int], list[Cell]] = defaultdict(list)
            for cell in (one for one in own if one.is_done):
                rounds[_family(cell), zeros.index(_zeros([cell]))].append(cell)
            found += _rows(place, rounds, drawn)
    return found


def _family(cell: Cell) -> _Family:
    """Which way of pruning; the dense run is of none."""
    if not cell.row["settings"]:
        return "", ""
    importance = str(cell.row["settings"]["pruning"].get("importance", "magnitude"))
    return importance, "weights" if cell.row.get("rewound") else "rate"


def _rows(
    place: tuple[str, str], own: Mapping[tuple[_Family, int], Sequence[Cell]], drawn: GroupDraws | None
) -> list[dict[str, Any]]:
    dense = own.get((("", ""), 0), ())
    random = {_zeros(cells): cells for (family, _), cells in own.items() if family == ("random", "rate")}
    found = []
    for (family, number), cells in own.items():
        control = random.get(_zeros(cells), ()) if family[0] not in ("", "random") else ()
        change, change_ends = _difference(cells, dense if family[0] else (), drawn)
        less, less_ends = _difference(cells, control, drawn)
        found.append(
            {
                **dict(zip(("model", "task"), place, strict=True)),
                **dict(zip(("importance", "rewind"), family, strict=True)),
                "round": number,
                "sparsity_prunable": _share(cells, "sparsity_prunable"),
                "sparsity": _share(cells, "sparsity"),
                "seeds": len(cells),
                "score": fmean(float(cell.score or 0) for cell in cells),
                "interval": _ends(_draws(cells, drawn), drawn),
                "change": change,
                "change_interval": change_ends,
                "less_random": less,
                "less_random_interval": less_ends,
                "run_ids": [cell.run_id for cell in cells],
            }
        )
    return sorted(found, key=lambda row: (row["importance"], row["rewind"], row["sparsity_prunable"] or 0.0))


def _share(cells: Sequence[Cell], name: str) -> float | None:
    """A share of zeros; the dense run has none."""
    shares = [cell.row["metrics"].get(name) for cell in cells]
    if all(not cell.row["settings"] for cell in cells):
        return 0.0
    return None if None in shares else fmean(shares)


def _zeros(cells: Sequence[Cell]) -> float:
    """The share of zeros that was asked for."""
    return round(float(cells[0].row["settings"].get("pruning", {}).get("sparsity", 0.0)), 6)


def _difference(
    cells: Sequence[Cell], others: Sequence[Cell], drawn: GroupDraws | None
) -> tuple[float | None, tuple[float, float] | None]:
    """Mean score less the others', over the seeds that both have, and its interval on the same rows."""
    by_seed = {cell.seed: cell for cell in others}
    pairs = [(cell, by_seed[cell.seed]) for cell in cells if cell.seed in by_seed]
    if not pairs:
        return None, None
    difference = fmean(float(a.score or 0) - float(b.score or 0) for a, b in pairs)
    own, other = (_draws(side, drawn) for side in zip(*pairs, strict=True))
    return difference, _ends(None if own is None or other is None else own - other, drawn)


def _draws(cells: Sequence[Cell], drawn: GroupDraws | None) -> np.ndarray | None:
    """Mean scores of these runs in the repetitions (R,)."""
    first = cells[0]
    return None if drawn is None else drawn.scores.get((first.model, first.task, first.levels))


def _ends(draws: np.ndarray | None, drawn: GroupDraws | None) -> tuple[float, float] | None:
    return None if draws is None or drawn is None else percentile_ends(draws, draws, drawn.dof, LEVEL)
