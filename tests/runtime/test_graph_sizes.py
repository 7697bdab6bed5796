"""Sizes are those that ONNX Runtime finds, and a graph that would take too much is refused unopened."""

import json
import subprocess
import sys

import numpy as np
import pytest

from multipress.errors import ArtifactError
from multipress.runtime import graph_sizes
from multipress.runtime.graph_file import read_graph
from multipress.runtime.graph_sizes import OPERATORS, check_sizes
from tiny import family_config

onnx = pytest.importorskip("onnx")
make = onnx.helper.make_node
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")


def numbers(name: str, values: object, dtype: str = "int64"):
    return make("Constant", [], [name], value=onnx.numpy_helper.from_array(np.array(values, dtype=dtype)))


def graph(nodes, inputs=("batch", "tokens"), outputs=("batch", 3), weights=()) -> bytes:
    """A graph of these nodes, whose logits are made from the input as far as the nodes do not make them."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    given = [onnx.helper.make_tensor_value_info(name, 7, inputs) for name in names]
    nodes = list(nodes)
    if not any("logits" in node.output for node in nodes):
        nodes += [
            numbers("three", [0, 0, 0]), numbers("one", [1]),
            make("ReduceMax", ["input_ids"], ["longest"], axes=[1], keepdims=1),
            make("Concat", ["longest", "longest", "longest"], ["whole"], axis=1),
            make("Cast", ["whole"], ["logits"], to=1),
        ]  # fmt: skip
    given_out = onnx.helper.make_tensor_value_info("logits", 1, outputs)
    body = onnx.helper.make_graph(nodes, "g", given, [given_out], initializer=weights)
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(body, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.fixture(scope="module")
def traced():
    """Graphs of every kind that multipress writes, each with the model it is of."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from multipress.methods.quantization import quantize_activations
    from multipress.models import read_first_token_only
    from multipress.models.families import FAMILIES
    from multipress.models.graph import trace_graph

    found = []
    kinds = [("eager", "gelu", first, bits, 3) for first in (False, True) for bits in (0, 8)]
    kinds += [("sdpa", "gelu", False, 0, 3), ("sdpa", "gelu", True, 8, 1)]
    kinds += [("eager", activation, True, 8, 1) for activation in ACTIVATIONS]
    for attention, activation, first, bits, labels in kinds:
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=24, num_labels=labels, hidden_act=activation, attn_implementation=attention,
        )  # fmt: skip
        model = BertForSequenceClassification(config).eval()
        if first:
            model = read_first_token_only(model)
        if bits:
            model = quantize_activations(model, bits)
        found.append((model, trace_graph(model)))
    for name, family in FAMILIES.items():
        model = family.classifier(family_config(name, 59, num_labels=3)).eval()
        found.append((model, trace_graph(model)))
    return found


def test_every_kind_of_graph_that_is_written_passes_and_every_known_operator_is_written(traced):
    written = set()
    for _, data in traced:
        read = read_graph(data)
        check_sizes(read, 32, 24)
        written |= {node.operator for node in read.nodes}
    assert written == set(OPERATORS)


@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (3, 7)])
def test_every_size_is_the_one_that_onnx_runtime_computes(traced, rows, tokens):
    import onnxruntime

    for model, data in traced:
        read = read_graph(data)
        proto = onnx.load_from_string(data)
        every = [name for node in read.nodes for name in node.outputs]
        names = [name for name in every if name != "logits"]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weights[name]) for name in read.weights]
        options.add_external_initializers(list(read.weights), values)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
        batch = {name: np.ones((rows, tokens), dtype=np.int64) for name in read.inputs}
        sizes = {name: output.size for name, output in zip(every, session.run(every, batch), strict=True)}
        expected = [sum(sizes[name] for name in node.outputs) for node in read.nodes]
        assert graph_sizes._output_sizes(read, rows, tokens) == expected


