"""Dissect artifacts against one: capture both, compare, and give rows as `measure` does."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multipress.checkpoint import load_model
from multipress.dissect.capture import Capture, Wanted, capture
from multipress.dissect.jackknife import GROUPS
from multipress.dissect.layers import Found, attention_rows, state_rows
from multipress.dissect.probes import Prober
from multipress.dissect.reading import Reading, common_units, read_rows, read_words, word_spans
from multipress.dissect.side import Side
from multipress.dissect.zeros import count_zeros
from multipress.errors import DataError
from multipress.records import Measurement

__all__ = ["VERSION", "Asked", "Dissection", "ask", "smallest_matches"]

_WIDTHS = ("hidden_size", "dim", "d_model")  # what the families call the width of the hidden state
VERSION = 1  # raise it when the same question gives other numbers

Show = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Asked:
    """What is asked of every artifact.

    Args:
        rows: Rows of words to look at.
        source: What the text is called.
        probes: Names of probe tasks.
        data_dir: Folder of the probes' data.
        seeds: How many times each probe is trained.
        memory_mb: Most memory for what a model computes at once.
        threads: Threads to compute with.
    """

    rows: list[list[str]]
    source: str
    probes: tuple[str, ...] = ()
    data_dir: Path | None = None
    seeds: int = 3
    memory_mb: int = 1024
    threads: int = 1

    @property
    def text_sha256(self) -> str:
        """Hash of the rows."""
        return hashlib.sha256(json.dumps(self.rows).encode()).hexdigest()


def ask(text: str, num_words: int, **others: Any) -> Asked:
    """A question about a text file, or about WikiText-2 where `text` is empty; see `read_rows` for its errors."""
    rows = read_rows(text, num_words)
    if len(rows) < 2 * GROUPS:
        raise DataError(
            f"{text or 'WikiText-2'} gives {len(rows)} rows of {num_words} words, but intervals need at least "
            f"{2 * GROUPS}. Give more text, or more --words."
        )
    return Asked(rows, Path(text).name if text else "WikiText-2", **others)


class Dissection:
    """Compares artifacts with one reference; what was captured of it is kept while the words stay the same.

    Use it in a `with` block: it has a folder of temporary files.

    Args:
        reference: The artifact that the others are compared with.
        asked: What is asked.
        show: Called with what is being done, how much of it is done, and all of it (None where that is not known).
        folder: Where the temporary files go; the system's place for them by default.
    """

    def __init__(
        self, reference: Side, asked: Asked, show: Show = lambda what, done, total: None, folder: Path | None = None
    ) -> None:
        self._reference = reference
        self._asked = asked
        self._show = show
        self._prober = Prober(reference, asked.probes, asked.data_dir, asked.seeds, asked.memory_mb)
        self._folder = Path(tempfile.mkdtemp(prefix="multipress-dissect-", dir=folder))
        self._captured: tuple[list[np.ndarray], Capture] | None = None
        torch.set_num_threads(asked.threads)

    @property
    def name(self) -> str:
        """Name under which the rows of an artifact are kept: all that decides them, beside the artifact, is in it."""
        asked = self._asked
        parts = [VERSION, self._reference.sha256, asked.text_sha256, self._prober.sha256]
        parts.append(asked.seeds if asked.probes else 0)
        return f"dissect_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}-{VERSION}"

    def __enter__(self) -> Dissection:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def rows_of(self, side: Side) -> tuple[list[Measurement], list[np.ndarray]]:
        """All rows of one artifact.

        Returns:
            The rows; and for each of its layers how well each neuron of the reference is found in it (D,).

        Raises:
            DataError: too few words for the width of the layers, or data of a probe is missing.
        """
        found = list(_zero_rows(side))
        asked = self._asked
        readings = [read_words(one.artifact, asked.rows) for one in (self._reference, side)]
        units = common_units(*readings)
        self._check(side, readings, units)
        against = self._capture_reference(readings[0], units)
        own = self._capture(side, readings[1], units, "own")
        rows, matches = state_rows(against, own, partial(self._show, f"{side.label}: similarity"))
        found += rows
        is_special = [(row == 0) | (row > len(words)) for row, words in zip(units, asked.rows, strict=True)]
        found += attention_rows(against, own, is_special, partial(self._show, f"{side.label}: attention"))
        shutil.rmtree(self._folder / "own")
        found += self._prober.rows_of(side, self._folder, self._show)
        context = {"artifact": side.label, "against": self._reference.label}
        text = {"text": asked.source, "words": int(own.num_spans.sum()), "rows": len(asked.rows)}
        measured = []
        for one in found:
            around = context if one.name.startswith(("zero", "probe")) else {**context, **text}
            measured.append(Measurement(side.run_id, one.name, one.value, one.unit, {**around, **one.context}))
        return measured, matches

    def _check(self, side: Side, readings: list[list[Reading]], units: list[np.ndarray]) -> None:
        """Refuse text in whose few words everything is alike."""
        num_words = sum(map(len, word_spans(units, readings[0])))
        widths = [int(one.artifact.config.get(k, 0)) for one in (self._reference, side) for k in _WIDTHS]
        if num_words < 2 * max(widths):
            raise DataError(
                f"The text has {num_words} words that both models read, but layers {max(widths)} wide need at least "
                f"{2 * max(widths)} to be compared: of fewer, any layer predicts any other. Give more text."
            )

    def _capture_reference(self, readings: list[Reading], units: list[np.ndarray]) -> Capture:
        if self._captured is None or not all(map(np.array_equal, self._captured[0], units)):
            self._captured = (units, self._capture(self._reference, readings, units, "reference"))
        return self._captured[1]

    def _capture(self, side: Side, readings: list[Reading], units: list[np.ndarray], name: str) -> Capture:
        shutil.rmtree(self._folder / name, ignore_errors=True)
        model = load_model(side.artifact.folder)
        wanted = Wanted(readings, word_spans(units, readings), units)
        show = partial(self._show, f"{side.label}: hidden states and attention")
        return capture(model, wanted, self._folder / name, memory_mb=self._asked.memory_mb, on_progress=show)


def _zero_rows(side: Side) -> Iterable[Found]:
    for one in count_zeros(side.artifact):
        yield Found("zero_share", one.zeros / one.size if one.size else 0.0, "share", asdict(one))


def smallest_matches(
    per_artifact: Sequence[list[np.ndarray]], labels: Sequence[str], against: str
) -> list[Measurement]:
    """MinCorr of several artifacts: how well the reference's neurons are found in the one that has them least.

    Args:
        per_artifact: For each artifact what `Dissection.rows_of` gave second.
        labels: The artifacts' names.
        against: The reference's name.

    References:
        Bau et al. (2019), MinCorr: of each neuron the smallest, over models, of the best correlations.
    """
    if len({tuple(map(len, matches)) for matches in per_artifact}) != 1:
        return []
    found = []
    for layer, best in enumerate(zip(*per_artifact, strict=True)):
        context = {"artifact": ", ".join(labels), "against": against, "layer": layer, "artifacts": len(labels)}
        found.append(Measurement("", "mincorr", float(np.min(best, axis=0).mean()), "share", context))
    return found
