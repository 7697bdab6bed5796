"""A graph of floats rewritten to compute its linear layers in integers, with the scales that were trained.

A linear layer becomes: the largest absolute value of each token gives the token's scale (as in a training with 8-bit
activations), the token is rounded to integers, an integer product with the stored codes follows, and both scales are
multiplied in. Where the training fixed a scale for the layer, that is taken instead: a layer is then two operators.
Neither scale depends on other tokens of the batch, so a row's logits depend neither on padding nor on the other rows.
Only operators of ONNX itself are written, so that other runtimes take the graph too. Where it is for ONNX Runtime on
this processor alone, the product and the scales are one operator of its own; the numbers are the same.

Instructions: without VNNI, x86 processors multiply 8-bit numbers in pairs and keep the sum in 16 bits with a sign. It
is cut off where unsigned activations meet weights beyond -64 to 64: 2 x 255 x 127 is beyond 32,767. Here no sum is
ever cut off: codes within -63 to 63 are stored as int8, all others as uint8 with a zero point of 128, which these
processors multiply in 16 bits, exactly and about a sixth slower. With VNNI, int8 is exact and up to three times as
fast: where the graph is for this processor alone, the processor is asked.

References:
    Saturation: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from multipress.errors import ArtifactError
from multipress.packing.tensor import StoredTensor
from multipress.runtime.graph_file import Graph, Node
from multipress.runtime.graph_writer import PRODUCT
from multipress.runtime.products import has_exact_products
from multipress.runtime.simple_graph import needed_nodes

__all__ = [
    "FULL_RANGE",
    "REDUCED_RANGE",
    "float_graph",
    "integer_graph",
    "round_rows",
    "stored_graph",
    "table_graph",
    "unrounded_graph",
]

FULL_RANGE = 127
REDUCED_RANGE = 63  # what processors without VNNI multiply fastest
_SMALLEST_SCALE = 1e-12  # as in the training
_HALF = np.uint8(128)  # the zero of unsigned integers


def float_graph(graph: Graph, weights: Mapping[str, np.ndarray]) -> Graph:
    """The graph with its weights inside, those of linear layers turned as the product reads them.

    Args:
        graph: A graph without weights.
        weights: float32 by name, those of `graph.weights` among them.
    """
    turned = [node for node in graph.nodes if node.operator == "Transpose" and node.inputs[0] in graph.weights]
    values = {node.outputs[0]: weights[node.inputs[0]].transpose(node.attributes["perm"]) for node in turned}
    nodes = [node for node in graph.nodes if node.operator != "Transpose" or node.inputs[0] not in graph.weights]
    used = {name for node in nodes for name in node.inputs}
    values |= {name: weights[name] for name in graph.weights if name in used}
    return replace(graph, weights={}, constants=graph.constants | values, nodes=nodes)


def stored_graph(graph: Graph, tensors: Mapping[str, StoredTensor]) -> Graph:
    """The graph with its weights inside as they are stored: codes, and an operator that makes floats of them.

    Its numbers are those of `float_graph`, but where a row has groups; a runtime may compute with the codes themselves.

    Args:
        graph: A graph without weights.
        tensors: Stored tensors by name, those of `graph.weights` among them. Floats stay floats; what has a scale a
            group is rounded to 8 bits, one scale a row.

    Raises:
        ArtifactError: no weight is stored as integers.
    """
    if not any(tensors[name].scale is not None for name in graph.weights):
        raise ArtifactError(
            "The artifact's weights are floats, and OpenVINO's int8 keeps trained integers. Take fp32, or train it "
            "with --method quantization."
        )
    made, constants = [], dict(graph.constants)
    for name in graph.weights:
        tensor = tensors[name]
        if tensor.scale is None:
            constants[name] = tensor.dense()
            continue
        codes, scale = f"{name}.codes", f"{name}.scale"
        constants[codes], scales = round_rows(tensor, FULL_RANGE)
        constants[scale] = np.broadcast_to(scales, len(tensor.values))
        made.append(Node("DequantizeLinear", [codes, scale], [name], {"axis": 0}))
    return replace(graph, weights={}, constants=constants, nodes=[*made, *graph.nodes])


def integer_graph(
    graph: Graph,
    tensors: Mapping[str, StoredTensor],
    largest_code: int = FULL_RANGE,
    *,
    only_here: bool = False,
    signed: bool = False,
) -> Graph:
    """The graph with its weights inside, its linear layers and tables of embeddings in integers.

    The layer that gives the logits stays in floats: it is small, and nothing after it hides its rounding.

    Args:
        graph: A graph without weights, as `multipress.models.trace_graph` writes it.
        tensors: Stored tensors by name, those of `graph.weights` among them. Codes are taken as they are; floats,
            and codes with a scale a group, are rounded to 8 bits, one scale a row.
        largest_code: `FULL_RANGE`, or `REDUCED_RANGE`: then codes beyond it are rounded once more.
        only_here: Whether the graph is for ONNX Runtime on this processor and is never stored.
        signed: Whether it is for processors with VNNI: codes are signed whatever this one says.

    Raises:
        ArtifactError: the graph has no linear layer that can be computed in integers.
    """
    is_exact = signed or (only_here and has_exact_products())
    whole = _Rewriter(graph, tensors, largest_code, FULL_RANGE if is_exact else REDUCED_RANGE, only_here).rewrite()
    floats = {name: tensors[name].dense() for name in whole.weights}
    return replace(whole, weights={}, constants=whole.constants | floats)


def unrounded_graph(graph: Graph) -> Graph:
    """The graph without what a training with 8-bit activations rounds before its linear layers.

    Args:
        graph: A graph without weights.
    """
    return _Rewriter(graph, {}).unrounded()


def table_graph(graph: Graph, tensors: Mapping[str, StoredTensor]) -> Graph:
    """The graph with its tables of embeddings as codes inside: a few rows are made floats, not the table.

    Its numbers are those of the graph given, bit for bit. What is not in a table of codes stays outside.

    Args:
        graph: A graph without weights.
        tensors: Stored tensors by name, those of `graph.weights` among them.
    """
    coded = {name: tensor for name, tensor in tensors.items() if tensor.scale is not None and not tensor.has_groups}
    return _Rewriter(graph, coded).rewrite_tables()


def round_rows(tensor: StoredTensor, largest_code: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes (R, D), none beyond `largest_code`, and float32 scales: (R,), or (1,) where one is stored for all.

    Codes that fit are given as they are; others, those of groups, and floats are rounded with one scale a row.
    """
    if tensor.scale is not None and not tensor.has_groups and np.abs(tensor.values).max(initial=0) <= largest_code:
        return tensor.values, tensor.scale.astype(np.float32)
    dense = tensor.dense()
    scale = np.maximum(np.abs(dense).max(axis=1) / np.float32(largest_code), np.float32(_SMALLEST_SCALE))
    return np.rint(dense / scale[:, None]).astype(np.int8), scale


