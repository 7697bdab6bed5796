"""The ONNX graph of a model, without its weights: what a runtime needs beside the stored tensors."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from multipress.artifact import max_tokens
from multipress.errors import MissingExtraError
from multipress.models.encoder import read_first_token_only
from multipress.models.families import family_of

__all__ = ["INPUT_SCALE", "trace_graph"]

INPUT_SCALE = "input_scale"  # the buffer of a layer whose input is rounded with one scale

# The first opset with LayerNormalization as one operator.
_OPSET = 17


def trace_graph(model: nn.Module) -> bytes:
    """Trace an encoder with a head as an ONNX model whose weights are external.

    The last block computes the first token alone where the head reads no other.

    Inputs: `input_ids`, `attention_mask` and, if the family has them, `token_type_ids`, int64 (B, T). Output:
    `logits`, float32 (B, C).
    B and T are free. Each weight is an initializer named as in `model.state_dict()`, a tied one by one of its
    names. The bytes depend on the model's shape alone, not on its weights, but for the scales of static activations.

    Args:
        model: A classifier of a known family. It is not changed.

    Raises:
        MissingExtraError: the `onnx` library is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError('A graph needs the onnx library: pip install "multipress[train]".') from None
    scales = {name: value.cpu() for name, value in model.named_buffers() if name.endswith(f".{INPUT_SCALE}")}
    model = _distinct(copy.deepcopy(model).float().cpu()).eval()
    for module in model.modules():
        if hasattr(module, INPUT_SCALE):
            # The exporter names what is in a `state_dict` only.
            module.register_buffer(INPUT_SCALE, module.get_buffer(INPUT_SCALE))
    _read_plain_mask(read_first_token_only(model))
    proto = onnx.load_from_string(_export(model))
    onnx.checker.check_model(proto)
    _in_order(proto.graph)
    num_inputs = len(family_of(model).inputs)
    weights = list(proto.graph.input)[num_inputs:]
    del proto.graph.input[num_inputs:]
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = dict(model.named_buffers()) | scales
    for value in weights:
        if value.name in names:
            proto.graph.initializer.append(_external(value))
        else:
            array = buffers[value.name].numpy()
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    return bytes(proto.SerializeToString(deterministic=True))


def _distinct(model: nn.Module) -> nn.Module:
    """Overwrite each weight, and each scale of activations, in place with a number of its own; return the model.

    The exporter merges weights of equal value (all biases of a new model, say) under one name.
    """
    with torch.no_grad():
        scales = [value for name, value in model.named_buffers() if name.endswith(f".{INPUT_SCALE}") and value > 0]
        for index, value in enumerate([*model.parameters(), *scales]):
            value.fill_((index + 1) / 1024)
    return model


def _read_plain_mask(model: nn.Module) -> nn.Module:
    """Changes `model` to make of a mask (B, T) what its blocks add, in four operators and not in fifty; returns it."""
    if family_of(model).plain_mask:
        return model
    forward = model.forward

    def with_mask(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        hidden = (1 - attention_mask[:, None, None, :]).to(torch.float32)  # (B, 1, 1, T)
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return forward(input_ids, hidden * torch.finfo(torch.float32).min, **types)

    model.forward = with_mask
    return model


def _export(model: nn.Module) -> bytes:
    """The ONNX model with every weight as a further input."""
    inputs = family_of(model).inputs
    length = min(8, max_tokens(model.config.to_dict()) or 8)  # type: ignore[operator, union-attr]
    example = {name: torch.ones(2, length, dtype=torch.int64) for name in inputs}
    free = {name: {0: "batch", 1: "tokens"} for name in inputs} | {"logits": {0: "batch"}}
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter by tracing is deprecated, but graphs of the new one break when they are quantized.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (),
            file,
            kwargs=example,
            export_params=False,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_axes=free,
            opset_version=_OPSET,
            do_constant_folding=False,
            dynamo=False,
        )
    return file.getvalue()


def _in_order(graph: Any) -> None:
    """Sort the operators as the output needs them, and number what they give.

    In what order the exporter meets them may differ from one process to the next (transformers loops over a set).
    """
    nodes = list(graph.node)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output}
    ordered: dict[int, None] = {}  # in the order of insertion
    left = [(makers[value.name], False) for value in reversed(graph.output)]
    while left:
        index, is_ready = left.pop()
        if index in ordered:
            continue
        if is_ready:
            ordered[index] = None
            continue
        left.append((index, True))
        left += [(makers[name], False) for name in reversed(nodes[index].input) if name in makers]
    last = {value.name for value in graph.output}
    given = (name for index in ordered for name in nodes[index].output if name not in last)
    names = {name: f"v{number}" for number, name in enumerate(given)}
    copies = [copy.deepcopy(nodes[index]) for index in ordered]
    for number, node in enumerate(copies):
        node.name, node.doc_string = f"n{number}", ""
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    del graph.node[:]
    graph.node.extend(copies)


def _external(value: Any) -> Any:
    """The initializer that stands for an input: its data lie elsewhere, a runtime is given them by name."""
    from onnx import TensorProto

    kind = value.type.tensor_type
    tensor = TensorProto(name=value.name, data_type=kind.elem_type, data_location=TensorProto.EXTERNAL)
    tensor.dims.extend(dim.dim_value for dim in kind.shape.dim)
    num_bytes = 4
    for size in tensor.dims:
        num_bytes *= size
    for key, place in (("location", "model.safetensors"), ("offset", "0"), ("length", str(num_bytes))):
        tensor.external_data.add(key=key, value=place)
    return tensor
