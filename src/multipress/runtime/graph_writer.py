"""An ONNX model written from a `Graph`, without the onnx library: the inverse of `multipress.runtime.graph_file`.

References:
    Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from multipress.packing.stream import varint
from multipress.runtime.graph_file import OPSET_VERSION, Graph, Node

__all__ = ["PRODUCT", "write_graph"]

PRODUCT = "MatMulIntegerToFloat"  # of ONNX Runtime's own: an integer product, times the scales; never stored
_RUNTIMES_OWN = b"com.microsoft"

_IR_VERSION = 8  # the one of opset 17
_FLOAT, _INT64 = 1, 7
_KINDS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float64": 11}


def write_graph(graph: Graph, outside: Collection[str] = ()) -> bytes:
    """The bytes of an ONNX model; `read_graph` gives the same graph back, int8 and uint8 constants excepted.

    Args:
        graph: Inputs are int64, outputs float32. Weights are left to be given to a runtime by their names.
        outside: Names of constants that are given so too.
    """
    parts = [
        *(_field(1, _node(index, node)) for index, node in enumerate(graph.nodes)),
        _field(2, b"multipress"),
        *(_field(5, _external(name, shape, np.dtype("float32"))) for name, shape in graph.weights.items()),
        *(
            _field(5, _external(name, array.shape, array.dtype) if name in outside else _tensor(name, array))
            for name, array in graph.constants.items()
        ),
        *(_field(11, _value(name, _INT64, shape)) for name, shape in graph.inputs.items()),
        *(_field(12, _value(name, _FLOAT, shape)) for name, shape in graph.outputs.items()),
    ]
    opsets = [_number(2, OPSET_VERSION)]
    if any(node.operator == PRODUCT for node in graph.nodes):
        opsets.append(_field(1, _RUNTIMES_OWN) + _number(2, 1))
    model = [_number(1, _IR_VERSION), _field(2, b"multipress"), _field(7, b"".join(parts))]
    return b"".join([*model, *(_field(8, opset) for opset in opsets)])


def _node(index: int, node: Node) -> bytes:
    return b"".join(
        [
            *(_field(1, name.encode()) for name in node.inputs),
            *(_field(2, name.encode()) for name in node.outputs),
            _field(3, f"n{index}".encode()),
            _field(4, node.operator.encode()),
            *(_field(5, _attribute(name, value)) for name, value in node.attributes.items()),
            *([_field(7, _RUNTIMES_OWN)] if node.operator == PRODUCT else []),
        ]
    )


def _attribute(name: str, value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        kind, data = 4, _field(5, _tensor("", value))
    elif isinstance(value, float):
        kind, data = 1, varint(2 << 3 | 5) + struct.pack("<f", value)
    elif isinstance(value, int):
        kind, data = 2, _number(3, value)
    else:
        kind, data = 7, b"".join(_number(8, number) for number in value)
    return _field(1, name.encode()) + data + _number(20, kind)


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return dims + _number(2, _KINDS[array.dtype.name]) + _field(8, name.encode()) + _field(9, raw)


def _external(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """A tensor whose data lie elsewhere."""
    length = dtype.itemsize * math.prod(shape)
    places = {"location": "model.safetensors", "offset": "0", "length": str(length)}
    entries = (_field(1, key.encode()) + _field(2, value.encode()) for key, value in places.items())
    dims = b"".join(_number(1, size) for size in shape)
    data = b"".join(_field(13, entry) for entry in entries)
    return dims + _number(2, _KINDS[dtype.name]) + _field(8, name.encode()) + data + _number(14, 1)


def _value(name: str, kind: int, shape: Iterable[int | str]) -> bytes:
    sizes = (_field(2, size.encode()) if isinstance(size, str) else _number(1, size) for size in shape)
    tensor = _number(1, kind) + _field(2, b"".join(_field(1, size) for size in sizes))
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value & (2**64 - 1))
