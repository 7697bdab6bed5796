"""A model of any family: built from its tensors, its parts by name, a shortcut for a classifier's last block."""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from multipress.artifact import max_tokens
from multipress.models.families import family_of
from multipress.models.structure import narrow
from multipress.models.translation import build_translator, empty_translator
from multipress.precision import device
from multipress.runtime.tokenizer import Encoding, pad_batch

__all__ = [
    "build_classifier",
    "drop_positions",
    "encoder_linears",
    "expected_shapes",
    "model_batch",
    "model_inputs",
    "read_first_token_only",
    "reader_inputs",
    "spread_blocks",
]


def expected_shapes(
    config: PreTrainedConfig, block_shapes: list[tuple[int, int]] | None = None
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a model with this config, tied ones once; nothing is allocated.

    Args:
        config: Its config.
        block_shapes: Heads and neurons of each block, where some were taken out.
    """
    family = family_of(config)
    if family.writes:
        model: nn.Module = empty_translator(config)
    else:
        with torch.device("meta"):
            model = family.classifier(config)
    if block_shapes is not None:
        narrow(model, block_shapes)
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in family.tied}


def build_classifier(
    config: PreTrainedConfig, weights: dict[str, Tensor], block_shapes: list[tuple[int, int]] | None = None
) -> PreTrainedModel:
    """A classifier, or translator, that holds these very tensors; nothing is drawn or copied.

    Args:
        config: Its config.
        weights: All tensors of `expected_shapes(config, block_shapes)`, float32.
        block_shapes: Heads and neurons of each block, where some were taken out.
    """
    family = family_of(config)
    if family.writes:
        return build_translator(config, weights)
    with torch.device("meta"):
        model = family.classifier(config)
    if block_shapes is not None:
        narrow(model, block_shapes)
    model.load_state_dict(weights, strict=True, assign=True)
    encoder = family.encoder(model)
    # What is computed, not learned, is in no file.
    positions = torch.arange(config.max_position_embeddings)[None]  # (1, T)
    for name, value in (("position_ids", positions), ("token_type_ids", torch.zeros_like(positions))):
        if hasattr(encoder.embeddings, name):
            setattr(encoder.embeddings, name, value)
    if hasattr(encoder, "rotary_emb"):
        encoder.rotary_emb = type(encoder.rotary_emb)(config)
    return model


def drop_positions(model: PreTrainedModel, max_length: int) -> PreTrainedModel:
    """Take away the learned positions that rows of at most `max_length` tokens never reach; changes and returns it.

    What a model has not is left as it is: ModernBERT computes its positions. How many weights are gone is added to
    `model.num_dropped`.
    """
    config: Any = model.config
    if not family_of(config).learned_positions:
        return model
    own = max_tokens(config.to_dict())
    embeddings = family_of(config).encoder(model).embeddings
    table = getattr(embeddings, "position_embeddings", None)
    if own is None or own <= max_length or not isinstance(table, nn.Embedding):
        return model
    rows = config.max_position_embeddings - (own - max_length)
    model.num_dropped = getattr(model, "num_dropped", 0) + (len(table.weight) - rows) * table.embedding_dim
    table.weight = nn.Parameter(table.weight.detach()[:rows].clone())
    table.num_embeddings = config.max_position_embeddings = rows
    for name in ("position_ids", "token_type_ids"):
        if hasattr(embeddings, name):
            setattr(embeddings, name, getattr(embeddings, name)[:, :rows])
    return model


def model_batch(rows: Sequence[Encoding], pad_id: int) -> dict[str, Tensor]:
    """Rows as tensors on the device: `input_ids`, `token_type_ids` (B, T), and the additive `attention_mask`.

    The mask is (B, 1, 1, T), 0 where there is a token: transformers takes a ready one with 4 axes as it is.
    """
    tensors = {key: torch.from_numpy(value) for key, value in pad_batch(rows, pad_id).items()}
    hidden = (1 - tensors.pop("attention_mask")[:, None, None, :]).to(torch.float32)
    tensors["attention_mask"] = hidden * torch.finfo(torch.float32).min
    return {key: value.to(device()) for key, value in tensors.items()}


def model_inputs(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a model takes of a batch.

    Args:
        model: A model of a known family.
        batch: `input_ids` and `token_type_ids` (B, T), and the additive `attention_mask` (B, 1, 1, T); for a
            translator `decoder_input_ids` (B, S).
    """
    family = family_of(model)
    inputs = {name: batch[name] for name in family.inputs}
    if family.plain_mask:
        inputs["attention_mask"] = (batch["attention_mask"][:, 0, 0] == 0).long()
    return inputs


def reader_inputs(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the encoder alone takes of a batch (`Family.reader`); of a classifier, what the whole model takes."""
    if family_of(model).writes:
        return {name: batch[name] for name in ("input_ids", "attention_mask")}
    return model_inputs(model, batch)


def spread_blocks(count: int, of: int) -> list[int]:
    """`count` of so many blocks, counted from 1: spread evenly, the last one always; 4 of 6 are 2, 3, 4, 6."""
    return [max(1, round(block * of / count)) for block in range(1, count + 1)]


def encoder_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of all blocks by name: attention and feed-forward, not pooler, head or output."""
    blocks = family_of(model).all_blocks(model)
    inside = {module for block in blocks for module in block.modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in model.named_modules() if module in inside}  # type: ignore[misc]


def read_first_token_only(model: PreTrainedModel) -> PreTrainedModel:
    """Changes `model` so that its last block computes the first token alone, where the family allows; returns it.

    The head reads the first token only, so the queries, the output projection and the feed-forward network of
    all other tokens in the last block are never used. Logits and gradients stay the same up to the order of
    additions; 5/6 of the last block's linear work is saved. Hidden states of the last block then have shape
    (B, 1, D).
    """
    family = family_of(model)
    if family.has_first_token:
        layer = family.block_list(model)[-1]
        layer.forward = MethodType(_first_token_forward, layer)  # type: ignore[assignment]
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
