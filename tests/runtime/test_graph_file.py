"""A graph is read as the onnx library reads it, and refused where it holds what multipress never writes."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multipress.errors import ArtifactError
from multipress.runtime.graph_file import external_weights, read_graph

onnx = pytest.importorskip("onnx")


def outside(name: str, *dims: int, data_type: int = 1):
    tensor = onnx.TensorProto(name=name, dims=dims, data_type=data_type, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def inside(name: str):
    return onnx.numpy_helper.from_array(np.ones((2, 3), dtype=np.float32), name)


def proto(initializers=(), nodes=(), **changes):
    value = onnx.helper.make_tensor_value_info("x", 1, ["batch", 2])
    graph = onnx.helper.make_graph(list(nodes), "g", [value], [value], initializer=list(initializers))
    changes.setdefault("opset_imports", [onnx.helper.make_opsetid("", 17)])
    return onnx.helper.make_model(graph, **changes)


def model(initializers=(), nodes=(), **changes) -> bytes:
    return proto(initializers, nodes, **changes).SerializeToString()


def constant(tensor):
    return onnx.helper.make_node("Constant", [], ["c"], value=tensor)


def test_names_and_shapes_of_external_initializers_are_found_and_no_others():
    found = external_weights(model([outside("a", 3, 400), inside("b"), outside("c")]))
    assert found == {"a": (3, 400), "c": ()}


def test_a_location_alone_makes_a_tensor_external():
    tensor = outside("a", 2)
    tensor.data_location = onnx.TensorProto.DEFAULT
    assert external_weights(model([tensor])) == {"a": (2,)}


def test_operators_constants_inputs_and_outputs_are_those_of_the_onnx_library():
    numbers = np.array([-1, 2**63 - 1, 0])
    nodes = [
        constant(onnx.numpy_helper.from_array(numbers)),
        onnx.helper.make_node("Gemm", ["x", ""], ["y"], alpha=0.5, transB=1),
        onnx.helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0], domain="ai.onnx"),
        onnx.helper.make_node("Softmax", ["z"], ["s"], axis=-1),
    ]
    graph = read_graph(model([inside("b")], nodes))
    assert graph.inputs == graph.outputs == {"x": ("batch", 2)}
    assert np.array_equal(graph.constants["b"], np.ones((2, 3)))
    first, *others = graph.nodes
    assert np.array_equal(first.attributes["value"], numbers)
    assert [tuple(node) for node in others] == [
        ("Gemm", ["x", ""], ["y"], {"alpha": 0.5, "transB": 1}),
        ("Transpose", ["y"], ["z"], {"perm": [1, 0]}),
        ("Softmax", ["z"], ["s"], {"axis": -1}),
    ]


def hostile() -> dict[str, bytes]:
    """Graphs that are right ONNX, each with one thing that multipress does not write."""
    sparse = onnx.SparseTensorProto(values=outside("s", 1))
    with_sparse, with_sizes, with_branch, twice = proto(), proto(), proto(), proto([inside("a")])
    with_sparse.graph.sparse_initializer.append(sparse)
    with_sizes.graph.value_info.append(onnx.helper.make_tensor_value_info("y", 1, [10**9]))
    branch = onnx.helper.make_graph([], "b", [], [], initializer=[outside("deep", 2)])
    with_branch.graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch))
    typed = onnx.helper.make_tensor("t", 1, [2], [1.0, 2.0])
    again = onnx.helper.make_node("Cast", ["x"], ["y"], to=1)
    again.attribute.append(again.attribute[0])
    make = onnx.helper.make_node
    return {
        "an external constant": model(nodes=[constant(outside("c", 2))]),
        "external constants": model(nodes=[make("Constant", [], ["c"], many=[inside("a"), outside("c", 2)])]),
        "a branch": with_branch.SerializeToString(),
        "branches": model(nodes=[make("If", ["x"], ["y"], many=[branch])]),
        "sparse weights": with_sparse.SerializeToString(),
        "a sparse constant": model(nodes=[make("Constant", [], ["c"], sparse_value=sparse)]),
        "sizes of its own": with_sizes.SerializeToString(),
        "an operator of another library": model(nodes=[make("Anything", [], ["c"], domain="com.example")]),
        "a function": model(functions=[onnx.helper.make_function("own", "f", ["x"], ["y"], [], [])]),
        "two weights of one name": model([outside("a", 2), outside("a", 3)]),
        "a weight and a constant of one name": model([outside("a", 2), inside("a")]),
        "one attribute twice": model(nodes=[again]),
        "external integers": model([outside("a", 2, data_type=7)]),
        "values that are not raw": model([typed]),
        "texts": model([onnx.helper.make_tensor("t", 8, [1], [b"x"])]),
        "another version": model(opset_imports=[onnx.helper.make_opsetid("", 18)]),
        "other operators": model(
            opset_imports=[onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
        ),
        "no version": onnx.ModelProto(graph=proto().graph).SerializeToString(),
        "two graphs": twice.SerializeToString() + twice.SerializeToString(),
        "nothing": b"",
    }


@pytest.mark.parametrize("what", hostile())
def test_what_multipress_does_not_write_is_refused(what):
    with pytest.raises(ArtifactError):
        read_graph(hostile()[what])


def test_a_sound_graph_is_not_refused():
    assert read_graph(model([outside("a", 2), inside("b")], [constant(inside("c"))])).weights == {"a": (2,)}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 200))
def test_damaged_bytes_do_nothing_worse_than_an_artifact_error(data, position):
    whole = model([outside("a", 3, 400)], [constant(inside("c"))])
    for damaged in (data, whole[:position], whole[:position] + data + whole[position:]):
        with contextlib.suppress(ArtifactError):
            read_graph(damaged)
