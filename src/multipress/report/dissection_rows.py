"""The rows of dissections that lie beside the runs of a store, for a page about the study."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multipress.errors import StoreError
from multipress.plain_text import plain
from multipress.store import Store, read_text

__all__ = ["dissection_csv", "read_dissections"]

Row = dict[str, Any]
_COLUMNS = (
    *("name", "artifact", "against", "part", "layer", "against_layer", "probe", "value", "unit", "low", "high"),
    *("against_value", "change", "change_low", "change_high"),
)


def read_dissections(store: Store, run_ids: Iterable[str]) -> dict[str, list[Row]]:
    """Rows of runs by what they were compared with, each fit for `dissection_sections`; empty where there are none.

    A run that was dissected twice against one artifact, on other text or with other probes, has the rows of the one
    whose name sorts last: numbers of two texts are not mixed.

    Args:
        store: A folder of runs.
        run_ids: The runs, in the order in which they are shown.

    Raises:
        StoreError: rows are damaged.
    """
    found: dict[str, list[Row]] = {}
    for run_id in run_ids:
        newest: dict[str, list[Row]] = {}
        for name in store.measured(run_id):
            done = store.done(run_id, name)
            if done is None or not name.startswith("dissect_"):
                continue
            try:
                rows = [json.loads(line) for line in read_text(done / "measurements.jsonl").splitlines()]
                newest[rows[0]["context"]["against"]] = rows
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                raise StoreError(f"{done} is damaged: {error!r}. Delete it and dissect the artifact again.") from None
        for against, rows in newest.items():
            found.setdefault(against, []).extend(_told_apart(found.get(against, []), rows, run_id))
    return found


def _told_apart(before: Iterable[Row], rows: list[Row], run_id: str) -> list[Row]:
    """The rows of a run, its name with its id where an earlier one has the same."""
    taken = {row["context"]["artifact"] for row in before}
    return [
        {**row, "context": {**row["context"], "artifact": f"{row['context']['artifact']} ({run_id})"}}
        if row["context"]["artifact"] in taken
        else row
        for row in rows
    ]


def dissection_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows that have an interval as CSV, one line each, six digits after the point.

    Args:
        rows: What `multipress dissect --json` printed.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        if "low" in row["context"]:
            values = {**row["context"], **{key: row[key] for key in ("name", "value", "unit")}}
            writer.writerow([_cell(values.get(column, "")) for column in _COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> Any:
    return plain(value) if isinstance(value, str) else round(value, 6)
