"""Translating with an artifact; needs torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from multipress.artifact import Artifact, open_artifact
from multipress.checkpoint import load_model
from multipress.errors import ArtifactError, DataError
from multipress.models.decoding import BEAMS, LENGTH_PENALTY, write_translations
from multipress.precision import device, route, use_route
from multipress.runtime.predictor import Translation, TruncationWarning, told_cut
from multipress.runtime.tokenizer import TextEncoder

__all__ = ["Translator"]


class Translator:
    """Translates texts: batched beam search with the weights of an artifact.

    Args:
        artifact: An artifact of a translator, or its folder.
        threads: Threads to compute with.
        batch_size: Most rows computed at once.
        beams: Partial translations of a row that are followed.
        length_penalty: Above 0 longer translations are preferred.

    Attributes:
        artifact: The opened artifact.
        num_truncated: How many rows of the last call were longer than the model reads and were cut.
        num_unread: How many of them hold no piece of a word that the model knows, as empty ones.

    Raises:
        ArtifactError: the artifact is damaged, or is no translator.
    """

    def __init__(
        self,
        artifact: Artifact | Path | str,
        threads: int = 1,
        batch_size: int = 32,
        *,
        beams: int = BEAMS,
        length_penalty: float = LENGTH_PENALTY,
    ) -> None:
        if not isinstance(artifact, Artifact):
            artifact = open_artifact(Path(artifact))
        if not artifact.writes:
            raise ArtifactError(f"{artifact.folder} is no translator. Open it with multipress.open.")
        self.artifact = artifact
        self.num_truncated = self.num_unread = 0
        self._threads, self._batch_size = threads, batch_size
        self._beams, self._length_penalty = beams, length_penalty
        self._encoder = TextEncoder(artifact.tokenizer_json(), artifact.facts["max_length"])
        self._writer = TextEncoder(artifact.tokenizer_json(), artifact.facts["max_length"], is_target=True)
        self._model = load_model(artifact.folder).to(device())

    @property
    def max_length(self) -> int:
        """Most tokens of a row, special tokens counted."""
        return self._encoder.max_length

    @property
    def decoding(self) -> dict[str, float]:
        """How translations are searched for."""
        return {"beams": self._beams, "length_penalty": self._length_penalty}

    def __call__(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Translation]:
        """The translation of each text, in the order given.

        Raises:
            DataError: `texts` is no list of texts, or there are second texts.

        Warns:
            TruncationWarning: texts were cut.
        """
        if pairs is not None:
            raise DataError("A translator reads one text a row, but was given pairs.")
        found = self._translations(texts, on_progress)
        if self.num_truncated:
            warnings.warn(told_cut(self.num_truncated, len(texts), self.max_length), TruncationWarning, stacklevel=2)
        return found

    def _translations(self, texts: Sequence[str], on_progress: Callable[[int, int], None] | None) -> list[Translation]:
        rows = self._encoder.encode(texts)
        self.num_truncated, self.num_unread = self._encoder.num_truncated, self._encoder.num_unread
        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        use_route(route())
        try:
            written = write_translations(
                self._model,
                rows,
                batch_size=self._batch_size,
                beams=self._beams,
                length_penalty=self._length_penalty,
                on_progress=on_progress,
            )
        finally:
            torch.set_num_threads(threads)
        return [Translation(self._writer.decode(row.ids), row.score) for row in written]

    def outputs(self, texts: Sequence[str], on_progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """The translations alone, (N,) objects."""
        return np.array([found.translation for found in self._translations(texts, on_progress)], dtype=object)
