"""Hidden states and attention maps of an artifact's model on given text, of every layer and head, streamed to disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from multipress.dissect.reading import Reading, Span, averages, sums
from multipress.errors import ArtifactError, RunError, SettingError
from multipress.models.encoder import model_batch, model_inputs, reader_inputs
from multipress.models.families import family_of
from multipress.precision import device
from multipress.runtime.tokenizer import batches_by_length

__all__ = ["Capture", "Wanted", "capture", "capture_decoder"]

_MOST_ROWS = 32


@dataclass(frozen=True)
class Capture:
    """What lies on disk; arrays are mapped, not in memory.

    Args:
        states: For each layer float32 (N, D): a vector for each span, the embeddings first.
        maps: For each block float32 (H, cells): of each row its U x V map, line after line; empty: not asked for.
        num_units: U of each row (R,).
        num_spans: Spans of each row (R,); their sum is N.
        num_seen: V of each row (R,), where what is looked at is another text; None: the same units, V is U.
        is_causal: Whether a unit sees itself and those before it alone.
    """

    states: list[np.ndarray]
    maps: list[np.ndarray]
    num_units: np.ndarray
    num_spans: np.ndarray
    num_seen: np.ndarray | None = None
    is_causal: bool = False


@dataclass(frozen=True)
class Wanted:
    """What is to be captured of each row.

    Args:
        readings: R rows.
        spans: The spans of words of each row whose vectors are kept.
        units: The units of each row between which attention is kept; None: no attention.
    """

    readings: Sequence[Reading]
    spans: Sequence[Sequence[Span]]
    units: Sequence[np.ndarray] | None = None

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(one.encoding.ids) for one in self.readings]


@torch.no_grad()
def capture(
    model: PreTrainedModel,
    wanted: Wanted,
    folder: Path,
    *,
    memory_mb: int = 1024,
    on_progress: Callable[[int, int], None] | None = None,
) -> Capture:
    """Run the model on the rows and write what each layer gives.

    Args:
        model: As `load_model` opens it, with attention that gives its maps; of a translator its encoder is captured.
        wanted: Rows, spans and units.
        folder: Where the files go; made if needed.
        memory_mb: Most memory for the activations of a batch, beside the model.
        on_progress: Called after each batch with the rows done and all rows.

    Raises:
        SettingError: a row needs more memory than that.
        ArtifactError: the model gives numbers that are not finite.
    """
    writer = _Writer(folder, wanted)
    encoder = family_of(model).reader(model.to(device()))
    blocks = model.config.num_hidden_layers
    limit = _rows_at_once(model, wanted.lengths, wanted.units is not None, memory_mb, blocks)
    done = 0
    for rows in batches_by_length(wanted.lengths, limit):
        inputs = reader_inputs(model, model_batch([wanted.readings[row].encoding for row in rows], 0))
        outputs = encoder(**inputs, output_hidden_states=True, output_attentions=wanted.units is not None)
        writer.add(rows, outputs.hidden_states, outputs.attentions or ())
        done += len(rows)
        if on_progress is not None:
            on_progress(done, len(wanted.readings))
    return writer.close()


@torch.no_grad()
def capture_decoder(
    model: PreTrainedModel,
    read: Wanted,
    written: Wanted,
    folder: Path,
    *,
    memory_mb: int = 1024,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Capture, Capture]:
    """Run a translator on rows and their translations and write what each layer of its decoder gives.

    Args:
        model: A translator, as `load_model` opens it.
        read: What its encoder reads, with the units that are looked at; the spans are of no matter.
        written: What its decoder reads, as `read_targets` gives it, with spans and units.
        folder: Where the files go; made if needed.
        memory_mb: Most memory for the activations of a batch, beside the model.
        on_progress: Called after each batch with the rows done and all rows.

    Returns:
        Hidden states and attention of the decoder; and its attention to what the encoder read, without states.

    Raises:
        SettingError: a row needs more memory than that.
        ArtifactError: the model gives numbers that are not finite.
    """
    own = _Writer(folder / "own", written)
    cross = _Writer(folder / "cross", Wanted(written.readings, [[] for _ in written.spans], written.units), read)
    both = family_of(model).encoder(model.to(device()))
    lengths = list(map(max, read.lengths, written.lengths))
    # A block of the decoder attends twice.
    blocks = model.config.num_hidden_layers + 2 * model.config.decoder_layers
    limit = _rows_at_once(model, lengths, True, memory_mb, blocks)
    done = 0
    for rows in batches_by_length(lengths, limit):
        batch = model_batch([read.readings[row].encoding for row in rows], 0)
        batch["decoder_input_ids"] = model_batch([written.readings[row].encoding for row in rows], 0)["input_ids"]
        outputs = both(**model_inputs(model, batch), output_hidden_states=True, output_attentions=True)
        own.add(rows, outputs.decoder_hidden_states, outputs.decoder_attentions)
        cross.add(rows, (), outputs.cross_attentions)
        done += len(rows)
        if on_progress is not None:
            on_progress(done, len(written.readings))
    return replace(own.close(), is_causal=True), cross.close()


def _rows_at_once(model: Any, lengths: Sequence[int], with_maps: bool, memory_mb: float, blocks: int) -> int:
    """How many rows of full length fit the memory: states and maps of all blocks, and as much again to compute."""
    length, width, heads = max(lengths), model.config.hidden_size, model.config.num_attention_heads
    numbers = length * width * (blocks + 1) + (length * length * heads * blocks if with_maps else 0)
    numbers += length * (12 * width + 2 * length * heads)
    rows = int(memory_mb * 1e6 / (2 * 4 * numbers))
    if rows < 1:
        raise SettingError(
            f"memory_mb is {memory_mb}, but a row of {length} tokens needs {-(-8 * numbers // 10**6)} MB. Give more."
        )
    return min(rows, _MOST_ROWS)


class _Writer:
    """Files of one array a layer, opened when the first batch shows their shapes.

    Args:
        folder: Where they go; made if needed.
        wanted: The rows whose vectors are kept, and the units that look.
        seen: The units that are looked at; None: the same.
    """

    def __init__(self, folder: Path, wanted: Wanted, seen: Wanted | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._wanted, self._seen = folder, wanted, seen or wanted
        self._num_spans = np.array([len(row) for row in wanted.spans])
        lines, columns = (_num_units(one) for one in (wanted, self._seen))
        self._num_units, self._num_seen = lines, None if seen is None else columns
        self._places = np.cumsum([0, *self._num_spans]), np.cumsum([0, *lines * columns])
        self._states: list[np.ndarray] = []
        self._maps: list[np.ndarray] = []

    def add(self, rows: np.ndarray, states: Sequence[Tensor], maps: Sequence[Tensor]) -> None:
        """Write what a batch of these rows gave: states (B, T, D) of each layer, maps (B, H, T, T') of each block."""
        self._open(states, maps)
        for number, row in enumerate(rows):
            length, length_seen = self._wanted.lengths[row], self._seen.lengths[row]
            if states and self._num_spans[row]:
                self._add_states(row, [state[number, :length] for state in states])
            if self._wanted.units is not None:
                self._add_maps(row, [one[number, :, :length, :length_seen] for one in maps])

    def _open(self, states: Sequence[Tensor], maps: Sequence[Tensor]) -> None:
        """Make the files, once."""
        if self._states or self._maps:
            return
        for layer, state in enumerate(states):
            shape = (int(self._places[0][-1]), state.shape[-1])
            self._states.append(_room(self._folder / f"states-{layer}.npy", shape))
        for layer, one in enumerate(maps, 1):
            shape = (one.shape[1], int(self._places[1][-1]))
            self._maps.append(_room(self._folder / f"maps-{layer}.npy", shape))

    def _add_states(self, row: int, states: Sequence[Tensor]) -> None:
        """Write the vectors of one row's spans; `states` are (T, D) of each layer."""
        weights = torch.from_numpy(averages(self._wanted.readings[row], self._wanted.spans[row])).to(device())  # (S, T)
        place = int(self._places[0][row])
        for target, state in zip(self._states, states, strict=True):
            vectors = (weights @ state).cpu().numpy()  # (S, D)
            if not np.isfinite(vectors).all():
                raise ArtifactError(
                    "The model gives hidden states that are not finite; it was damaged or badly trained."
                )
            target[place : place + len(vectors)] = vectors

    def _add_maps(self, row: int, maps: Sequence[Tensor]) -> None:
        """Write one row's maps between units; `maps` are (H, T, T') of each block, each line summing to 1.

        A word looks as its pieces do on average, and at a word as at all its pieces together (Clark et al., 2019).
        """
        own, seen = _sums(self._wanted, row), _sums(self._seen, row)
        looks = own / own.sum(dim=1, keepdim=True)
        place, cells = int(self._places[1][row]), len(own) * len(seen)
        for target, one in zip(self._maps, maps, strict=True):
            by_units = looks @ one @ seen.T  # (H, U, V)
            by_units = by_units / by_units.sum(dim=2, keepdim=True)  # what is left where a unit is left out
            target[:, place : place + cells] = by_units.flatten(1).cpu().numpy()

    def close(self) -> Capture:
        """The arrays, mapped."""
        return Capture(self._states, self._maps, self._num_units, self._num_spans, self._num_seen)


def _room(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A mapped file of float32 whose place on the disk is taken: writing where there is none would end the process.

    Raises:
        RunError: there is not so much place.
    """
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise RunError(
                f"{path.parent} has no place for {array.nbytes / 1e6:,.0f} MB of what is looked at: {error.strerror}. "
                "Make room, give less text, or name a larger folder in TMPDIR."
            ) from None
    return array


def _num_units(wanted: Wanted) -> np.ndarray:
    return np.array([len(row) for row in wanted.units or ()], dtype=np.int64)


def _sums(wanted: Wanted, row: int) -> Tensor:
    """Which tokens of a row belong to each of its units: 0/1, (U, T)."""
    assert wanted.units is not None
    return torch.from_numpy(sums(wanted.readings[row], wanted.units[row])).to(device())
