"""Hidden states and attention maps of an artifact's model on given text, of every layer and head, streamed to disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from multipress.dissect.reading import Reading, Span, averages, sums
from multipress.errors import ArtifactError, SettingError
from multipress.models.encoder import model_batch, reader_inputs
from multipress.models.families import family_of
from multipress.precision import device
from multipress.runtime.tokenizer import batches_by_length

__all__ = ["Capture", "Wanted", "capture"]

_MOST_ROWS = 32


@dataclass(frozen=True)
class Capture:
    """What lies on disk; arrays are mapped, not in memory.

    Args:
        states: For each layer float32 (N, D): a vector for each span, the embeddings first.
        maps: For each block float32 (H, cells): of each row its U x U map, row after row; empty: not asked for.
        num_units: U of each row (R,).
        num_spans: Spans of each row (R,); their sum is N.
    """

    states: list[np.ndarray]
    maps: list[np.ndarray]
    num_units: np.ndarray
    num_spans: np.ndarray


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


@torch.no_grad()
def capture(
    model: nn.Module,
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
    folder.mkdir(parents=True, exist_ok=True)
    readings = wanted.readings
    spans = np.array([len(row) for row in wanted.spans])
    units = np.array([len(row) for row in wanted.units]) if wanted.units is not None else np.zeros(0, dtype=int)
    writer = _Writer(folder, int(spans.sum()), int((units.astype(np.int64) ** 2).sum()))
    places = (np.cumsum([0, *spans]), np.cumsum([0, *units.astype(np.int64) ** 2]))
    encoder = family_of(model).reader(model.to(device()))
    limit = _rows_at_once(model, readings, wanted.units is not None, memory_mb)
    done = 0
    for rows in batches_by_length([len(one.encoding.ids) for one in readings], limit):
        inputs = reader_inputs(model, model_batch([readings[row].encoding for row in rows], 0))
        outputs = encoder(**inputs, output_hidden_states=True, output_attentions=wanted.units is not None)
        states, maps = outputs.hidden_states, outputs.attentions or ()
        writer.open(states, maps)
        for number, row in enumerate(rows):
            length = len(readings[row].encoding.ids)
            if spans[row]:
                weights = torch.from_numpy(averages(readings[row], wanted.spans[row])).to(device())
                writer.add_states(int(places[0][row]), [state[number, :length] for state in states], weights)
            if wanted.units is not None:
                writer.add_maps(
                    int(places[1][row]), [one[number, :, :length, :length] for one in maps], readings[row],
                    wanted.units[row],
                )  # fmt: skip
        done += len(rows)
        if on_progress is not None:
            on_progress(done, len(readings))
    return Capture(*writer.close(), units, spans)


def _rows_at_once(model: nn.Module, readings: Sequence[Reading], with_maps: bool, memory_mb: int) -> int:
    """How many rows of full length fit the memory: states and maps of all layers, and as much again to compute."""
    config = model.config
    length = max(len(one.encoding.ids) for one in readings)
    width, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    numbers = length * width * (layers + 1) + (length * length * heads * layers if with_maps else 0)
    numbers += length * (12 * width + 2 * length * heads)
    rows = int(memory_mb * 1e6 / (2 * 4 * numbers))
    if rows < 1:
        raise SettingError(
            f"memory_mb is {memory_mb}, but a row of {length} tokens needs {-(-8 * numbers // 10**6)} MB. Give more."
        )
    return min(rows, _MOST_ROWS)


class _Writer:
    """Files of one array a layer, opened when the first batch shows their shapes."""

    def __init__(self, folder: Path, num_spans: int, num_cells: int) -> None:
        self._folder, self._num_spans, self._num_cells = folder, num_spans, num_cells
        self._states: list[np.ndarray] = []
        self._maps: list[np.ndarray] = []

    def open(self, states: Sequence[Tensor], maps: Sequence[Tensor]) -> None:
        """Make the files, once."""
        if self._states:
            return
        make = np.lib.format.open_memmap
        for layer, state in enumerate(states):
            shape = (self._num_spans, state.shape[-1])
            self._states.append(make(self._folder / f"states-{layer}.npy", "w+", np.float32, shape))
        for layer, one in enumerate(maps, 1):
            shape = (one.shape[1], self._num_cells)
            self._maps.append(make(self._folder / f"maps-{layer}.npy", "w+", np.float32, shape))

    def add_states(self, place: int, states: Sequence[Tensor], weights: Tensor) -> None:
        """Write the vectors of one row's spans; `states` are (T, D) of each layer, `weights` (S, T)."""
        for target, state in zip(self._states, states, strict=True):
            vectors = (weights @ state).cpu().numpy()  # (S, D)
            if not np.isfinite(vectors).all():
                raise ArtifactError(
                    "The model gives hidden states that are not finite; it was damaged or badly trained."
                )
            target[place : place + len(vectors)] = vectors

    def add_maps(self, place: int, maps: Sequence[Tensor], reading: Reading, units: np.ndarray) -> None:
        """Write one row's maps between units; `maps` are (H, T, T) of each block, each line summing to 1.

        A word looks as its pieces do on average, and at a word as at all its pieces together (Clark et al., 2019).
        """
        own = torch.from_numpy(sums(reading, units)).to(device())  # (U, T)
        looks = own / own.sum(dim=1, keepdim=True)
        for target, one in zip(self._maps, maps, strict=True):
            by_units = looks @ one @ own.T  # (H, U, U)
            by_units = by_units / by_units.sum(dim=2, keepdim=True)  # what is left where a unit is left out
            target[:, place : place + len(units) ** 2] = by_units.flatten(1).cpu().numpy()

    def close(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The arrays, mapped."""
        return self._states, self._maps
