"""BERT: its config from an allow-list, its tensors by name, and a shortcut for its last block."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from multipress.errors import ModelError

__all__ = [
    "bert_config",
    "build_classifier",
    "encoder_linears",
    "expected_shapes",
    "hidden_layers",
    "read_first_token_only",
    "spread_blocks",
]

# Largest value accepted of each size, well above BERT-large, so that a hostile config allocates nothing.
SIZE_LIMITS = {
    "vocab_size": 1_000_000,
    "hidden_size": 8192,
    "num_hidden_layers": 96,
    "num_attention_heads": 128,
    "intermediate_size": 65536,
    "max_position_embeddings": 65536,
    "type_vocab_size": 64,
}
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")


def bert_config(values: dict[str, Any], where: str) -> BertConfig:
    """The config of a BERT encoder, read from an allow-list of keys.

    Args:
        values: What `config.json` holds.
        where: Name of the model for messages.

    Raises:
        ModelError: another model type, code of its own, a decoder, or a size that is missing or out of range.
    """
    if values.get("model_type") != "bert":
        raise ModelError(f"{where}: model_type is {values.get('model_type')!r}; BERT encoders ('bert') are read.")
    if values.get("auto_map"):
        raise ModelError(f"{where}: its config names code of its own (auto_map). Code in model folders is never run.")
    if values.get("is_decoder") or values.get("add_cross_attention"):
        raise ModelError(f"{where}: it is a decoder; only encoders are read.")
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(f"{where}: position_embedding_type is {values['position_embedding_type']!r}, not 'absolute'.")
    sizes = {key: _size(values, key, limit, where) for key, limit in SIZE_LIMITS.items()}
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise ModelError(
            f"{where}: hidden_size {sizes['hidden_size']} is no multiple of "
            f"num_attention_heads {sizes['num_attention_heads']}."
        )
    activation = values.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise ModelError(f"{where}: hidden_act is {activation!r}; known are: {', '.join(ACTIVATIONS)}.")
    return BertConfig(
        **sizes,
        hidden_act=activation,
        layer_norm_eps=_small(values, "layer_norm_eps", 1e-12, where),
        initializer_range=_small(values, "initializer_range", 0.02, where),
        pad_token_id=_size(values, "pad_token_id", sizes["vocab_size"] - 1, where, low=0, default=0),
    )


def _size(values: dict[str, Any], key: str, limit: int, where: str, *, low: int = 1, default: int | None = None) -> int:
    value = values.get(key, default)
    if value is None:
        raise ModelError(f"{where}: its config has no {key}.")
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= limit:
        raise ModelError(f"{where}: {key} is {value!r}, but must be a whole number from {low} to {limit}.")
    return value


def _small(values: dict[str, Any], key: str, default: float, where: str) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ModelError(f"{where}: {key} is {value!r}, but must be a number from 0 to 1.")
    return float(value)


def expected_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a classifier with this config; nothing is allocated."""
    with torch.device("meta"):
        model = BertForSequenceClassification(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def build_classifier(config: BertConfig, weights: dict[str, Tensor]) -> BertForSequenceClassification:
    """A classifier that holds these very tensors; nothing is drawn or copied.

    Args:
        config: Its config.
        weights: All tensors of `expected_shapes(config)`, float32.
    """
    with torch.device("meta"):
        model = BertForSequenceClassification(config)
    model.load_state_dict(weights, strict=True, assign=True)
    embeddings = model.bert.embeddings
    embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]  # (1, T)
    embeddings.token_type_ids = torch.zeros_like(embeddings.position_ids)
    return model


def spread_blocks(count: int, of: int) -> list[int]:
    """`count` of so many blocks, counted from 1: spread evenly, the last one always; 4 of 6 are 2, 3, 4, 6."""
    return [max(1, round(block * of / count)) for block in range(1, count + 1)]


def hidden_layers(model: nn.Module) -> list[nn.Module]:
    """The modules whose outputs are the hidden states (B, T, D): the embeddings, then each block."""
    encoder: Any = model.bert
    return [encoder.embeddings, *encoder.encoder.layer]


def encoder_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the encoder's blocks by name: attention and feed-forward, not pooler or head."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".encoder.layer." in f".{name}"
    }


def read_first_token_only(model: BertForSequenceClassification) -> BertForSequenceClassification:
    """Changes `model` so that its last block computes the first token alone; returns it.

    The head reads the first token only, so the queries, the output projection and the feed-forward network of
    all other tokens in the last block are never used. Logits and gradients stay the same up to the order of
    additions; 5/6 of the last block's linear work is saved. Hidden states of the last block then have shape
    (B, 1, D).
    """
    layer = model.bert.encoder.layer[-1]
    layer.forward = MethodType(_first_token_forward, layer)
    return model


def _first_token_forward(
    layer: nn.Module, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    attention = layer.attention.self
    batch = hidden_states.shape[0]
    first = hidden_states[:, :1]  # (B, 1, D)
    head_shape = (batch, -1, attention.num_attention_heads, attention.attention_head_size)
    query = attention.query(first).view(head_shape).transpose(1, 2)  # (B, H, 1, D/H)
    key = attention.key(hidden_states).view(head_shape).transpose(1, 2)  # (B, H, T, D/H)
    value = attention.value(hidden_states).view(head_shape).transpose(1, 2)  # (B, H, T, D/H)
    scores = torch.matmul(query, key.transpose(2, 3)) * attention.scaling  # (B, H, 1, T)
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            lowest = torch.finfo(scores.dtype).min
            scores = scores.masked_fill(~attention_mask[:, :, :1], lowest)
        else:
            scores = scores + attention_mask[:, :, :1]
    weights = nn.functional.dropout(scores.softmax(-1), p=attention.dropout.p, training=layer.training)
    mixed = torch.matmul(weights, value).transpose(1, 2).reshape(batch, 1, -1)  # (B, 1, D)
    attended = layer.attention.output(mixed, first)
    return layer.feed_forward_chunk(attended)
