"""Predict with an artifact: the graph from the folder, the weights from memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from multipress.artifact import Artifact, open_artifact
from multipress.errors import ArtifactError, DataError, MissingExtraError, SettingError
from multipress.runtime.decoded import decoded_tensors
from multipress.runtime.graph_file import Graph, read_graph
from multipress.runtime.graph_sizes import check_sizes
from multipress.runtime.graph_writer import write_graph
from multipress.runtime.integer_graph import float_graph, integer_graph, stored_graph, table_graph
from multipress.runtime.products import has_exact_products
from multipress.runtime.session import OnnxSession, OpenVinoSession, Session
from multipress.runtime.simple_graph import simple_graph
from multipress.runtime.tokenizer import Encoding, TextEncoder, batches_by_length, pad_batch

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Prediction",
    "Predictor",
    "Translation",
    "TruncationWarning",
    "open_predictor",
    "told_cut",
]

PRECISIONS = ("fp32", "int8")
ENGINES = ("onnxruntime", "openvino")
# Sums over tokens are taken in groups: where lengths are multiples of it, the last bit of a sum does not depend on the
# padding, and no number that lies between two integers is rounded to the other one.
_MULTIPLE = 4
# For each thread. What a block gives for more tokens does not stay in a processor's own memory: 32 rows of 128 tokens
# took a fifth less time in eight parts (six blocks of 384, AMD Zen 3).
_MAX_TOKENS = 512
_LARGE_BYTES = 100_000


class TruncationWarning(UserWarning):
    """Texts are longer than the model reads and were cut."""


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one row.

    Args:
        label: The likeliest label; None where the task is a number.
        score: Probability of the label, or the number itself.
        scores: Probability of every label, in class order; empty for a number.
    """

    label: str | None
    score: float
    scores: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The prediction as plain JSON values."""
        return {"label": self.label, "score": self.score, "scores": self.scores}


@dataclass(frozen=True)
class Translation:
    """What a translator wrote for one row.

    Args:
        translation: The text.
        score: Its log-probability, divided by its length in tokens to the power of the length penalty.
    """

    translation: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """The translation as plain JSON values."""
        return {"translation": self.translation, "score": self.score}


def told_cut(num_cut: int, num_rows: int, max_length: int) -> str:
    """That rows were cut, in words."""
    return f"{num_cut:,} of {num_rows:,} rows are longer than {max_length} tokens and were cut."


def open_predictor(artifact: Artifact | Path | str, threads: int = 1, batch_size: int = 32, **options: Any) -> Any:
    """What predicts with an artifact: a `Predictor`, or of a translator a `multipress.translator.Translator`.

    Args:
        artifact: An artifact or its folder.
        threads: Threads to compute with.
        batch_size: Most rows computed at once.
        options: Further arguments of either.

    Raises:
        ArtifactError: the artifact is damaged.
        SettingError: an option is not for this artifact.
        MissingExtraError: it is a translator, and torch is not installed.
    """
    if not isinstance(artifact, Artifact):
        artifact = open_artifact(Path(artifact))
    if not artifact.writes:
        return Predictor(artifact, threads, batch_size, **options)
    for name, plain in (("precision", PRECISIONS[0]), ("engine", ENGINES[0])):
        if options.pop(name, plain) != plain:
            raise SettingError(f"A translator is computed by torch in {PRECISIONS[0]}; leave --{name} out.")
    options.pop("cache", None)
    try:
        # By its name: nothing here may need torch.
        room = import_module("multipress.translator")
    except ImportError as error:
        raise MissingExtraError(
            f"{artifact.folder} is a translator, which needs torch and transformers ({error}): "
            'pip install "multipress[train]".'
        ) from None
    return room.Translator(artifact, threads, batch_size, **options)


class Predictor:
    """Predicts labels or numbers for texts.

    Args:
        artifact: An artifact or its folder.
        threads: Threads to compute with.
        batch_size: Most rows computed at once.
        precision: `fp32`, the artifact's own numbers; or `int8`: products of integers, faster and slightly rounded.
        engine: `onnxruntime` or `openvino`.
        cache: Whether decoded weights are kept in the user's cache folder, so that the next opening is faster.
        session: What computes instead, such as a file that was exported; `precision` and `engine` say nothing then.

    Attributes:
        artifact: The opened artifact.
        session: What computes.
        num_truncated: How many rows of the last call were longer than the model reads and were cut.
        num_unread: How many of them hold no piece of a word that the model knows, as empty ones.

    Raises:
        ArtifactError: the artifact is damaged, or its graph does not fit its weights or its task.
        SettingError: there is no such precision or engine.
        MissingExtraError: OpenVINO is asked for and not installed.
    """

    def __init__(  # noqa: PLR0913 - what a user may choose, by name
        self,
        artifact: Artifact | Path | str,
        threads: int = 1,
        batch_size: int = 32,
        *,
        precision: str = "fp32",
        engine: str = "onnxruntime",
        cache: bool = False,
        session: Session | None = None,
    ) -> None:
        for value, known in ((precision, PRECISIONS), (engine, ENGINES)):
            if value not in known:
                raise SettingError(f"{value!r} is not known; there are: {', '.join(known)}.")
        if threads < 1 or batch_size < 1:
            raise SettingError(f"threads ({threads}) and batch_size ({batch_size}) must be at least 1.")
        if not isinstance(artifact, Artifact):
            artifact = open_artifact(Path(artifact))
        if artifact.writes:
            raise ArtifactError(f"{artifact.folder} is a translator, not a classifier. Open it with multipress.open.")
        self.artifact = artifact
        self.num_truncated = self.num_unread = 0
        self._batch_size = batch_size
        self._multiple = _MULTIPLE if artifact.rounds_activations or precision == "int8" or session is not None else 1
        task = artifact.facts["task"]
        self._labels: list[str] | None = task["labels"] if task["target"] == "classes" else None
        self._is_pair = bool(task.get("is_pair"))
        self._encoder = TextEncoder(artifact.tokenizer_json(), artifact.facts["max_length"])
        self._positions = artifact.max_tokens
        if self._positions is not None and self.max_length > self._positions:
            raise ArtifactError(
                f"Texts have up to {self.max_length} tokens, but the model {self._positions} positions."
            )
        graph = self._checked(artifact.graph())
        self.session = session or _open(artifact, simple_graph(graph), threads, (precision, engine), cache)

    @property
    def max_length(self) -> int:
        """Most tokens of a row, special tokens counted."""
        return self._encoder.max_length

    def logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Logits of each row, in the order given: float32 (N, C); C is 1 for a number.

        Args:
            texts: The (first) text of each row.
            pairs: The second text of each row.
            on_progress: Called after each batch with the rows done and all rows.

        Raises:
            DataError: `texts` is no list of texts, or `pairs` is missing, not expected, or of another length.
            ArtifactError: the model fails, or gives numbers that are not finite.
        """
        if (pairs is not None) != self._is_pair:
            reads, given = ("pairs", "one text a row") if self._is_pair else ("one text a row", "pairs")
            raise DataError(
                f"The model reads {reads}, but was given {given}. Write predictor(texts, pairs) for pairs, "
                "predictor(texts) otherwise."
            )
        encodings = self._encoder.encode(texts, pairs)
        self.num_truncated, self.num_unread = self._encoder.num_truncated, self._encoder.num_unread
        logits = np.zeros((len(encodings), len(self._labels or [None])), dtype=np.float32)
        num_done = 0
        for rows in batches_by_length([len(row.ids) for row in encodings], self._batch_size):
            logits[rows] = self.run([encodings[row] for row in rows])
            num_done += len(rows)
            if on_progress is not None:
                on_progress(num_done, len(encodings))
        if not np.isfinite(logits).all():
            raise ArtifactError("The model gives logits that are not finite; it was damaged or badly trained.")
        return logits

    def _checked(self, data: bytes) -> Graph:
        """The graph, after a look at all that it may do."""
        graph = read_graph(data)
        longest = self.max_length + -self.max_length % self._multiple
        check_sizes(graph, self._batch_size, min(longest, self._positions or longest))
        width = graph.outputs["logits"][1]
        if width != len(self._labels or [None]):
            raise ArtifactError(f"The graph gives {width} logits, but the task has {len(self._labels or [None])}.")
        return graph

    def run(self, encodings: Sequence[Encoding]) -> np.ndarray:
        """Logits of one batch of encoded rows, padded to the longest: float32 (B, C)."""
        batch = pad_batch(encodings, self._encoder.pad_id, multiple=self._multiple, max_length=self._positions)
        return self.session.run(batch)

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """Predictions for each row, in the order given; arguments and errors as in `logits`.

        Warns:
            TruncationWarning: rows were cut.
        """
        logits = self.logits(texts, pairs).astype(np.float64)
        if self.num_truncated:
            warnings.warn(told_cut(self.num_truncated, len(texts), self.max_length), TruncationWarning, stacklevel=2)
        labels = self._labels
        if labels is None:
            return [Prediction(None, float(value), {}) for value in logits[:, 0]]
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        shares = exponents / exponents.sum(axis=1, keepdims=True)
        return [
            Prediction(labels[int(row.argmax())], float(row.max()), dict(zip(labels, row.tolist(), strict=True)))
            for row in shares
        ]


