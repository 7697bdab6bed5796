"""The model that is compressed, as it is before: a classifier of the user's, or an encoder to fine-tune first."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from multipress.artifact import open_artifact
from multipress.checkpoint import load_model, save_model
from multipress.durable import move_folder, write_json, write_text
from multipress.engines.job import Places
from multipress.errors import ModelError
from multipress.models import load_pretrained
from multipress.models.families import family_of
from multipress.models.pretrained import Checked, identify
from multipress.tasks import Task

__all__ = ["Outputs", "check_labels", "dense_folder", "given_bytes", "outputs_of", "store_original"]

_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt")
_NO_NAME = re.compile(r"LABEL_[0-9]+")


@dataclass(frozen=True)
class Outputs:
    """A model and what its outputs mean.

    Args:
        model: Name, or the folder of a copy whose labels have the names of the rows' labels.
        labels: Its classes in the order of its outputs; empty for a number.
        names: For each label of the rows' task, in its order, what it is called in `labels`.
    """

    model: str
    labels: tuple[str, ...]
    names: tuple[str, ...]

    def note(self, task: Task) -> str:
        """What a user should know of them; empty if nothing."""
        if self.names != task.labels:
            pairs = ", ".join(f"{row} as {name}" for row, name in zip(task.labels, self.names, strict=True))
            return f"The labels of the rows are taken as numbers of the model's outputs: {pairs[:300]}."
        absent = [label for label in self.labels if label not in self.names]
        return f"No row has the label {', '.join(absent)[:300]}, which the model knows." if absent else ""


def outputs_of(name: str, task: Task, folder: Path, places: Places, labels: np.ndarray | None = None) -> Outputs:
    """The model to compress, and what its outputs are called.

    Labels are the same if they differ only in case; the rows need not have all of the model's. Rows whose labels are
    numbers, `0` and on, give those of the outputs. Where a classifier's labels have no names, they are taken to be in
    the task's order; `check_labels` looks.

    Args:
        name: Short name, folder or hub id; an artifact is taken as the model that it stands for.
        task: The task of the rows.
        folder: Where a copy is put whose labels have the task's names, if they have not, and that of an artifact.
        places: Where models are found.
        labels: Class indices (N,) of the rows to train on, to say how many have a label that the model does not know.

    Raises:
        ModelError: it has a head for other labels.
    """
    counts = np.zeros(0, dtype=np.int64) if labels is None else np.bincount(labels, minlength=len(task.labels))
    name = dense_folder(name, folder)
    checked = identify(name, places.models_dir)
    if f"{family_of(checked.config).output}.weight" not in checked.names or task.target == "number":
        return Outputs(name, task.labels, task.labels)
    names, known = task.labels, _known_labels(checked, task, name, counts)
    if task.labels and set(task.labels) <= set(map(str, range(checked.num_labels))) and not set(names) <= set(known):
        names = tuple(known[int(label)] for label in task.labels)
    if known == checked.label_names:
        return Outputs(name, known, names)
    key = hashlib.sha256(json.dumps([checked.sha256, known]).encode()).hexdigest()[:12]
    place = folder / f"model-{key}"
    _write_named(checked, known, place)
    return Outputs(str(place), known, names)


def _known_labels(checked: Checked, task: Task, name: str, counts: np.ndarray) -> tuple[str, ...]:
    """A classifier's labels, spelled as the rows spell them."""
    theirs = checked.label_names
    own = {label.casefold(): label for label in task.labels}
    numbers = tuple(map(str, range(checked.num_labels)))
    is_unnamed = all(_NO_NAME.fullmatch(label) for label in theirs)  # none is there, or transformers' own
    folded = [label.casefold() for label in theirs]
    if set(task.labels) <= set(numbers) and checked.num_labels > 1:
        return numbers if is_unnamed else theirs
    if is_unnamed and checked.num_labels == len(task.labels):
        return task.labels
    if len(own) == len(task.labels) and len(set(folded)) == len(folded) and set(own) <= set(folded):
        return tuple(own.get(label.casefold(), label) for label in theirs)
    if checked.num_labels == 1:
        raise ModelError(
            f"{name} has one output, a number, but the rows have the labels {', '.join(task.labels[:6])}. If these are "
            "numbers, say --target number; else give a classifier, or the encoder without its head."
        )
    known = ", ".join(theirs[:6]) or f"{checked.num_labels} classes without names"
    trained = f"{name} was fine-tuned for {known}{', ...' if len(theirs) > 6 else ''}"
    unknown = [index for index, label in enumerate(task.labels) if label.casefold() not in folded]
    if theirs and len(counts) and 0 < counts[unknown].sum() < counts.sum():
        some = ", ".join(f"{task.labels[index]!r} ({counts[index]:,})" for index in unknown[:6])
        raise ModelError(
            f"{trained}, but {counts[unknown].sum():,} of {counts.sum():,} training rows have a label that it does not "
            f"know: {some}{', ...' if len(unknown) > 6 else ''}. Correct these rows or leave them out, or give the "
            "encoder without its head."
        )
    others = [task.labels[index] for index in unknown] or list(task.labels)
    raise ModelError(
        f"{trained}, but the rows have the labels {', '.join(others[:6])}. Give rows with its labels, or the encoder "
        "without its head."
    )


