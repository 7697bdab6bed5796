"""The rows of dissections that lie beside the runs of a store, for a page about the study."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from multipress.errors import StoreError
from multipress.plain_text import plain
from multipress.store import Store, read_text

__all__ = ["dissection_csv", "read_dissections"]

Row = dict[str, Any]
_COLUMNS = (
    *(
        "name",
        "artifact",
        "run_id",
        "against",
        "part",
        "layer",
        "against_layer",
        "probe",
        "value",
        "unit",
        "low",
        "high",
    ),
    *("against_value", "change", "change_low", "change_high", "matrix", "is_bias", "size", "pruned", "head", "match"),
)
# What a row's context says of the number, the two models and the text; the rest says where it was measured.
_FOUND = {"low", "high", "against_value", "change", "change_low", "change_high", "match", "zeros", "pruned"}
_FOUND |= {
    "without",
    "change_without",
    "seeds",
    "seed_sd",
    "test_examples",
    "train_examples",
    "text",
    "words",
    "rows",
    "against",
}
_WITHOUT_INTERVAL = ("zero_share", "attention_head_match", "mincorr")
_NAME = re.compile(r"dissect_\w+-(\d+)")  # what was asked, and the version of the measures
_Part = tuple[str, str, int]  # the reference, the text, and how many words of it


def read_dissections(store: Store, names: Mapping[str, str]) -> dict[str, list[Row]]:
    """Rows of runs by what they were compared with, each fit for `dissection_sections`; empty where there are none.

    Where runs were dissected on several texts, each text is a part of its own, and its name stands behind: numbers of
    two texts are not mixed. What was asked on one text more than once, with other probes, is one part; of a probe that
    was trained with more seeds these count. What an older version of the measures found is left out where a newer one
    looked too.

    Args:
        store: A folder of runs.
        names: Of the runs, in the order in which they are shown; a run without a name keeps what its rows say.

    Raises:
        StoreError: rows are damaged.
    """
    found: dict[_Part, dict[str, dict[str, Row]]] = {}  # by run and what was measured
    for run_id, own in names.items():
        for done in _newest(store, run_id):
            try:
                rows = [json.loads(line) for line in read_text(done / "measurements.jsonl").splitlines()]
                read: Row = next((row["context"] for row in rows if "text" in row["context"]), {})
                text = (read.get("text", ""), read.get("words", 0))
                part = found.setdefault((rows[0]["context"]["against"], *text), {})
                by_place = part.setdefault(run_id, {})
                for row in rows:
                    known = by_place.get(_measured(row), row)
                    if row["context"].get("seeds", 0) >= known["context"].get("seeds", 0):
                        by_place[_measured(row)] = _named(row, own)
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                raise StoreError(f"{done} is damaged: {error!r}. Delete it and dissect the artifact again.") from None
    return {
        _title(part, list(found)): [row for rows in _told_apart(by_run) for row in rows]
        for part, by_run in found.items()
    }


def _newest(store: Store, run_id: str) -> list[Path]:
    """Where the rows of a run's dissections lie: those of the newest version of the measures."""
    versions = {name: int(made[1]) for name in store.measured(run_id) if (made := _NAME.fullmatch(name))}
    newest = max(versions.values(), default=0)
    places = (store.done(run_id, name) for name, version in versions.items() if version == newest)
    return [place for place in places if place is not None]


def _title(part: _Part, every: Sequence[_Part]) -> str:
    """The reference, with the text and its words where that alone says which part it is."""
    against, text, words = part
    if sum(one[0] == against for one in every) == 1:
        return against
    return f"{against}, on {text}" + (f", {words:,} words" if sum(one[:2] == part[:2] for one in every) > 1 else "")


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
    """The rows as CSV, one line each, six digits after the point; not those of layers of different depth.

    Args:
        rows: What `multipress dissect --json` printed.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        if "low" in row["context"] or row["name"] in _WITHOUT_INTERVAL:
            values = {**row["context"], **{key: row.get(key, "") for key in ("name", "run_id", "value", "unit")}}
            writer.writerow([_cell(values.get(column, "")) for column in _COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    return "" if value is None else round(value, 6)
