"""The one-line rival: ONNX Runtime's own dynamic int8 of the same model, to compare its drift with ours."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from multipress.artifact import Artifact
from multipress.errors import MissingExtraError
from multipress.runtime.graph_file import read_graph
from multipress.runtime.graph_writer import write_graph
from multipress.runtime.integer_graph import float_graph, unrounded_graph
from multipress.runtime.session import OnnxSession

__all__ = ["rival_model", "rival_session"]


def rival_session(artifact: Artifact, threads: int = 1) -> OnnxSession:
    """What computes `rival_model`; raises as it does."""
    return OnnxSession(rival_model(artifact), threads=threads)


def rival_model(artifact: Artifact) -> bytes:
    """The ONNX file of `quantize_dynamic` of the artifact's model in floats, with that function's own settings.

    Where the training rounded activations, the model in floats is the one without: the rival rounds them itself.

    Raises:
        MissingExtraError: the onnx library is not installed.
    """
    try:
        from onnxruntime.quantization import quantize_dynamic
    except ImportError:
        raise MissingExtraError(
            'ONNX Runtime quantizes with the onnx library only. Run: pip install "multipress[train]", or leave --rival.'
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "model.onnx", Path(folder) / "model_int8.onnx"
        graph = unrounded_graph(read_graph(artifact.graph()))
        before.write_bytes(write_graph(float_graph(graph, artifact.dense_weights())))
        logging.disable(logging.WARNING)  # it advises to look at the documentation of something else
        try:
            quantize_dynamic(before, after)
        finally:
            logging.disable(logging.NOTSET)
        return after.read_bytes()