def _open(artifact: Artifact, graph: Graph, threads: int, how: tuple[str, str], cache: bool) -> Session:
    """What computes the artifact, in a precision on an engine."""
    _check_weights(graph, artifact)
    precision, engine = how
    tensors = decoded_tensors(artifact, cache=cache)
    if precision == "int8":
        if engine == "openvino":  # of codes alone it makes floats, or with VNNI rounds activations by itself
            is_whole = artifact.has_static_activations and has_exact_products()
            found = integer_graph(graph, tensors, signed=True) if is_whole else stored_graph(graph, tensors)
            return OpenVinoSession(write_graph(found), threads=threads)
        whole = write_graph(integer_graph(graph, tensors, only_here=True))
        return OnnxSession(whole, threads=threads, max_tokens=_MAX_TOKENS * threads)
    if engine == "openvino":
        return OpenVinoSession(
            write_graph(float_graph(graph, {name: tensors[name].dense() for name in graph.weights})), threads=threads
        )
    graph = table_graph(graph, tensors)
    weights = {name: tensors[name].dense() for name in graph.weights}
    # What is large is given as it is: written into the graph and read again, it would be copied four times.
    tables = {name: array for name, array in graph.constants.items() if array.nbytes > _LARGE_BYTES}
    return OnnxSession(
        write_graph(graph, outside=tables), weights | tables, threads=threads, max_tokens=_MAX_TOKENS * threads
    )


def _check_weights(graph: Graph, artifact: Artifact) -> None:
    records = artifact.manifest["tensors"]
    for name, shape in graph.weights.items():
        stored = artifact.aliases.get(name, name)
        if stored not in records:
            raise ArtifactError(f"The graph needs the weight {name}, which the artifact does not hold.")
        if tuple(records[stored]["shape"]) != shape:
            raise ArtifactError(f"{name} has the shape {records[stored]['shape']}, but the graph needs {shape}.")
