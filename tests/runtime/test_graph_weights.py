"""External tensors are found as the onnx library finds them, and refused where they may not be."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multipress.errors import ArtifactError
from multipress.runtime.graph_weights import external_weights

onnx = pytest.importorskip("onnx")


def outside(name: str, *dims: int):
    tensor = onnx.TensorProto(name=name, dims=dims, data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def inside(name: str):
    return onnx.numpy_helper.from_array(np.ones((2, 3), dtype=np.float32), name)


def model(initializers=(), nodes=(), **changes) -> bytes:
    value = onnx.helper.make_tensor_value_info("x", 1, [2])
    graph = onnx.helper.make_graph(list(nodes), "g", [value], [value], initializer=list(initializers))
    return onnx.helper.make_model(graph, **changes).SerializeToString()


def constant(tensor):
    return onnx.helper.make_node("Constant", [], ["c"], value=tensor)


def test_names_and_shapes_of_external_initializers_are_found_and_no_others():
    found = external_weights(model([outside("a", 3, 400), inside("b"), outside("c")]))
    assert found == {"a": (3, 400), "c": ()}


def test_a_location_alone_makes_a_tensor_external():
    tensor = outside("a", 2)
    tensor.data_location = onnx.TensorProto.DEFAULT
    assert external_weights(model([tensor])) == {"a": (2,)}


def test_external_tensors_anywhere_else_are_refused():
    branch = onnx.helper.make_graph([constant(outside("deep", 2))], "b", [], [])
    branch_weights = onnx.helper.make_graph([], "b", [], [], initializer=[outside("deep", 2)])
    for nodes in (
        [constant(outside("c", 2))],
        [onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch)],
        [onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch_weights)],
        [onnx.helper.make_node("If", ["x"], ["y"], many=[branch])],
        [onnx.helper.make_node("Constant", [], ["c"], many=[inside("a"), outside("c", 2)])],
    ):
        with pytest.raises(ArtifactError, match="external"):
            external_weights(model(nodes=nodes))


def test_constants_inside_the_graph_are_fine():
    assert external_weights(model(nodes=[constant(inside("c"))])) == {}


def test_what_multipress_does_not_write_is_refused():
    sparse = onnx.SparseTensorProto(values=outside("s", 1))
    proto = onnx.load_from_string(model())
    proto.graph.sparse_initializer.append(sparse)
    function = onnx.helper.make_function("own", "f", ["x"], ["y"], [], [])
    for data in (
        proto.SerializeToString(),
        model(nodes=[onnx.helper.make_node("Constant", [], ["c"], sparse_value=sparse)]),
        model(nodes=[onnx.helper.make_node("Anything", [], ["c"], domain="com.example")]),
        model(functions=[function]),
        model([outside("a", 2), outside("a", 3)]),
    ):
        with pytest.raises(ArtifactError):
            external_weights(data)


def test_a_graph_that_comes_in_two_parts_is_read_whole():
    # Protobuf merges a field that is there twice, so both parts count.
    assert external_weights(model([outside("a", 1)]) + model([outside("b", 2)])) == {"a": (1,), "b": (2,)}


def test_endless_nesting_is_refused():
    graph = onnx.helper.make_graph([], "b", [], [])
    for _ in range(30):
        graph = onnx.helper.make_graph([onnx.helper.make_node("If", ["x"], ["y"], then_branch=graph)], "b", [], [])
    with pytest.raises(ArtifactError, match="deep"):
        external_weights(onnx.helper.make_model(graph).SerializeToString())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 200))
def test_damaged_bytes_do_nothing_worse_than_an_artifact_error(data, position):
    whole = model([outside("a", 3, 400)], [constant(inside("c"))])
    for damaged in (data, whole[:position], whole[:position] + data + whole[position:]):
        with contextlib.suppress(ArtifactError):
            external_weights(damaged)
