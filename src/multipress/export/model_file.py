"""The bytes of a model in each format; made of an artifact's stored tensors and graph, without torch."""

from __future__ import annotations

import io
from pathlib import Path

from safetensors.numpy import save

from multipress.artifact import Artifact
from multipress.block_shapes import padded
from multipress.durable import write_bytes
from multipress.errors import ArtifactError, MissingExtraError
from multipress.export.files import Export
from multipress.runtime.decoded import decoded_tensors
from multipress.runtime.graph_file import Graph, read_graph
from multipress.runtime.graph_writer import write_graph
from multipress.runtime.integer_graph import FULL_RANGE, REDUCED_RANGE, float_graph, integer_graph, stored_graph
from multipress.runtime.simple_graph import simple_graph

__all__ = ["write_model"]


def write_model(artifact: Artifact, export: Export, folder: Path) -> None:
    """Write one export's files into a folder.

    Args:
        artifact: The artifact.
        export: What to write.
        folder: Where.

    Raises:
        ArtifactError: the artifact cannot be written so.
        MissingExtraError: OpenVINO is needed and not installed.
    """
    path = folder / export.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if export.to == "safetensors":
        whole = padded(artifact.dense_weights(), artifact.config)
        write_bytes(path, save(whole, metadata={"format": "pt"}))
        return
    graph = simple_graph(read_graph(artifact.graph()))
    if export.to == "openvino":
        _write_openvino(_openvino_graph(graph, artifact, export), path, export.precision)
    elif export.precision == "int8":
        largest = REDUCED_RANGE if export.reduced_range else FULL_RANGE
        integers = integer_graph(graph, decoded_tensors(artifact), largest, signed=export.vnni)
        write_bytes(path, write_graph(integers))
    else:
        write_bytes(path, write_graph(float_graph(graph, artifact.dense_weights())))


def _openvino_graph(graph: Graph, artifact: Artifact, export: Export) -> Graph:
    if export.precision != "int8":
        return float_graph(graph, artifact.dense_weights())
    if export.vnni:
        if not artifact.has_static_activations:
            raise ArtifactError(
                "OpenVINO multiplies integers where each layer has one scale of its activations. Leave out --vnni, or "
                "train with --method quantization:activation_bits=8,activation_scale=static."
            )
        return integer_graph(graph, decoded_tensors(artifact), signed=True)
    # Scales of tokens it computes as floats; codes with their scales it keeps, and multiplies where there is VNNI.
    return stored_graph(graph, decoded_tensors(artifact))


def _write_openvino(graph: Graph, path: Path, precision: str) -> None:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError('OpenVINO is not installed. Run: pip install "multipress[openvino]"') from None
    model = openvino.convert_model(io.BytesIO(write_graph(graph)))
    openvino.save_model(model, path, compress_to_fp16=precision == "bf16")