def _write_named(checked: Checked, labels: tuple[str, ...], place: Path) -> None:
    """Write a copy of a classifier whose outputs have these names."""
    if place.is_dir():
        return
    folder = checked.source.folder
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values["id2label"] = {str(index): label for index, label in enumerate(labels)}
    values["label2id"] = {label: index for index, label in enumerate(labels)}
    partial = _partial(place)
    write_json(partial / "config.json", values)
    shutil.copyfile(folder / "model.safetensors", partial / "model.safetensors")
    write_text(partial / "tokenizer.json", checked.tokenizer_json)
    move_folder(partial, place)


def dense_folder(name: str, folder: Path) -> str:
    """A model's name; of an artifact, a folder of transformers with the model that it stands for, written once."""
    artifact = Path(name)
    if not (artifact / "manifest.json").is_file():
        return name
    opened = open_artifact(artifact)
    place = folder / f"dense-{opened.manifest['files']['model.safetensors']['sha256'][:12]}"
    if not place.is_dir():
        model = load_model(artifact)
        partial = _partial(place)
        shows_bars = is_progress_bar_enabled()
        disable_progress_bar()  # of transformers, which shows one for a single file
        model.save_pretrained(partial)
        if shows_bars:
            enable_progress_bar()
        write_text(partial / "tokenizer.json", opened.tokenizer_json())
        move_folder(partial, place)
    return str(place)


def _partial(place: Path) -> Path:
    """An empty folder that gets its name when it is whole."""
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def store_original(name: str, task: Task, max_length: int, folder: Path, places: Places) -> Path | None:
    """Store a classifier as it is, uncompressed, as an artifact; None where it is an encoder without a head.

    Args:
        name: The model, as `outputs_of` gives it.
        task: The task.
        max_length: Tokens kept of a row.
        folder: Where the artifact is put, in a folder of its own.
        places: Where models are found.
    """
    pretrained = load_pretrained(name, label_names=task.labels, seed=0, models_dir=places.models_dir)
    if pretrained.new_head:
        return None
    facts = {"run_id": "", "task": task.to_json(), "max_length": max_length}
    key = hashlib.sha256(json.dumps([pretrained.sha256, facts]).encode()).hexdigest()[:12]
    place = folder / f"original-{key}"
    if not (place / "manifest.json").is_file():
        save_model(place, pretrained.model.eval(), tokenizer_json=pretrained.tokenizer_json, facts=facts)
    return open_artifact(place).folder


def given_bytes(name: str, places: Places) -> int:
    """Bytes that a model needs to predict as it was given: weights, config, tokenizer; of an artifact its package.

    Args:
        name: The model as the user names it.
        places: Where models are found.
    """
    if (Path(name) / "manifest.json").is_file():
        return open_artifact(Path(name)).package_bytes
    folder = identify(name, places.models_dir).source.folder
    files = [path for path in folder.iterdir() if path.suffix == ".safetensors" or path.name in _NEEDED]
    return sum(path.stat().st_size for path in files)


def check_labels(name: str, task: Task, predictions: np.ndarray, labels: np.ndarray) -> None:
    """Raise `ModelError` where a classifier's labels are not in the order of those of the rows, or it knows nothing.

    What it calls each class is compared with what most of those rows are: where another order of the labels, one to
    one, is right on clearly more rows, that is the order.

    Args:
        name: The model.
        task: The task.
        predictions: Class indices (N,).
        labels: Class indices (N,).
    """
    counts = np.zeros((len(task.labels), len(task.labels)), dtype=np.int64)
    np.add.at(counts, (predictions, labels), 1)
    called = np.flatnonzero(counts.sum(axis=1))
    if len(called) == 1:
        raise ModelError(
            f"{name} calls every row {task.labels[called[0]]!r}, so there is nothing to keep. Give more rows or "
            "--epochs, or a model that is fine-tuned."
        )
    accuracy = counts.trace() / len(labels)
    meant = counts.argmax(axis=1)
    gain = counts[called, meant[called]].sum() / len(labels) - accuracy
    is_order = len(set(meant[called])) == len(called) and gain > 0.02 + 3 * np.sqrt(gain / len(labels))
    if is_order or accuracy < 1 / len(task.labels):
        some = ", ".join(f"{task.labels[i]} looks like {task.labels[meant[i]]}" for i in called if meant[i] != i)
        raise ModelError(
            f"{name} is right on {accuracy:.1%} of the validation rows. Its labels and those of the rows are not in "
            f"the same order, or the rows are another task's: what it calls {some[:300]}. Correct id2label in its "
            "config.json, or the labels of the rows."
        )
