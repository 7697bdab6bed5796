"""Rows of two splits -> the data of a task: samples, overlap, counts, hash."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from multipress.errors import DataError, SpecError
from multipress.reproducibility import seed_for
from multipress.spec import DataSpec
from multipress.tasks.base import Split, Task, TaskData
from multipress.tasks.labels import class_indices, numbers
from multipress.tasks.metrics import score_by
from multipress.tasks.rows import Rows

__all__ = [
    "MAX_SHARED_SHARE",
    "assemble",
    "content_hash",
    "count_rows",
    "rows_also_in",
    "sample_positions",
    "to_split",
]

MAX_SHARED_SHARE = 0.2
"""Above this share of dev rows that are also in train, a score says nothing about new text."""


def to_split(rows: Rows, task: Task) -> Split:
    """The rows with labels as the task's class indices, as numbers or as texts.

    Raises:
        DataError: a label is unknown to the task, or is not a number.
    """
    if task.target == "classes":
        labels = class_indices(rows.labels, task.labels, rows.table, rows.positions)
    elif task.target == "number":
        labels = numbers(rows.labels, rows.table, rows.positions)
    else:
        labels = np.array(rows.labels, dtype=object)
    return Split(rows.texts, rows.pairs, labels)


def assemble(task: Task, train: Rows, dev: Rows, data: DataSpec) -> TaskData:
    """Sample both splits, look for rows of one in the other, count, and hash.

    Args:
        task: The task, with the labels of all of train.
        train: Rows to train on.
        dev: Rows to score on.
        data: Says how many rows to draw, and by which seed.

    Raises:
        SpecError: the task has no metric of the name asked for.
        DataError: dev holds an unknown label, too many dev rows are also in train, or dev cannot be scored.
    """
    task = score_by(task, data.metric)
    splits = {"train": to_split(train, task), "dev": to_split(dev, task)}
    _check_shared(splits["train"], splits["dev"], dev.table.source)
    limits = {"train": data.max_train_rows, "dev": data.max_eval_rows}
    drawn = {name: _draw(split, name, limits[name], data.sample_seed) for name, split in splits.items()}
    shared = rows_also_in(drawn["dev"], drawn["train"])
    facts: dict[str, Any] = {
        name: count_rows(rows, len(drawn[name])) for name, rows in (("train", train), ("dev", dev))
    }
    facts |= {"dev_rows_also_in_train": len(shared), "dev_indices_also_in_train": shared}
    notes = [*train.notes, *dev.notes]
    if shared:
        notes.append(
            f"{len(shared):,} of {len(drawn['dev']):,} validation rows are also in train, "
            "with the same text; look at the score without them too."
        )
    notes += _check_labels(task, drawn["train"], drawn["dev"])
    digest = content_hash(task, drawn["train"], drawn["dev"])
    return TaskData(task, drawn["train"], drawn["dev"], tuple(notes), facts, digest)


def count_rows(rows: Rows, used: int) -> dict[str, Any]:
    """What became of the rows of a table, of which `used` are used: counts by name."""
    refused = sum(rows.refused.values())
    return {
        "rows_found": rows.table.num_rows,
        "rows_refused": refused,
        "rows_left_out": rows.table.num_rows - refused - used,
        "rows_used": used,
        "refused": dict(sorted(rows.refused.items())),
    }


def sample_positions(num_rows: int, limit: int, *seed: object) -> np.ndarray:
    """Positions of a random sample, in order; all positions if the limit is 0 or not below `num_rows`.

    The same on every computer and with every numpy: it uses PCG64's raw numbers, whose stream numpy promises
    to keep, and no method of `Generator`, whose results may change. A smaller sample is part of a larger one.

    Args:
        num_rows: Number of rows to draw from.
        limit: Size of the sample.
        seed: Anything; equal parts give equal samples.

    Raises:
        SpecError: the limit is below 0.
    """
    if limit < 0:
        raise SpecError(f"A sample of {limit} rows was asked for; give 0 for all rows, or a whole number.")
    if not 0 < limit < num_rows:
        return np.arange(num_rows)
    raw = np.random.PCG64(seed_for(*seed)).random_raw(num_rows)
    return np.sort(np.argsort(raw, kind="stable")[:limit])


def rows_also_in(dev: Split, train: Split) -> list[int]:
    """Positions in dev of the rows whose text (of a pair: both texts) is also in train, to the character."""
    known = set(_keys(train))
    return [i for i, key in enumerate(_keys(dev)) if key in known]


def content_hash(task: Task, *splits: Split) -> str:
    """SHA-256, as hex, of the kind of target, the label names, and all texts and labels."""
    digest = hashlib.sha256()
    _add_texts(digest, [task.target, *task.labels])
    for split in splits:
        _add_texts(digest, split.texts)
        _add_texts(digest, split.pairs or [])
        if task.target == "text":
            _add_texts(digest, split.labels.tolist())
            continue
        wide = "<f4" if task.target == "number" else "<i8"
        digest.update(split.labels.astype(wide).tobytes())
    return digest.hexdigest()


def _add_texts(digest: Any, texts: list[str]) -> None:
    """Add count, lengths and texts, so that no two lists give the same bytes."""
    encoded = [text.encode() for text in texts]
    digest.update(np.array([len(encoded), *map(len, encoded)], dtype="<i8").tobytes())
    digest.update(b"".join(encoded))


def _draw(split: Split, name: str, limit: int, seed: int) -> Split:
    positions = sample_positions(len(split), limit, "rows", name, seed)
    return split if len(positions) == len(split) else split.take(positions)


def _keys(split: Split) -> list[Any]:
    return split.texts if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))


def _check_shared(train: Split, dev: Split, source: str) -> None:
    count = len(rows_also_in(dev, train))
    if count > MAX_SHARED_SHARE * len(dev):
        raise DataError(
            f"{source}: {count:,} of {len(dev):,} rows are also in train, above {MAX_SHARED_SHARE:.0%}; "
            "a score on them says nothing about new text. Give validation rows that are not in train."
        )


def _check_labels(task: Task, train: Split, dev: Split) -> list[str]:
    """Refuse labels that nothing can be learned from or scored on; says what is unusual."""
    for name, split in (("train", train), ("validation", dev)):
        if task.target == "number" and np.unique(split.labels).size < 2:
            raise DataError(f"All {len(split):,} {name} labels are {split.labels[0]:g}; give rows of different labels.")
    if task.target != "classes":
        return []
    present = {name: set(split.labels.tolist()) for name, split in (("train", train), ("validation", dev))}
    if len(present["train"]) < 2:
        only = task.labels[min(present["train"])]
        raise DataError(f"All {len(train):,} train rows have the label {only!r}; give rows of at least two classes.")
    notes = []
    for name, found in present.items():
        absent = len(task.labels) - len(found)
        if absent:
            notes.append(f"{absent} of {len(task.labels)} classes have no {name} row.")
    return notes
