"""What `analyze` and `report` read: the cells of a store, their predictions and times, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multipress.errors import SettingError, StoreError

if TYPE_CHECKING:
    from multipress.analysis import Outcome
    from multipress.store import Store

__all__ = ["DROP", "RESAMPLES", "Drop", "Folder", "Relative", "Resamples", "Study", "analyze_store"]

_ROUNDING = 1e-6  # of a score
DROP, RESAMPLES = 0.005, 1000  # half a point; draws for the intervals

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs, made by `study run`.")]
Study = Annotated[str, typer.Option(help="Only the cells of this study.")]
Resamples = Annotated[
    int, typer.Option(min=0, help="How often validation rows are drawn for the intervals; 0: no intervals.")
]
Drop = Annotated[float, typer.Option(help="How far below the dense score a model may fall to count as equally good.")]
Relative = Annotated[bool, typer.Option("--relative", help="--drop is a share of the dense score, not of 1.")]


def analyze_store(
    folder: Path, study: str, resamples: int, drop: float, relative: bool
) -> tuple[Store, dict[str, Any]]:
    """The store and the analysis of its cells; what could not be read is told on standard error.

    Raises:
        SettingError: the drop is no share.
        StoreError: there are no cells.
    """
    if not (math.isfinite(drop) and 0 <= drop < 1):
        raise SettingError(f"--drop is {drop}, but is a share from 0 to 1. For half a point, write 0.005.")
    if resamples == 1:
        raise SettingError("--resamples is 1, which shows no spread. Take 0 for no intervals, or some hundreds.")
    import multipress.analysis as analysis
    from multipress.plain_text import plain
    from multipress.store import Store, latencies

    store = Store(folder)
    cells = store.cells(study)
    if not cells:
        raise StoreError(
            f"No study in {folder} has cells yet. See `multipress study status {folder}`, or run "
            f"`multipress study run SPEC.toml --runs {folder}`."
        )
    times, timing = latencies(store, [cell["run_id"] for cell in cells])
    cells = [{**cell, "latency_ms": times.get(cell["run_id"])} for cell in cells]
    outcomes, unread = _outcomes(store, cells) if resamples else ({}, [])
    found = analysis.analyze_cells(cells, outcomes, resamples, analysis.Drop(drop, relative), timing)
    if unread:
        found["notes"].append(f"The intervals leave out {len(unread)} runs: {unread[0]}")
    for note in found["notes"]:
        typer.echo(plain(note), err=True)
    return store, found


def _outcomes(store: Store, cells: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Outcome], list[str]]:
    """What each run that is done predicted, by its id, and why that of some cannot be read."""
    import numpy as np

    from multipress.measure import read_outcome

    outcomes, unread = {}, []
    for cell in cells:
        attempt = store.done(cell["run_id"])
        if attempt is None:
            continue
        try:
            outcome = read_outcome(attempt)
        except StoreError as error:
            unread.append(str(error))
            continue
        told = float(outcome.score_on(np.arange(outcome.num_rows)[None, :])[0])
        if abs(told - cell["score"]) > _ROUNDING:
            unread.append(f"{attempt}: its predictions give a score of {told:.4f}, not the {cell['score']:.4f} it has.")
            continue
        outcomes[cell["run_id"]] = outcome
    return outcomes, unread
