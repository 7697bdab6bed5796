"""Which weights an ONNX model expects from outside, read from its bytes without the onnx library.

ONNX Runtime would look for an external weight that it is not given in a file. A stranger's graph must not
choose files, so every external tensor is listed here first; a graph that hides one elsewhere is refused.

References:
    Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Wire format:
    https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

from multipress.errors import ArtifactError

__all__ = ["external_weights"]

_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS = 5, 10
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 6, 11, 22, 23
_TENSOR_DIMS, _TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 8, 13, 14
_MAX_DEPTH = 8
_DAMAGED = "The graph is no ONNX model that can be read"


def external_weights(graph: bytes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the initializers whose data lie outside of the graph.

    Args:
        graph: An ONNX model.

    Raises:
        ArtifactError: the bytes are no ONNX model, or it has external tensors other than initializers of the
            main graph, functions, or operators that are not ONNX's own.
    """
    weights: dict[str, tuple[int, ...]] = {}
    for field, body in _fields(memoryview(graph)):
        if field == _MODEL_FUNCTIONS:
            raise ArtifactError("The graph defines functions of its own, which multipress does not write.")
        if field == _MODEL_GRAPH:
            for name, shape in _scan_graph(_message(body), 0):
                if name in weights:
                    raise ArtifactError(f"The graph has two weights of the name {name}.")
                weights[name] = shape
    return weights


def _scan_graph(graph: memoryview, depth: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    if depth > _MAX_DEPTH:
        raise ArtifactError(f"{_DAMAGED}: it is nested more than {_MAX_DEPTH} deep.")
    for field, body in _fields(graph):
        if field == _GRAPH_SPARSE:
            raise ArtifactError("The graph has sparse weights, which multipress does not write.")
        if field == _GRAPH_NODE:
            for attribute in _node_attributes(_message(body)):
                _scan_attribute(attribute, depth)
        elif field == _GRAPH_INITIALIZER and (found := _external(_message(body))):
            if depth:
                raise ArtifactError(f"The graph has the external weight {found[0]} in a branch.")
            yield found


def _node_attributes(node: memoryview) -> Iterator[memoryview]:
    for field, body in _fields(node):
        if field == _NODE_DOMAIN and bytes(_message(body)) not in (b"", b"ai.onnx"):
            raise ArtifactError(f"The graph has an operator of {bytes(_message(body))!r}, not of ONNX itself.")
        if field == _NODE_ATTRIBUTE:
            yield _message(body)


def _scan_attribute(attribute: memoryview, depth: int) -> None:
    for field, body in _fields(attribute):
        if field in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
            raise ArtifactError("The graph has sparse constants, which multipress does not write.")
        if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS) and (found := _external(_message(body))):
            raise ArtifactError(f"The graph has the external constant {found[0]}, but only weights may be external.")
        if field in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            list(_scan_graph(_message(body), depth + 1))


def _external(tensor: memoryview) -> tuple[str, tuple[int, ...]] | None:
    """Name and shape of a tensor whose data lie outside; None for others."""
    name, external, shape = "", False, []
    for field, body in _fields(tensor):
        if field == _TENSOR_NAME:
            name = bytes(_message(body)).decode(errors="replace")
        elif field in (_TENSOR_EXTERNAL, _TENSOR_LOCATION):
            external = True
        elif field == _TENSOR_DIMS and isinstance(body, int):
            shape.append(body)
        elif field == _TENSOR_DIMS:
            shape.extend(_packed(_message(body)))
    return (name, tuple(shape)) if external else None


def _message(body: int | memoryview) -> memoryview:
    if isinstance(body, int):
        raise ArtifactError(f"{_DAMAGED}: a number stands where a message should.")
    return body


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers of a message, each with its number or its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield field, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ArtifactError(f"{_DAMAGED}: wire type {kind}.")
        if size > len(data) - at:
            raise ArtifactError(f"{_DAMAGED}: it is cut.")
        yield field, data[at : at + size]
        at += size


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ArtifactError(f"{_DAMAGED}: it is cut.")
