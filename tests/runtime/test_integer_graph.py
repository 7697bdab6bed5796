"""Linear layers in integers: the stored codes, one scale a token, no sum cut off, nothing that depends on the batch."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from multipress import speed_ahead
from multipress.artifact import StoredTensor, round_floats
from multipress.methods.quantization import quantize_activations
from multipress.methods.quantization.activations import round_by_layer
from multipress.models.families import FAMILIES
from multipress.models.graph import trace_graph
from multipress.reproducibility import computer
from multipress.runtime import Encoding, Predictor, pad_batch, predictor, products
from multipress.runtime import integer_graph as module
from multipress.runtime.graph_file import Graph, Node, read_graph
from multipress.runtime.graph_writer import PRODUCT, write_graph
from multipress.runtime.integer_graph import (
    REDUCED_RANGE,
    float_graph,
    integer_graph,
    round_rows,
    stored_graph,
    unrounded_graph,
)
from multipress.runtime.products import has_exact_products
from multipress.runtime.session import OnnxSession
from tiny import bert_config, family_config


def stored(model: nn.Module, bits: int, one_step: bool = False) -> dict[str, StoredTensor]:
    """The model's weights, matrices as codes; the model is changed to hold just these."""
    limit = 2 ** (bits - 1) - 1
    tensors = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        weight = parameter.detach().numpy()
        tensor = round_floats(weight)
        if bits <= 8 and weight.ndim == 2:
            largest = np.abs(weight).max(axis=None if one_step else 1).reshape(-1)
            scale = (largest / limit).astype(np.float16)
            codes = np.clip(np.rint(weight / scale.astype(np.float32)[:, None]), -limit, limit)
            tensor = StoredTensor(codes.astype(np.int8), scale, bits)
        tensors[name] = tensor
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(tensor.dense()))
    return tensors


def rows(count: int = 5, seed: int = 0) -> list[Encoding]:
    random = np.random.default_rng(seed)
    lengths = [1, *random.integers(2, 12, size=count - 1)]
    return [Encoding(random.integers(5, 64, size=length).tolist(), [0] * length) for length in lengths]


