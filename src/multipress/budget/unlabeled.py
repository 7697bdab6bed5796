"""Texts without labels: the model that is compressed labels them itself, and is what its children are compared with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multipress.artifact import open_artifact
from multipress.budget.rows import FEWEST
from multipress.budget.start import dense_folder, store_original
from multipress.durable import write_text
from multipress.engines.job import Places
from multipress.errors import DataError, ModelError
from multipress.models.families import family_of
from multipress.models.pretrained import identify
from multipress.runtime import Predictor
from multipress.tasks import Task
from multipress.tasks.assemble import sample_positions
from multipress.tasks.single_file import load_texts

if TYPE_CHECKING:
    from multipress.budget.fitting import Asked

__all__ = ["label_texts"]

FEWEST_TEXTS = 200
HELD_OUT, MOST_HELD_OUT = 0.2, 4000  # share of the texts to select by and to report on, and how many at most


def label_texts(asked: Asked, folder: Path, places: Places, on_note: Callable[[str], None]) -> Asked:
    """What is asked, with files of rows that the model has labelled in place of the texts.

    Args:
        asked: With `unlabeled`, and no other rows.
        folder: Where `labeled-train.jsonl` and `labeled-dev.jsonl` are written.
        places: Where models are found.
        on_note: Called with what a user should know.

    Raises:
        ModelError: the model has no head, so that it cannot label.
        DataError: the file cannot be read, or has too few different texts.
    """
    data = asked.data
    model = dense_folder(asked.model, folder)
    checked = identify(model, places.models_dir)
    if f"{family_of(checked.config).output}.weight" not in checked.names:
        raise ModelError(
            f"{asked.model} is an encoder without a head, so it cannot label texts. Give rows with labels."
        )
    is_pair = len(data.text) == 2
    texts, pairs = load_texts(asked.unlabeled, is_pair=is_pair, text=data.text)
    rows = list(dict.fromkeys(zip(texts, pairs or [""] * len(texts), strict=True)))
    rows = [row for row in rows if row[0].strip()]
    if len(rows) < FEWEST_TEXTS:
        raise DataError(f"{asked.unlabeled} has {len(rows)} different texts, but {FEWEST_TEXTS} are the fewest.")
    task = _task(checked.num_labels, checked.label_names, is_pair)
    original = store_original(model, task, asked.max_length, folder, places)
    assert original is not None  # it has a head
    firsts, seconds = [list(column) for column in zip(*rows, strict=True)]
    logits = Predictor(open_artifact(original)).logits(firsts, seconds if is_pair else None)
    held_out = sample_positions(len(rows), max(2 * FEWEST, min(MOST_HELD_OUT, int(HELD_OUT * len(rows)))), "held out")
    for name, positions in (("dev", held_out), ("train", np.setdiff1d(np.arange(len(rows)), held_out))):
        lines = [_line(rows[row], logits[row], task) for row in positions.tolist()]
        write_text(folder / f"labeled-{name}.jsonl", "".join(lines))
    on_note(
        f"{len(rows):,} texts without labels are labelled by {asked.model} itself. Every score below says how often a "
        "model agrees with it, not how often it is right, and its mistakes are learned too. With true labels a "
        "compressed model can become better, and its loss is known."
    )
    columns = ("text", "second") if is_pair else ("text",)
    train, dev = (str(folder / f"labeled-{name}.jsonl") for name in ("train", "dev"))
    labeled = replace(data, train=train, dev=dev, text=columns, label="label", target=task.target, labels=task.labels)
    return replace(asked, model=model, data=labeled, unlabeled="")


def _task(num_labels: int, names: tuple[str, ...], is_pair: bool) -> Task:
    if num_labels == 1:
        return Task("text", "number", (), ("pearson", "spearman"), "pearson", is_pair)
    labels = names or tuple(f"LABEL_{number}" for number in range(num_labels))
    return Task("text", "classes", labels, ("accuracy", "macro_f1"), "accuracy", is_pair)


def _line(row: tuple[str, str], logits: np.ndarray, task: Task) -> str:
    label = task.labels[int(logits.argmax())] if task.target == "classes" else float(logits.reshape(-1)[0])
    second = {"second": row[1]} if task.is_pair else {}
    return json.dumps({"text": row[0], **second, "label": label}, ensure_ascii=False) + "\n"
