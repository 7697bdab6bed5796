"""Texts without labels: the model that is compressed labels them itself, and is what its children are compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from multipress.artifact import open_artifact
from multipress.budget.asked import Asked
from multipress.budget.rows import FEWEST
from multipress.budget.start import dense_folder, outputs_of, store_original
from multipress.durable import write_text
from multipress.engines.job import Places
from multipress.errors import DataError, ModelError, SettingError
from multipress.models.families import family_of
from multipress.models.pretrained import identify
from multipress.runtime import Predictor
from multipress.tasks import Task
from multipress.tasks.assemble import sample_positions
from multipress.tasks.single_file import load_texts

__all__ = ["label_texts", "texts_to_label"]

Row = tuple[str, str]  # of a model of one text, the second is empty

FEWEST_TEXTS = 200
MOST_TEXTS = 50_000  # of more, so many are drawn, unless --max-train-rows says another number
HELD_OUT, MOST_HELD_OUT = 0.2, 4000  # share of the texts to select by and to report on, and how many at most


def texts_to_label(asked: Asked) -> tuple[list[Row], list[str]]:
    """The different texts of the file, drawn where there are many, and what a user should know of them.

    Raises:
        DataError: the file cannot be read, or has too few different texts.
        SettingError: it is standard input, or settings of labels are given.
    """
    data = asked.data
    if asked.unlabeled == "-":
        raise SettingError("--unlabeled is read again where a search goes on: give a file, not standard input.")
    if data.label or data.target:
        raise SettingError("--label and --target have no effect with --unlabeled. Leave them out.")
    is_pair = len(data.text) == 2
    if (Path(asked.model) / "manifest.json").is_file():
        is_pair = bool(open_artifact(Path(asked.model)).facts["task"]["is_pair"])
    texts, pairs = load_texts(asked.unlabeled, is_pair=is_pair, text=data.text)
    given = list(zip(texts, pairs or [""] * len(texts), strict=True))
    rows = [row for row in dict.fromkeys(given) if all(text.strip() for text in row[: 1 + is_pair])]
    if len(rows) < FEWEST_TEXTS:
        raise DataError(f"{asked.unlabeled} has {len(rows)} different texts, but {FEWEST_TEXTS} are the fewest.")
    notes = []
    if len(rows) < len(given):
        notes.append(f"{len(given) - len(rows):,} of {len(given):,} texts are empty or there twice; they are left out.")
    most = max(FEWEST_TEXTS, data.max_train_rows or MOST_TEXTS)
    if len(rows) > most:
        notes.append(f"{most:,} of the {len(rows):,} texts are drawn.")
        rows = [rows[place] for place in sample_positions(len(rows), most, "unlabeled").tolist()]
    return rows, notes


def label_texts(asked: Asked, rows: list[Row], folder: Path, places: Places, on_note: Callable[[str], None]) -> Asked:
    """What is asked, with files of rows that the model has labelled in place of the texts.

    Args:
        asked: With `unlabeled`, and no other rows.
        rows: What `texts_to_label` gave.
        folder: Where the files are written, once for the same texts and model.
        places: Where models are found.
        on_note: Called with what a user should know.

    Raises:
        ModelError: the model has no head, names a class so that no file of rows can, or says the same of every text.
    """
    data = asked.data
    checked = identify(dense_folder(asked.model, folder), places.models_dir)
    if f"{family_of(checked.config).output}.weight" not in checked.names:
        raise ModelError(
            f"{asked.model} is an encoder without a head, so it cannot label texts. Give rows with labels."
        )
    task = _task(checked.num_labels, checked.label_names, any(second for _, second in rows))
    if any(label != label.strip() or not label for label in task.labels):
        raise ModelError(f"{asked.model} has a class without a name, or with blanks around it. Name it in config.json.")
    name = outputs_of(asked.model, task, folder, places).model
    key = hashlib.sha256(json.dumps([checked.sha256, asked.max_length, rows]).encode()).hexdigest()[:12]
    files = [folder / f"labeled-{key}-{part}.jsonl" for part in ("train", "dev")]
    if not files[1].is_file():  # written last
        original = store_original(name, task, asked.max_length, folder, places)
        assert original is not None  # it has a head
        on_note(f"{len(rows):,} texts are labelled by the model.")
        _write(rows, Predictor(open_artifact(original)), task, files, asked.model)
    meant = "how near a model is to it" if task.target == "number" else "how far a model agrees with it"
    on_note(
        f"Without labels, every score below says {meant}, not how often it is right, and its mistakes are learned too. "
        "With true labels a compressed model can become better, and its loss is known."
    )
    columns = ("text", "second") if task.is_pair else ("text",)
    train, dev = map(str, files)
    labeled = replace(
        data,
        train=train,
        dev=dev,
        text=columns,
        label="label",
        target=task.target,
        labels=task.labels,
        max_train_rows=0,  # they were drawn
    )
    return replace(asked, model=name, data=labeled, unlabeled="")


def _write(rows: list[Row], predictor: Predictor, task: Task, files: list[Path], model: str) -> None:
    """Predict all rows, and write those to train on and those that are held out."""
    firsts, seconds = [list(column) for column in zip(*rows, strict=True)]
    logits = predictor.logits(firsts, seconds if task.is_pair else None)
    if task.target == "classes" and len(set(logits.argmax(axis=1).tolist())) == 1:
        called = task.labels[int(logits[0].argmax())]
        raise ModelError(
            f"{model} calls every text {called!r}, so there is nothing to learn from it. Give other texts."
        )
    count = max(2 * FEWEST, min(MOST_HELD_OUT, int(HELD_OUT * len(rows))))
    held_out = sample_positions(len(rows), count, "held out")
    for file, positions in zip(files, (np.setdiff1d(np.arange(len(rows)), held_out), held_out), strict=True):
        write_text(file, "".join(_line(rows[row], logits[row], task) for row in positions.tolist()))


def _task(num_labels: int, names: tuple[str, ...], is_pair: bool) -> Task:
    if num_labels == 1:
        return Task("text", "number", (), ("pearson", "spearman"), "pearson", is_pair)
    labels = names or tuple(f"LABEL_{number}" for number in range(num_labels))
    return Task("text", "classes", labels, ("accuracy", "macro_f1"), "accuracy", is_pair)


def _line(row: Row, logits: np.ndarray, task: Task) -> str:
    label = task.labels[int(logits.argmax())] if task.target == "classes" else float(logits.reshape(-1)[0])
    second = {"second": row[1]} if task.is_pair else {}
    return json.dumps({"text": row[0], **second, "label": label}, ensure_ascii=False) + "\n"
