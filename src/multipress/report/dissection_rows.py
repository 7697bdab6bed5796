"""The rows of dissections that lie beside the runs of a store, for a page about the study."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
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
# What a row's context says of the number; the rest says where it was measured.
_FOUND = {"low", "high", "against_value", "change", "change_low", "change_high", "match", "zeros", "pruned"}
_FOUND |= {"seeds", "seed_sd", "test_examples", "train_examples", "text", "words", "rows"}


def read_dissections(store: Store, names: Mapping[str, str]) -> dict[str, list[Row]]:
    """Rows of runs by what they were compared with, each fit for `dissection_sections`; empty where there are none.

    Where runs were dissected on several texts, each text is a part of its own, and its name stands behind: numbers of
    two texts are not mixed. What was asked on one text more than once, with other probes, is one part.

    Args:
        store: A folder of runs.
        names: Of the runs, in the order in which they are shown; a run without a name keeps what its rows say.

    Raises:
        StoreError: rows are damaged.
    """
    found: dict[tuple[str, str], dict[str, dict[str, Row]]] = {}  # by reference and text, run, and what was measured
    for run_id, own in names.items():
        for name in store.measured(run_id):
            done = store.done(run_id, name)
            if done is None or not name.startswith("dissect_"):
                continue
            try:
                rows = [json.loads(line) for line in read_text(done / "measurements.jsonl").splitlines()]
                text = next((row["context"]["text"] for row in rows if "text" in row["context"]), "")
                part = found.setdefault((rows[0]["context"]["against"], text), {}).setdefault(run_id, {})
                for row in rows:
                    part[_measured(row)] = _named(row, own)
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                raise StoreError(f"{done} is damaged: {error!r}. Delete it and dissect the artifact again.") from None
    references = [against for against, _ in found]
    return {
        against if references.count(against) == 1 else f"{against}, on {text}": [
            row for rows in _told_apart(by_run) for row in rows
        ]
        for (against, text), by_run in found.items()
    }


def _measured(row: Row) -> str:
    """What a row is of: its name and its place in the model, whatever was found there."""
    return json.dumps([row["name"], {key: value for key, value in row["context"].items() if key not in _FOUND}])


def _named(row: Row, name: str) -> Row:
    return {**row, "context": {**row["context"], "artifact": name}} if name else row


def _told_apart(by_run: Mapping[str, Mapping[str, Row]]) -> Iterator[list[Row]]:
    """The rows of each run, its name with its id where an earlier one has the same."""
    taken: set[str] = set()
    for run_id, rows in by_run.items():
        own = {row["context"]["artifact"] for row in rows.values()}
        yield [_named(row, f"{row['context']['artifact']} ({run_id})" if own & taken else "") for row in rows.values()]
        taken |= own


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