class _Rewriter:
    """One graph on its way from floats to integers."""

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, StoredTensor],
        largest_code: int = FULL_RANGE,
        largest_signed: int = REDUCED_RANGE,
        only_here: bool = False,
    ) -> None:
        self._only_here = only_here
        self._largest_signed = largest_signed
        self._graph = graph
        self._tensors = tensors
        self._largest_code = largest_code
        self._makers = {name: node for node in graph.nodes for name in node.outputs}
        self._nodes: list[Node] = []
        self._constants = dict(graph.constants)
        self._rounded: dict[str, tuple[str, str]] = {}  # of each input of a linear layer its integers and scale
        self._made: set[str] = set()  # values that are made once for all that read them
        self._joined: set[str] = set()  # values of nodes that are a part of another one now

    def rewrite(self) -> Graph:
        for node in self._graph.nodes:
            if node.outputs[0] in self._joined:
                continue
            weight = self._linear_weight(node)
            if weight is not None and node.outputs != ["logits"]:
                self._linear(node, weight)
            elif node.operator == "Gather" and self._is_table(node.inputs[0]):
                self._table(node)
            else:
                self._nodes.append(node)
        if not (self._rounded or self._made):
            raise ArtifactError("The model has no linear layer that can be computed in integers.")
        return self._finished()

    def unrounded(self) -> Graph:
        for node in self._graph.nodes:
            if self._linear_weight(node) is not None:
                node = node._replace(inputs=[self._before_rounding(node.inputs[0])[0], *node.inputs[1:]])
            self._nodes.append(node)
        return self._finished()

    def rewrite_tables(self) -> Graph:
        for node in self._graph.nodes:
            if node.operator == "Gather" and self._is_table(node.inputs[0]) and node.inputs[0] in self._tensors:
                self._table(node)
            else:
                self._nodes.append(node)
        return self._finished()

    def _finished(self) -> Graph:
        nodes = needed_nodes(self._nodes, self._graph.outputs)
        used = {name for node in nodes for name in node.inputs}
        weights = {name: shape for name, shape in self._graph.weights.items() if name in used}
        constants = {name: array for name, array in self._constants.items() if name in used}
        return replace(self._graph, weights=weights, constants=constants, nodes=nodes)

    def _is_table(self, name: str) -> bool:
        return len(self._graph.weights.get(name, ())) == 2

    def _linear_weight(self, node: Node) -> str | None:
        """The weight (out, in) of a node that is a linear layer."""
        if node.operator == "Gemm" and self._is_table(node.inputs[1]):
            plain = node.attributes.get("alpha", 1.0) == node.attributes.get("beta", 1.0) == 1.0
            return (
                node.inputs[1]
                if plain and node.attributes.get("transB") and not node.attributes.get("transA")
                else None
            )
        if node.operator == "MatMul" and (maker := self._makers.get(node.inputs[1])) is not None:
            is_turned = maker.operator == "Transpose" and maker.attributes["perm"] == [1, 0]
            return maker.inputs[0] if is_turned and self._is_table(maker.inputs[0]) else None
        return None

    def _linear(self, node: Node, weight: str) -> None:
        name, step = self._before_rounding(node.inputs[0])
        if step in self._constants and self._constants[step].shape == ():
            self._static_linear(node, weight, name, step)
            return
        integers, token_scale = self._rounded_input(name)
        codes, zero, scale = self._codes(weight)
        (output,) = node.outputs
        bias = node.inputs[2:]
        scaled = f"{output}.scaled" if bias else output
        half = self._constant("zero", _HALF)
        if self._only_here:
            one = self._constant("one", np.float32(1))
            self._add(PRODUCT, [integers, codes, one, scale, half, zero], f"{output}.rows")
        else:
            self._add("MatMulInteger", [integers, codes, half, zero], f"{output}.sum")
            self._add("Cast", [f"{output}.sum"], f"{output}.float", to=1)
            self._add("Mul", [f"{output}.float", scale], f"{output}.rows")
        self._add("Mul", [f"{output}.rows", token_scale], scaled)
        if bias:
            self._add("Add", [scaled, *bias], output)

    def _static_linear(self, node: Node, weight: str, name: str, step: str) -> None:
        """A layer whose input has one scale, fixed in the training.

        Where the graph is stored, it says which integers stand for which floats, and a runtime makes one product of it.
        """
        integers, half = f"{name}.{self._constants[step]}", self._constant("zero", _HALF)
        self._add_once("QuantizeLinear", [name, step, half], integers)
        codes, zero, scale = self._codes(weight)
        output, bias = self._with_bias(node, weight)
        if self._only_here:
            self._add(PRODUCT, [integers, codes, step, scale, half, zero, *bias], output)
            return
        product = f"{output}.product" if bias else output
        if node.operator == "Gemm":  # of floats a runtime would make a Gemm again
            both = f"{weight}.{step}"
            self._constants[both] = self._constants[step] * self._constants[scale]
            self._add("MatMulInteger", [integers, codes, half, zero], f"{output}.sum")
            self._add("Cast", [f"{output}.sum"], f"{output}.float", to=1)
            self._add("Mul", [f"{output}.float", both], product)
        else:
            zeros = f"{weight}.zeros"
            self._constants[zeros] = np.full(len(self._constants[scale]), self._constants[zero])
            self._add_once("DequantizeLinear", [integers, step, half], f"{integers}.float")
            self._add_once("DequantizeLinear", [codes, scale, zeros], f"{weight}.float", axis=1)
            self._add("MatMul", [f"{integers}.float", f"{weight}.float"], product)
        if bias:
            self._add("Add", [product, *bias], output)

    def _with_bias(self, node: Node, weight: str) -> tuple[str, list[str]]:
        """What a linear layer gives with its bias, and the bias; an `Add` of it that is the next node is then done."""
        (output,) = node.outputs
        if node.inputs[2:]:
            return output, node.inputs[2:]
        readers = [other for other in self._graph.nodes if output in other.inputs]
        if len(readers) == 1 and readers[0].operator == "Add" and output not in self._graph.outputs:
            bias = next((name for name in readers[0].inputs if name != output), "")
            if self._graph.weights.get(bias) == self._graph.weights[weight][:1]:
                self._joined.add(readers[0].outputs[0])
                return readers[0].outputs[0], [bias]
        return output, []

    def _rounded_input(self, name: str) -> tuple[str, str]:
        """Names of the integers of a layer's input and of its scales, one a token; made once for all that read it."""
        if name not in self._rounded:
            scale, integers = f"{name}.scale", f"{name}.integers"
            self._add("Abs", [name], f"{name}.abs")
            self._add("ReduceMax", [f"{name}.abs"], f"{name}.max", axes=[-1], keepdims=1)
            self._add("Div", [f"{name}.max", self._constant("largest", np.float32(FULL_RANGE))], f"{name}.step")
            self._add("Max", [f"{name}.step", self._constant("smallest", np.float32(_SMALLEST_SCALE))], scale)
            self._add("Div", [name, scale], f"{name}.ratio")
            one, half = self._constant("one", np.float32(1)), self._constant("zero", _HALF)
            self._add("QuantizeLinear", [f"{name}.ratio", one, half], integers)
            self._rounded[name] = integers, scale
        return self._rounded[name]

    def _before_rounding(self, name: str) -> tuple[str, str]:
        """What was rounded where a training rounded activations, and its scale: its floats stand for the same integers.

        The scale is a constant where the training fixed it; empty where nothing was rounded.
        """
        nodes, place = [], name
        for operator in ("Mul", "Clip", "Round", "Div"):
            node = self._makers.get(place)
            if node is not None and node.operator == operator:
                nodes.append(node)
                place = node.inputs[0]
            elif operator != "Clip":
                return name, ""
        return (place, nodes[0].inputs[1]) if nodes[0].inputs[1] == nodes[-1].inputs[1] else (name, "")

    def _codes(self, weight: str) -> tuple[str, str, str]:
        """Names of a linear weight's codes (in, out), of their zero, and of their scales."""
        if f"{weight}.codes" not in self._constants:
            codes, scale = round_rows(self._tensors[weight], self._largest_code)
            turned = np.ascontiguousarray(codes.T)
            if np.abs(codes).max(initial=0) > self._largest_signed:
                turned = (turned.view(np.uint8) + _HALF).astype(np.uint8)
            self._constants[f"{weight}.codes"] = turned
            self._constants[f"{weight}.scale"] = scale
        is_unsigned = self._constants[f"{weight}.codes"].dtype == np.uint8
        zero = self._constant("zero", _HALF) if is_unsigned else self._constant("signed_zero", np.int8(0))
        return f"{weight}.codes", zero, f"{weight}.scale"

    def _table(self, node: Node) -> None:
        """Looks up codes and their scales instead of floats."""
        (table, places), (output,) = node.inputs, node.outputs
        if f"{table}.rows" not in self._constants:
            codes, scale = round_rows(self._tensors[table], FULL_RANGE)
            self._constants[f"{table}.rows"], self._constants[f"{table}.steps"] = codes, scale[:, None]
        self._add("Gather", [f"{table}.rows", places], f"{output}.rows", axis=0)
        self._add("Cast", [f"{output}.rows"], f"{output}.float", to=1)
        steps = f"{table}.steps"
        if len(self._constants[steps]) > 1:
            self._add("Gather", [steps, places], f"{output}.steps", axis=0)
            steps = f"{output}.steps"
        self._add("Mul", [f"{output}.float", steps], output)

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: int | list[int]) -> None:
        self._nodes.append(Node(operator, inputs, [output], attributes))

    def _add_once(self, operator: str, inputs: list[str], output: str, **attributes: int | list[int]) -> None:
        if output not in self._made:
            self._made.add(output)
            self._add(operator, inputs, output, **attributes)

    def _constant(self, name: str, value: np.generic) -> str:
        """The name of a number that many nodes read."""
        name = f"integer.{name}"
        self._constants[name] = np.asarray(value)
        return name
