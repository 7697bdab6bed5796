"""What computes a batch: ONNX Runtime, or OpenVINO where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from multipress.errors import ArtifactError, MissingExtraError

__all__ = ["OnnxSession", "OpenVinoSession", "Session"]


class Session(Protocol):
    """Computes batches."""

    def run(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits float32 (B, C) of `input_ids`, `attention_mask` and `token_type_ids`, int64 (B, T).

        Raises:
            ArtifactError: the model cannot compute this batch.
        """
        ...


class OnnxSession:
    """A graph on ONNX Runtime, on processors only.

    Args:
        graph: The ONNX model, or its file.
        weights: Values by name of the weights and tables that lie outside of the graph.
        threads: Threads to compute with.
        max_tokens: Most tokens computed at once, padding counted, unless a single row has more; None: whole batches.

    Raises:
        ArtifactError: ONNX Runtime cannot open the graph.
    """

    def __init__(
        self,
        graph: bytes | Path,
        weights: Mapping[str, np.ndarray] | None = None,
        *,
        threads: int = 1,
        max_tokens: int | None = None,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # ONNX Runtime computes with the arrays themselves, so they must live as long as the session.
        arrays = {name: np.ascontiguousarray(array) for name, array in (weights or {}).items()}
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        self._kept: Any = (arrays, values)
        options.add_external_initializers(list(values), list(values.values()))
        # With weights outside, folding constants computes before it is asked to, copies transposed weights, and makes
        # nothing faster.
        disabled = ["ConstantFolding"] if arrays else []
        try:
            self._session = onnxruntime.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=disabled,
            )
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class of their own
            raise ArtifactError(f"ONNX Runtime cannot open the artifact's graph: {_one_line(error)}") from None
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._max_tokens = max_tokens

    def run(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits of a batch; see `Session.run`."""
        rows, tokens = next(iter(batch.values())).shape
        at_once = max(1, self._max_tokens // max(tokens, 1)) if self._max_tokens else rows
        if rows <= at_once:
            return self._run(batch)
        parts = (
            {name: array[start : start + at_once] for name, array in batch.items()} for start in range(0, rows, at_once)
        )
        return np.concatenate(list(map(self._run, parts)))

    def _run(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            output: np.ndarray = self._session.run(["logits"], {name: batch[name] for name in self._inputs})[0]
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class of their own
            raise ArtifactError(f"The model cannot compute this batch: {_one_line(error)}") from None
        return output


class OpenVinoSession:
    """A model on OpenVINO, on processors only.

    Args:
        model: An ONNX model's bytes, or the `.xml` file of an OpenVINO model.
        threads: Threads to compute with.
        precision: `fp32`, or `bf16` to compute in that type where the processor can; integers stay integers.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ArtifactError: OpenVINO cannot open the model.
    """

    def __init__(self, model: bytes | Path, *, threads: int = 1, precision: str = "fp32") -> None:
        try:
            import openvino
        except ImportError:
            raise MissingExtraError('OpenVINO is not installed. Run: pip install "multipress[openvino]"') from None
        settings = {
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"bf16": "bf16"}.get(precision, "f32"),
        }
        core = openvino.Core()
        try:
            read = core.read_model(model if isinstance(model, bytes) else str(model))
            self._model = core.compile_model(read, "CPU", settings)
        except Exception as error:  # noqa: BLE001 - OpenVINO raises RuntimeError and classes of its own
            raise ArtifactError(f"OpenVINO cannot open the model: {_one_line(error)}") from None
        self._inputs = [value.get_any_name() for value in self._model.inputs]

    def run(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits of a batch; see `Session.run`."""
        try:
            output = self._model({name: batch[name] for name in self._inputs})[0]
        except Exception as error:  # noqa: BLE001 - as above
            raise ArtifactError(f"The model cannot compute this batch: {_one_line(error)}") from None
        return np.array(output, dtype=np.float32)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
