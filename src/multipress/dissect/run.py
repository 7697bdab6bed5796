"""Dissect artifacts against one: capture both, compare, and give rows as `measure` does."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from multipress.checkpoint import load_model
from multipress.dissect.capture import Capture, Wanted, capture, capture_decoder
from multipress.dissect.jackknife import GROUPS
from multipress.dissect.layers import Found, attention_rows, state_rows
from multipress.dissect.probes import Prober
from multipress.dissect.reading import (
    ROW_WORDS,
    Reading,
    common_units,
    is_special,
    read_pairs,
    read_rows,
    read_targets,
    read_words,
    word_spans,
)
from multipress.dissect.side import Side
from multipress.dissect.zeros import count_zeros
from multipress.errors import DataError
from multipress.records import Measurement

__all__ = ["VERSION", "Asked", "Dissection", "ask", "smallest_matches"]

_WIDTHS = ("hidden_size", "dim", "d_model")  # what the families call the width of the hidden state
VERSION = 4  # raise it when the same question gives other numbers

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
        targets: A translation of each row, in words; empty: only what reads the rows is looked at, no decoder.
    """

    rows: list[list[str]]
    source: str
    probes: tuple[str, ...] = ()
    data_dir: Path | None = None
    seeds: int = 3
    memory_mb: int = 1024
    threads: int = 1
    targets: tuple[list[str], ...] = ()

    @property
    def text_sha256(self) -> str:
        """Hash of the rows, and of their translations where there are some."""
        text = [self.rows, self.targets] if self.targets else self.rows
        return hashlib.sha256(json.dumps(text).encode()).hexdigest()


def ask(text: str, num_words: int, column: str = "", label: str = "", **others: Any) -> Asked:
    """A question about a text file, or about WikiText-2 where `text` is empty.

    With `label`, a column of translations, it is about decoders too. See `read_rows` and `read_pairs` for the errors.
    """
    targets: list[list[str]] = []
    if label:
        rows, targets = read_pairs(text, column, label, num_words)
    else:
        rows = read_rows(text, num_words, column)
    if len(rows) < 2 * GROUPS:
        found = sum(map(len, rows))
        more = f"more --words than {num_words}" if num_words < 2 * GROUPS * ROW_WORDS else "more text"
        raise DataError(
            f"{text or 'WikiText-2'} gives {found} words in {len(rows)} rows, but intervals need at least "
            f"{2 * GROUPS} rows. Give {more}."
        )
    return Asked(rows, Path(text).name if text else "WikiText-2", targets=tuple(targets), **others)


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
        self._kept: dict[str, tuple[list[np.ndarray], list[Capture]]] = {}
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
            DataError: too few words for the width of the layers, data of a probe is missing, or there are translations
                and a model that is no translator.
        """
        asked = self._asked
        for either in (self._reference, side):
            if asked.targets and either.artifact.facts["task"].get("target") != "text":
                raise DataError(f"{either.label} is no translator, so it has no decoder. Leave --label out.")
        found = list(_zero_rows(side))
        readings = [read_words(one.artifact, asked.rows) for one in (self._reference, side)]
        units = common_units(*readings)
        self._check(side, readings, units)
        against = self._of_reference(
            "reader", units, lambda name: [self._read(self._reference, readings[0], units, name)]
        )
        own = self._read(side, readings[1], units, "own")
        rows, matches = state_rows(against[0], own, partial(self._show, f"{side.label}: similarity"))
        found += rows
        show = partial(self._show, f"{side.label}: attention")
        found += attention_rows(against[0], own, is_special(units, asked.rows), show)
        shutil.rmtree(self._folder / "own")
        if asked.targets:
            found += self._decoder_rows(side, readings, units)
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
                f"There are {num_words} words that both models read, but layers {max(widths)} wide need at least "
                f"{2 * max(widths)} to be compared: of fewer, any layer predicts any other. Give more text."
            )

    def _decoder_rows(self, side: Side, readings: list[list[Reading]], units: list[np.ndarray]) -> Iterable[Found]:
        """The rows about what decoders give while they read the translations, and what they look at in the text."""
        targets = self._asked.targets
        written = [read_targets(one.artifact, targets) for one in (self._reference, side)]
        seen, looking = units, common_units(*written)
        self._check(side, written, looking)

        def captured(of: Side, number: int, name: str) -> list[Capture]:
            return self._write(of, (readings[number], seen), (written[number], looking), name)

        against = self._of_reference("decoder", [*looking, *seen], lambda name: captured(self._reference, 0, name))
        own = captured(side, 1, "own")
        show = partial(self._show, f"{side.label}: decoder")
        decoder, _ = state_rows(against[0], own[0], show)
        decoder += attention_rows(against[0], own[0], is_special(looking, targets), show)
        cross = attention_rows(against[1], own[1], is_special(seen, self._asked.rows), show)
        shutil.rmtree(self._folder / "own")
        words = {"words": int(own[0].num_spans.sum())}
        for part, found in (("decoder", decoder), ("cross-attention", cross)):
            yield from (replace(one, context={"part": part, **words, **one.context}) for one in found)

    def _of_reference(self, kind: str, units: list[np.ndarray], make: Callable[[str], list[Capture]]) -> list[Capture]:
        """What was captured of the reference, made again where the units are others than the last time."""
        known = self._kept.get(kind)
        if known is None or len(known[0]) != len(units) or not all(map(np.array_equal, known[0], units)):
            self._kept[kind] = (units, make(f"reference-{kind}"))
        return self._kept[kind][1]

    def _read(self, side: Side, readings: list[Reading], units: list[np.ndarray], name: str) -> Capture:
        """What the encoder of an artifact gives for the rows."""
        wanted = Wanted(readings, word_spans(units, readings), units)
        model, folder, show = self._opened(side, name)
        return capture(model, wanted, folder, memory_mb=self._asked.memory_mb, on_progress=show)

    def _write(
        self,
        side: Side,
        read: tuple[list[Reading], list[np.ndarray]],
        written: tuple[list[Reading], list[np.ndarray]],
        name: str,
    ) -> list[Capture]:
        """What the decoder of an artifact gives for the translations, and its attention to the rows."""
        wanted = [Wanted(readings, word_spans(units, readings), units) for readings, units in (read, written)]
        model, folder, show = self._opened(side, name)
        return list(capture_decoder(model, *wanted, folder, memory_mb=self._asked.memory_mb, on_progress=show))

    def _opened(self, side: Side, name: str) -> tuple[nn.Module, Path, Callable[[int, int], None]]:
        """The model of an artifact, an empty place for what is captured of it, and who hears how far that is."""
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        return load_model(side.artifact.folder), folder, partial(self._show, f"{side.label}: hidden states, attention")


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