def family(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = FAMILIES[name].classifier(family_config(name, 59, num_labels=3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def near(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal but where a number that lies between two integers was rounded to the other one: in a few rows, a little."""
    difference = np.abs(found - expected).max(axis=1)
    return np.mean(difference < 1e-4) >= 0.75 and difference.max() < 0.02 * np.abs(expected).max() > 0.002


def torch_logits(model: nn.Module, encodings: list[Encoding]) -> np.ndarray:
    """One row at a time, no padding: the slow reference."""
    found = []
    for row in encodings:
        inputs = {"input_ids": torch.tensor([row.ids])}
        with torch.no_grad():
            found.append(model(**inputs).logits.numpy())
    return np.concatenate(found)


@pytest.mark.parametrize("bits", [16, 8, 4, 2])
@pytest.mark.parametrize("one_step", [False, True])
def test_logits_are_those_of_a_model_whose_linear_inputs_are_rounded(tiny_bert, bits, one_step):
    model = tiny_bert()
    tensors = stored(model, bits, one_step)
    session = OnnxSession(write_graph(integer_graph(read_graph(trace_graph(model)), tensors)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and bits == 16 and name != "classifier.weight":
                codes, scale = round_rows(tensors[name], 127)
                parameter.copy_(torch.from_numpy(codes * scale[:, None]))
    last = model.classifier
    model.classifier = nn.Identity()  # it stays in floats
    quantize_activations(model, 8)
    model.classifier = last
    assert near(session.run(pad_batch(rows(20), 0)), torch_logits(model, rows(20)))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_is_written_and_neither_batch_nor_padding_changes_a_row(name):
    model = family(name)
    tensors = stored(model, 8)
    graph = read_graph(trace_graph(model))
    encodings = rows(9)
    data = write_graph(integer_graph(graph, tensors))
    onnx.checker.check_model(data, full_check=True)
    session = OnnxSession(data)
    together = session.run(pad_batch(encodings, 0, multiple=4))
    alone = np.concatenate([session.run(pad_batch([row], 0, multiple=4)) for row in encodings])
    assert np.abs(together - alone).max() < 1e-4
    expected = torch_logits(model, encodings)
    assert np.abs(OnnxSession(write_graph(float_graph(graph, {n: t.dense() for n, t in tensors.items()}))).run(
        pad_batch(encodings, 0)) - expected).max() < 1e-4  # fmt: skip
    assert np.abs(OnnxSession(write_graph(stored_graph(graph, tensors))).run(
        pad_batch(encodings, 0)) - expected).max() < 1e-4  # fmt: skip
    assert 0 < np.abs(together - expected).max() < 0.1 * np.abs(expected).max()


def test_codes_with_a_scale_a_group_are_rounded_again_wherever_integers_are_asked_for(tiny_bert):
    """In a graph of codes (OpenVINO's) and in one that computes with them; a table of words without floats outside."""
    model = tiny_bert()
    tensors = {}
    for name, one in stored(model, 8).items():
        grouped = one.scale is not None and name != "classifier.weight"
        scale = np.repeat(one.scale[:, None], 2, axis=1) * np.float16([1, 0.5]) if grouped else one.scale
        tensors[name] = StoredTensor(one.values, scale, one.bits)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(tensors[name].dense()))
    expected, graph = torch_logits(model, rows(9)), read_graph(trace_graph(model))
    batch = pad_batch(rows(9), 0)
    coded = sum(tensors[name].scale is not None for name in graph.weights)
    of_codes = stored_graph(graph, tensors)
    assert sum(node.operator == "DequantizeLinear" for node in of_codes.nodes) == coded
    for found in (of_codes, integer_graph(graph, tensors)):
        logits = OnnxSession(write_graph(found)).run(batch)
        assert 0 < np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()
    exact = {name: tensor.dense() for name, tensor in tensors.items()}
    assert np.abs(OnnxSession(write_graph(float_graph(graph, exact))).run(batch) - expected).max() < 1e-4


def test_a_training_with_rounded_activations_gives_the_same_integers(tiny_bert):
    model = quantize_activations(tiny_bert(), 8)
    tensors = stored(model, 4)
    graph = read_graph(trace_graph(model))
    whole = integer_graph(graph, tensors)
    assert near(OnnxSession(write_graph(whole)).run(pad_batch(rows(20), 0)), torch_logits(model, rows(20)))
    # What the training rounded is not rounded twice: one Round is left, that before the layer of the logits.
    assert sum(node.operator == "Round" for node in whole.nodes) == 1


@pytest.mark.parametrize("is_static", [False, True])
def test_what_a_training_rounded_is_taken_away_for_what_rounds_by_itself(tiny_bert, is_static):
    plain = tiny_bert()
    tensors = {name: tensor.dense() for name, tensor in stored(plain, 16).items()}
    model = with_scales(tiny_bert()) if is_static else quantize_activations(tiny_bert(), 8)
    graph = unrounded_graph(read_graph(trace_graph(model)))
    assert not {node.operator for node in graph.nodes} & {"Round", "Clip", "ReduceMax"}
    found = OnnxSession(write_graph(float_graph(graph, tensors))).run(pad_batch(rows(9), 0))
    assert np.abs(found - torch_logits(plain, rows(9))).max() < 1e-5


def with_scales(model: nn.Module) -> nn.Module:
    """The model with scales of activations of a batch, of which the largest numbers are a little cut off."""
    round_by_layer(model, 8).train()
    model(torch.randint(5, 59, (4, 8)))
    for part in model.modules():
        if hasattr(part, "input_scale"):
            part.input_scale.mul_(0.9)
    return model.eval()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_scales_that_the_training_fixed_are_those_of_the_integers(name):
    """Of every family: ours for this processor, as it is stored, and the floats of the artifact's own graph."""
    model = with_scales(family(name))
    tensors = stored(model, 8)
    graph = read_graph(trace_graph(model))
    batch, expected = pad_batch(rows(20), 0, multiple=4), torch_logits(model, rows(20))
    dense = {name: tensor.dense() for name, tensor in tensors.items()}
    assert near(OnnxSession(write_graph(float_graph(graph, dense))).run(batch), expected)
    portable, here = integer_graph(graph, tensors), integer_graph(graph, tensors, only_here=True)
    onnx.checker.check_model(write_graph(portable), full_check=True)
    found = [OnnxSession(write_graph(one)).run(batch) for one in (portable, here)]
    assert np.abs(found[0] - found[1]).max() < 1e-5
    assert near(found[0], expected)
    # No scale is computed; what the training rounded is not rounded twice; one product with its bias a layer.
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    del linear[FAMILIES[name].output]
    for one in (portable, here):
        assert not {node.operator for node in one.nodes} & {"ReduceMax"}
        assert sum(node.operator == "Round" for node in one.nodes) == 1
    products = [node for node in here.nodes if node.operator == PRODUCT]
    assert {node.inputs[1] for node in products} == {f"{name}.weight.codes" for name in linear}
    biases = {f"{name}.bias" for name, part in linear.items() if part.bias is not None}
    assert {name for node in products for name in node.inputs[6:]} == biases


@pytest.mark.parametrize("second", ["product", "bias"])
def test_what_is_added_to_a_layer_is_its_bias_only_where_it_has_its_width(second):
    """Twice the product itself, or one number for all: both stay an `Add` of their own."""
    nodes = [
        Node("Div", ["x", "step"], ["ratio"], {}),
        Node("Round", ["ratio"], ["round"], {}),
        Node("Mul", ["round", "step"], ["rounded"], {}),
        Node("Transpose", ["weight"], ["turned"], {"perm": [1, 0]}),
        Node("MatMul", ["rounded", "turned"], ["product"], {}),
        Node("Add", ["product", second], ["logits"], {}),
    ]
    codes = np.array([[1, 2, -3], [4, -5, 6]], dtype=np.int8)
    tensors = {"weight": StoredTensor(codes, np.ones(2, dtype=np.float16), 8), "bias": round_floats(np.float32([7]))}
    inputs, outputs = {"tokens": ("rows", 3)}, {"logits": ("rows", 2)}
    nodes = [Node("Cast", ["tokens"], ["x"], {"to": 1}), *nodes]
    graph = Graph({"weight": (2, 3), "bias": (1,)}, {"step": np.float32(0.5)}, inputs, outputs, nodes)
    for only_here in (False, True):
        session = OnnxSession(write_graph(integer_graph(graph, tensors, only_here=only_here)))
        tokens = np.array([[1, 2, 3], [-4, 0, 5]], dtype=np.int64)
        product = (tokens @ codes.T).astype(np.float32)
        assert np.array_equal(session.run({"tokens": tokens}), product + (product if second == "product" else 7))


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("one_step", [False, True])
def test_the_graph_for_this_processor_gives_the_same_numbers_bit_for_bit(tiny_bert, monkeypatch, is_exact, one_step):
    """Where products of signed codes are said to be inexact, none of full range is signed."""
    if is_exact and not has_exact_products():
        pytest.skip("this processor cuts off sums of 8-bit products")
    monkeypatch.setattr(module, "has_exact_products", lambda: is_exact)
    model = tiny_bert()
    tensors, graph = stored(model, 8, one_step), read_graph(trace_graph(model))
    portable, here = integer_graph(graph, tensors), integer_graph(graph, tensors, only_here=True)
    kinds = {array.dtype.name for name, array in here.constants.items() if name.endswith(".codes")}
    assert kinds == {"int8" if is_exact else "uint8"}
    assert {node.operator for node in here.nodes} - {node.operator for node in portable.nodes} == {PRODUCT}
    for encodings in (rows(20), rows(1)):
        batch = pad_batch(encodings, 0)
        found = [OnnxSession(write_graph(one)).run(batch) for one in (portable, here)]
        assert np.array_equal(*found)


def test_a_predictor_of_integers_and_the_table_of_speeds_are_for_this_processor(write_tiny, tmp_path, monkeypatch):
    """The numbers are those of the portable graph, so that only the graph tells."""
    seen = []

    def noted(graph, *others, **named):
        seen.append({node.operator for node in graph.nodes})
        return write_graph(graph, *others, **named)

    monkeypatch.setattr(predictor, "write_graph", noted)
    monkeypatch.setattr(speed_ahead, "write_graph", noted)
    Predictor(write_tiny(tmp_path / "artifact"), precision="int8")
    assert PRODUCT in seen[-1]
    speed_ahead.encoder_milliseconds(bert_config(59), 16)
    assert PRODUCT in seen[-1]
    assert len(seen) == 2


def test_whether_products_are_exact_is_what_the_processor_says():
    """VNNI and ARM's products of four are; where a sum is cut off, the answer is no."""
    sets = set(computer()["instruction_sets"])
    if sets & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        assert has_exact_products()
    if sets and not sets & {"avx512_vnni", "avx_vnni", "amx_int8"} and "avx2" in sets:
        assert not has_exact_products()


def test_a_sum_that_is_cut_off_is_noticed(monkeypatch):
    class CutOff(OnnxSession):
        def run(self, batch):
            return np.clip(super().run(batch), -2_000_000, 2_000_000)

    monkeypatch.setattr(products, "OnnxSession", CutOff)
    assert not has_exact_products.__wrapped__()


def linear(codes: np.ndarray, largest_code: int = 127, only_here: bool = False) -> tuple[Graph, OnnxSession]:
    """A graph of one linear layer and the float layer of the logits, which passes everything on."""
    width, inner = codes.shape
    nodes = [
        Node("Transpose", ["w"], ["t"], {"perm": [1, 0]}),
        Node("MatMul", ["x", "t"], ["y"], {}),
        Node("Gemm", ["y", "v"], ["logits"], {"transB": 1}),
    ]
    shapes = {"w": codes.shape, "v": (width, width)}
    graph = Graph(shapes, {}, {"x": ("batch", inner)}, {"logits": ("batch", width)}, nodes)
    scale = np.ones(width, dtype=np.float16)
    tensors = {"w": StoredTensor(codes, scale, 8), "v": round_floats(np.eye(width))}
    whole = integer_graph(graph, tensors, largest_code, only_here=only_here)
    # This graph reads floats, not token ids.
    data = onnx.load_from_string(write_graph(whole))
    data.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return whole, OnnxSession(data.SerializeToString())


@pytest.mark.parametrize("only_here", [False, True])
@pytest.mark.parametrize("largest", [127, 63])
def test_the_largest_sums_are_exact_whatever_the_instruction_set(largest, only_here):
    """All products of one sign: where sums of pairs are kept in 16 bits, they would be cut off."""
    codes = np.full((8, 64), largest, dtype=np.int8)
    codes[1] = -largest
    whole, session = linear(codes, only_here=only_here)
    values = np.full((3, 64), 2.0, dtype=np.float32)
    values[1] *= -1
    expected = values.astype(np.float64) @ codes.T.astype(np.float64)
    assert np.allclose(session.run({"x": values}), expected, rtol=1e-6)
    kind = np.int8 if largest <= REDUCED_RANGE or (only_here and has_exact_products()) else np.uint8
    assert whole.constants["w.codes"].dtype == kind


def test_the_reduced_range_rounds_large_codes_once_more_and_leaves_small_ones():
    codes = np.random.default_rng(0).integers(-127, 128, size=(8, 64)).astype(np.int8)
    whole, _ = linear(codes, REDUCED_RANGE)
    found, scale = whole.constants["w.codes"].T, whole.constants["w.scale"]
    assert found.dtype == np.int8
    assert np.abs(found).max() == REDUCED_RANGE
    assert np.abs(found * scale[:, None] - codes).max() <= 0.5 * scale.max() * 1.001
    small, _ = linear((codes // 4).astype(np.int8), REDUCED_RANGE)
    assert np.array_equal(small.constants["w.codes"].T, codes // 4)


def test_a_row_of_zeros_is_no_division_by_zero():
    _, session = linear(np.zeros((8, 64), dtype=np.int8))
    assert not session.run({"x": np.zeros((2, 64), dtype=np.float32)}).any()


def test_a_graph_that_is_written_is_read_back_the_same(tiny_bert):
    model = tiny_bert()
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    whole = float_graph(read_graph(trace_graph(model)), weights)
    data = write_graph(whole)
    onnx.checker.check_model(data, full_check=True)
    found = read_graph(data)
    assert (found.inputs, found.outputs, found.weights) == (whole.inputs, whole.outputs, {})
    assert found.constants.keys() == whole.constants.keys()
    assert all(np.array_equal(found.constants[name], array) for name, array in whole.constants.items())
    assert [node[:3] for node in found.nodes] == [node[:3] for node in whole.nodes]
    for one, other in zip(found.nodes, whole.nodes, strict=True):
        assert one.attributes.keys() == other.attributes.keys()
        assert all(np.array_equal(one.attributes[key], value) for key, value in other.attributes.items())
