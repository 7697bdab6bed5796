"""The graph: same numbers as torch for any batch and length, weights outside, nothing else in it."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from multipress.models.graph import trace_graph
from multipress.runtime.graph_file import external_weights


def batch(rows: int, tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random ids with padding of random length on the right of every row but the first."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, tokens, dtype=torch.int64)
    for row in range(1, rows):
        mask[row, int(torch.randint(1, tokens + 1, (1,), generator=generator)) :] = 0
    ids = torch.randint(1, 64, (rows, tokens), generator=generator) * mask
    types = torch.randint(0, 2, (rows, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def run(graph: bytes, model: nn.Module, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    weights = {name: weight.detach().numpy() for name, weight in model.named_parameters(remove_duplicate=False)}
    options = onnxruntime.SessionOptions()
    names = list(external_weights(graph))
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(weights[name]) for name in names]
    options.add_external_initializers(names, values)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})[0]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_are_those_of_torch_for_any_batch_and_length(tiny_bert, attention):
    model = tiny_bert()
    model.config._attn_implementation = attention
    graph = trace_graph(model)
    for rows, tokens in ((1, 1), (1, 24), (2, 8), (5, 11), (7, 3)):
        inputs = batch(rows, tokens)
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
        assert np.abs(run(graph, model, inputs) - expected).max() < 1e-4
        assert np.abs(expected).max() > 0.1


def test_the_graph_depends_on_the_shape_of_the_model_alone(tiny_bert):
    first, second = tiny_bert(seed=0), tiny_bert(seed=1)
    with torch.no_grad():
        second.bert.pooler.dense.bias.zero_()
        second.bert.encoder.layer[0].output.dense.bias.zero_()
    assert trace_graph(first) == trace_graph(second)
    assert trace_graph(first) != trace_graph(tiny_bert(num_labels=4))


def test_the_model_is_not_changed(tiny_bert):
    model = tiny_bert().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace_graph(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_weight_is_external_and_named_as_in_the_model(tiny_bert):
    model = tiny_bert()
    graph = trace_graph(model)
    assert external_weights(graph) == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert len(graph) < 100_000
    proto = onnx.load_from_string(graph)
    assert [value.name for value in proto.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert not any(node.doc_string for node in proto.graph.node)


def test_a_tied_weight_bears_one_of_its_names(tiny_bert):
    model = tiny_bert()
    first, second = model.bert.encoder.layer
    second.intermediate.dense.weight = first.intermediate.dense.weight
    graph = trace_graph(model)
    tied = {f"bert.encoder.layer.{layer}.intermediate.dense.weight" for layer in (0, 1)}
    assert len(tied & set(external_weights(graph))) == 1
    inputs = batch(3, 9)
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    assert np.abs(run(graph, model, inputs) - expected).max() < 1e-4
