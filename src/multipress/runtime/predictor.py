"""Predict with an artifact on ONNX Runtime: the graph from the folder, the weights from memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multipress.artifact import Artifact, open_artifact
from multipress.errors import ArtifactError, DataError
from multipress.runtime.graph_file import read_graph
from multipress.runtime.graph_sizes import check_sizes
from multipress.runtime.tokenizer import Encoding, TextEncoder, batches_by_length, pad_batch

__all__ = ["Prediction", "Predictor"]


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


class Predictor:
    """Predicts labels or numbers for texts.

    Args:
        artifact: An artifact or its folder.
        threads: Threads of ONNX Runtime.
        batch_size: Most rows computed at once.

    Attributes:
        artifact: The opened artifact.
        num_truncated: How many rows of the last call were longer than the model reads and were cut.

    Raises:
        ArtifactError: the artifact is damaged, or its graph does not fit its weights or its task.
    """

    def __init__(self, artifact: Artifact | Path | str, threads: int = 1, batch_size: int = 32) -> None:
        if not isinstance(artifact, Artifact):
            artifact = open_artifact(Path(artifact))
        self.artifact = artifact
        self.num_truncated = 0
        self._batch_size = batch_size
        task = artifact.facts["task"]
        self._labels: list[str] | None = task["labels"] if task["target"] == "classes" else None
        self._is_pair = bool(task.get("is_pair"))
        self._encoder = TextEncoder(artifact.tokenizer_json(), artifact.facts["max_length"])
        positions = artifact.max_tokens
        if positions is not None and self.max_length > positions:
            raise ArtifactError(f"Texts have up to {self.max_length} tokens, but the model {positions} positions.")
        graph = artifact.graph()
        shapes = self._check_graph(graph)
        # ONNX Runtime computes with the arrays themselves, so they must live as long as the session.
        self._session, self._weights = _open_session(graph, shapes, artifact.dense_weights(), threads)

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
        self.num_truncated = self._encoder.num_truncated
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

    def _check_graph(self, data: bytes) -> dict[str, tuple[int, ...]]:
        """Check all that the graph may do; gives the shapes of the weights that it needs, by name."""
        graph = read_graph(data)
        check_sizes(graph, self._batch_size, self.max_length)
        self._inputs = list(graph.inputs)
        width = graph.outputs["logits"][1]
        if width != len(self._labels or [None]):
            raise ArtifactError(f"The graph gives {width} logits, but the task has {len(self._labels or [None])}.")
        return graph.weights

    def run(self, encodings: Sequence[Encoding]) -> np.ndarray:
        """Logits of one batch of encoded rows, padded to the longest: float32 (B, C)."""
        batch = pad_batch(encodings, self._encoder.pad_id)
        try:
            output: np.ndarray = self._session.run(["logits"], {name: batch[name] for name in self._inputs})[0]
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class of their own
            raise ArtifactError(f"The model cannot compute this batch: {_one_line(error)}") from None
        return output

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """Predictions for each row, in the order given; arguments and errors as in `logits`."""
        logits = self.logits(texts, pairs).astype(np.float64)
        labels = self._labels
        if labels is None:
            return [Prediction(None, float(value), {}) for value in logits[:, 0]]
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        shares = exponents / exponents.sum(axis=1, keepdims=True)
        return [
            Prediction(labels[int(row.argmax())], float(row.max()), dict(zip(labels, row.tolist(), strict=True)))
            for row in shares
        ]


def _open_session(
    graph: bytes, expected: dict[str, tuple[int, ...]], weights: dict[str, np.ndarray], threads: int
) -> tuple[Any, list[Any]]:
    """The session, and what must stay in memory as long as it is used."""
    import onnxruntime

    for name, shape in expected.items():
        if name not in weights:
            raise ArtifactError(f"The graph needs the weight {name}, which the artifact does not hold.")
        if weights[name].shape != shape:
            raise ArtifactError(f"{name} has the shape {weights[name].shape}, but the graph needs {shape}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    arrays = [np.ascontiguousarray(weights[name]) for name in expected]
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
    options.add_external_initializers(list(expected), values)
    try:
        # Folding constants computes before it is asked to, copies transposed weights, and makes nothing faster here.
        session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class of their own
        raise ArtifactError(f"ONNX Runtime cannot open the artifact's graph: {_one_line(error)}") from None
    return session, [arrays, values]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
