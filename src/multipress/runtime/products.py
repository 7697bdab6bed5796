"""Whether ONNX Runtime multiplies 8-bit numbers exactly on this processor: asked by a product that would be cut off."""

from __future__ import annotations

from functools import cache

import numpy as np

from multipress.runtime.graph_file import Graph, Node
from multipress.runtime.graph_writer import write_graph
from multipress.runtime.session import OnnxSession

__all__ = ["has_exact_products"]

_DEPTH, _WIDTH = 192, 48
_ROWS = (1, 5, 64)  # a runtime may take other instructions for few rows


@cache
def has_exact_products() -> bool:
    """Whether unsigned activations times signed codes of full range are exact, as with VNNI; some milliseconds, once.

    Without such instructions two products are added in 16 bits, and 2 x 255 x 127 is beyond them.
    """
    codes = np.full((_DEPTH, _WIDTH), 127, dtype=np.int8)
    codes[:, 1::2] = -127
    nodes = [
        Node("Cast", ["tokens"], ["unsigned"], {"to": 2}),
        Node("MatMulInteger", ["unsigned", "codes"], ["sum"], {}),
        Node("Cast", ["sum"], ["logits"], {"to": 1}),
    ]
    graph = Graph({}, {"codes": codes}, {"tokens": ("rows", _DEPTH)}, {"logits": ("rows", _WIDTH)}, nodes)
    session = OnnxSession(write_graph(graph))
    expected = 255.0 * codes.astype(np.float64).sum(axis=0)
    return all(
        np.array_equal(
            session.run({"tokens": np.full((rows, _DEPTH), 255, dtype=np.int64)}), np.tile(expected, (rows, 1))
        )
        for rows in _ROWS
    )
