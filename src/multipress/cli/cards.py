"""The model cards of a store's finished runs, with what was measured later and the dense control beside each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from multipress.report.card import Recalls
    from multipress.store import Store

__all__ = ["write_cards"]


def write_cards(store: Store, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write `<run_id>.md` of every cell that is done; one that cannot be read is told on standard error.

    Args:
        store: The store.
        rows: Rows of its cells.
        folder: Where the cards go; made if it is not there.
    """
    from multipress.analysis import read_cells
    from multipress.artifact import open_artifact
    from multipress.durable import write_text
    from multipress.errors import MultipressError
    from multipress.plain_text import plain
    from multipress.records import Measurement
    from multipress.report.card import model_card
    from multipress.report.command import made_by
    from multipress.spec import RunSpec
    from multipress.store import read_text, timed_rows

    def spec_of(run_id: str) -> RunSpec:
        return RunSpec.from_json(store.run(run_id).spec)

    cells = [cell for cell in read_cells(rows) if cell.is_done]
    dense = {(cell.model, cell.task, cell.seed): cell.run_id for cell in cells if not cell.levels}
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        done = store.done(cell.run_id)
        if done is None:
            continue
        try:
            lines = read_text(done / "measurements.jsonl").splitlines()
            measured = [Measurement(**row) for row in [*map(json.loads, lines), *timed_rows(store, cell.run_id)]]
            recalls = _recalls(store, done, dense.get((cell.model, cell.task, cell.seed)), cell.run_id)
            command = made_by(spec_of(cell.run_id), cell.run_id, spec_of)
            where = json.loads(read_text(done / "circumstances.json")).get("computer")
            card = model_card(open_artifact(done / "artifact"), measured, command, recalls, where)
        except (MultipressError, OSError, ValueError) as error:
            typer.echo(plain(f"{cell.run_id}: no card: {error}"), err=True)
            continue
        write_text(folder / f"{cell.run_id}.md", card)


def _recalls(store: Store, done: Path, dense: str | None, run_id: str) -> Recalls | None:
    from multipress.measure import read_recalls
    from multipress.report.card import Recalls

    after = read_recalls(done)
    before = store.done(dense) if dense and dense != run_id else None
    if not after:
        return None
    if before is None:
        return Recalls(after)
    lines = (before / "measurements.jsonl").read_text(encoding="utf-8").splitlines()
    score = next((row["value"] for row in map(json.loads, lines) if row["name"] == "score"), None)
    return Recalls(after, read_recalls(before), score)