def hostile() -> dict[str, bytes]:
    """Graphs of a few hundred bytes that would take gigabytes, or for ever."""
    empty = onnx.helper.make_graph([], "body", [], [])
    big = numbers("big", [200_000_000])
    doubling = [numbers("v0", [1])] + [make("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(40)]
    squaring = [
        numbers("from", 0), numbers("to", 50_000), numbers("by", 1), numbers("axis", [0]), numbers("other", [1]),
        make("Range", ["from", "to", "by"], ["column"]),
        make("Unsqueeze", ["column", "axis"], ["a"]), make("Unsqueeze", ["column", "other"], ["b"]),
    ]  # fmt: skip
    rows_of_text = [
        numbers("zero", 0), make("Gather", ["input_ids", "zero"], ["row"], axis=0),
        make("Gather", ["row", "zero"], ["id"], axis=0), numbers("first", [0]),
        make("Unsqueeze", ["id", "first"], ["size"]),
    ]  # fmt: skip
    row = numbers("row", [[0]] * 400)
    weight = onnx.TensorProto(name="w", dims=[50_000, 1], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    return {
        "ConstantOfShape": graph([
            big, make("ConstantOfShape", ["big"], ["zeros"]), make("ReduceMax", ["zeros"], ["zero"], axes=[0]),
            numbers("three", [1, 3]), make("Expand", ["zero", "three"], ["wide"]),
            make("Cast", ["input_ids"], ["ids"], to=1), make("ReduceMax", ["ids"], ["longest"], axes=[1], keepdims=1),
            make("Add", ["wide", "longest"], ["logits"]),
        ]),
        "Expand": graph([big, numbers("x", 1), make("Expand", ["x", "big"], ["y"])]),
        "Range": graph([*squaring[:3], numbers("far", 10**9), make("Range", ["from", "far", "by"], ["y"])]),
        "many that are not large": graph(
            [numbers("n", [1 << 20]), *(make("ConstantOfShape", ["n"], [f"y{i}"]) for i in range(50))]
        ),
        "an outer sum": graph([*squaring, make("Add", ["a", "b"], ["y"])]),
        "an outer product": graph([*squaring, make("MatMul", ["b", "a"], ["y"])]),
        "an outer product of weights": graph(
            [make("Transpose", ["w"], ["t"], perm=[1, 0]), make("MatMul", ["w", "t"], ["y"])], weights=[weight]
        ),
        "doubling": graph(doubling),
        "gathering": graph(
            [row, numbers("g0", [1])] + [make("Gather", [f"g{i}", "row"], [f"g{i + 1}"], axis=i) for i in range(3)]
        ),
        "growing with the text": graph(
            [make("Shape", ["input_ids"], ["s"]), make("Concat", ["s"] * 4, ["four"], axis=0),
             make("ConstantOfShape", ["four"], ["y"])]
        ),
        "a size read from the text": graph([*rows_of_text, make("ConstantOfShape", ["size"], ["y"])]),
        "inputs of a stated size": graph([], inputs=(30_000, 30_000)),
        "an output of a stated size": graph([], outputs=(10**9, 3)),
        "an output of another size": graph([], outputs=("batch", 4)),
        "a size below zero": graph([numbers("n", [-1]), make("ConstantOfShape", ["n"], ["y"])]),
        "an unknown value": graph([make("Abs", ["nowhere"], ["y"])]),
        "one name twice": graph([make("Abs", ["input_ids"], ["y"]), make("Abs", ["input_ids"], ["y"])]),
        "a part of more than there is": graph(
            [numbers("n", [99, 1]), make("Split", ["input_ids", "n"], ["y", "z"], axis=1)]
        ),
        "parts of one name": graph([numbers("n", [1, 0]), make("Split", ["input_ids", "n"], ["y", "y"], axis=1)]),
        "an axis of many left out": graph([numbers("n", [1]), make("Squeeze", ["input_ids", "n"], ["y"])]),
        # What names no axes means all of them to ONNX Runtime.
        "no axes left out": graph([numbers("n", []), make("Squeeze", ["input_ids", "n"], ["y"])]),
        "a sum over no axes": graph([numbers("n", []), make("ReduceSum", ["input_ids", "n"], ["y"], keepdims=0)]),
        "the largest of no axes": graph([make("ReduceMax", ["input_ids"], ["y"])]),
        "a number with no positive": graph(
            [numbers("a", [-(2**63)]), numbers("b", [3]), make("Div", ["a", "b"], ["q"]),
             make("ConstantOfShape", ["q"], ["y"])]
        ),
        "a loop": graph([make("Loop", ["", ""], ["y"])]),
        "a loop with a body": graph([make("Loop", ["", ""], ["y"], body=empty)]),
        "a branch": graph([make("If", ["input_ids"], ["y"])]),
        "a scan": graph([make("Scan", ["input_ids"], ["y"])]),
        "an operator not written": graph([make("Tile", ["input_ids", "input_ids"], ["y"])]),
    }  # fmt: skip


# What the message says, where it is not that there would be too many numbers.
MESSAGES = {
    "a size read from the text": "depends on the text",
    "inputs of a stated size": "must take",
    "an output of a stated size": "must give logits",
    "an output of another size": "must give logits",
    "a size below zero": "no shape",
    "an unknown value": "nowhere",
    "one name twice": "1 with new names",
    "a part of more than there is": "are not 1",
    "parts of one name": "2 with new names",
    "an axis of many left out": "more than one",
    "no axes left out": "Squeeze gives cannot be known",
    "a sum over no axes": "ReduceSum gives cannot be known",
    "the largest of no axes": "ReduceMax gives cannot be known",
    "a number with no positive": "Div gives cannot be known",
    "a loop": "operator 'Loop'",
    "a loop with a body": "field 6",
    "a branch": "operator 'If'",
    "a scan": "operator 'Scan'",
    "an operator not written": "operator 'Tile'",
}


@pytest.mark.parametrize("what", hostile())
def test_a_graph_that_takes_too_much_is_refused(what):
    data = hostile()[what]
    with pytest.raises(ArtifactError, match=MESSAGES.get(what, r"makes [\d,]+ numbers")):
        check_sizes(read_graph(data), 32, 128)


def test_the_same_graph_without_anything_hostile_passes():
    check_sizes(read_graph(graph([])), 32, 128)


_CHILD = """
import json, resource, sys
import onnxruntime
from pathlib import Path
from multipress.errors import ArtifactError
from multipress.runtime import Predictor
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = used + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert resource.getrlimit(resource.RLIMIT_AS) == (limit, limit)
said = []
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
batch = {name: [[1]] for name in ("input_ids", "attention_mask", "token_type_ids")}
run_unchecked = lambda: onnxruntime.InferenceSession(Path(sys.argv[2]).read_bytes(), options).run(None, batch)
for act in (lambda: bytearray(400 << 20), run_unchecked, lambda: Predictor(sys.argv[1])):
    try:
        act()
        said.append("nothing")
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
print(json.dumps(said))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited and read as Linux does it")
def test_opening_a_hostile_artifact_stays_within_256_mib(write_tiny, tmp_path):
    from multipress.artifact import write_artifact

    sound = write_tiny(tmp_path / "sound")
    data = hostile()["ConstantOfShape"]
    parts = {"tensors": sound.tensors(), "aliases": {}, "config": sound.config, "facts": sound.facts}
    write_artifact(tmp_path / "bomb", tokenizer_json=sound.tokenizer_json(), graph=data, **parts)
    (tmp_path / "graph.onnx").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, tmp_path / "bomb", tmp_path / "graph.onnx"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    limited, unchecked, checked = json.loads(done.stdout)
    assert limited.startswith("MemoryError")
    assert "Failed to allocate" in unchecked  # the graph does what it is feared to do
    assert checked.startswith("ArtifactError: The graph makes")
