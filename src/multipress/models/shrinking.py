"""A smaller encoder out of a bigger one: fewer blocks, a narrower hidden state, fewer heads and neurons. No training.

The steps, front to back:

1. Blocks are chosen evenly, the last one always.
2. The hidden width falls by a principal component analysis of the bigger encoder's hidden states: the outputs of the
   embeddings and of the chosen blocks, each brought to the same scale, together. Its first components are the basis
   (D, d) of the smaller hidden state; every matrix that reads the hidden state is multiplied by it, every matrix that
   writes it by its transpose.
3. The heads kept are those whose product of output and value matrix is largest, the feed-forward neurons those whose
   product of in-going and out-going weights is.
4. LayerNorm does not commute with a projection, so its gain and bias are fitted: the least squares in each dimension
   from the smaller encoder's own normalized values to the bigger one's projected outputs, on calibration texts.

Training then recovers what is lost. Scores by norms stand for the scores by gradients of Michel et al. (2019); the
width by principal components is that of SliceGPT (Ashkboos et al. 2024), whose norm takes no mean off and so needs no
step 4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from multipress.errors import ModelError
from multipress.models.catalogue import Shape
from multipress.models.encoder import spread_blocks

__all__ = ["shrink"]


@torch.no_grad()
def shrink(
    model: BertForSequenceClassification, shape: Shape, batches: list[dict[str, Tensor]]
) -> tuple[BertForSequenceClassification, Tensor]:
    """Make a smaller encoder; `model` is not changed.

    Args:
        model: The bigger encoder, with any head, in evaluation mode.
        shape: What to make; nothing may be larger than in `model`.
        batches: Calibration inputs as the model is called with them; `attention_mask` is the additive one
            (B, 1, 1, T), 0 where there is a token. A thousand tokens for each hidden unit are plenty.

    Returns:
        The smaller model with a head of zeros, and the basis (D, d), orthonormal columns: a hidden state of `model`
        times the basis is what the smaller model's hidden state stands for.

    Raises:
        ModelError: something would be larger, or the heads of the shape are not as wide as the model's.
    """
    _check(model.config, shape)
    blocks = [block - 1 for block in spread_blocks(shape.layers, model.config.num_hidden_layers)]
    outputs = _record(model, _norms(model, blocks), batches)
    basis = _basis([outputs[0], *outputs[2::2]], shape.hidden)
    small = _project(model, shape, blocks, basis)
    for norm, output in zip(_norms(small, list(range(shape.layers))), outputs, strict=True):
        _fit(small, norm, output @ basis, batches)
    return small, basis


def _check(config: BertConfig, shape: Shape) -> None:
    size = config.hidden_size // config.num_attention_heads
    if shape.hidden != shape.heads * size:
        raise ModelError(
            f"{shape.heads} heads of {size} need a hidden size of {shape.heads * size}, not {shape.hidden}."
        )
    largest = Shape(config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    for name in ("layers", "hidden", "heads", "feed_forward"):
        if not 1 <= getattr(shape, name) <= getattr(largest, name):
            raise ModelError(f"{name} is {getattr(shape, name)}, but must be from 1 to {getattr(largest, name)}.")


def _norms(model: BertForSequenceClassification, blocks: list[int]) -> list[nn.LayerNorm]:
    """The LayerNorms from front to back: of the embeddings, and two of each of these blocks."""
    chosen = [model.bert.encoder.layer[block] for block in blocks]
    pairs = [(layer.attention.output.LayerNorm, layer.output.LayerNorm) for layer in chosen]
    return [model.bert.embeddings.LayerNorm, *(norm for pair in pairs for norm in pair)]


def _record(
    model: BertForSequenceClassification,
    modules: list[nn.LayerNorm],
    batches: list[dict[str, Tensor]],
    inputs: bool = False,
) -> list[Tensor]:
    """What goes into or comes out of these modules (N, D), a row for each real token."""
    kept: list[list[Tensor]] = [[] for _ in modules]
    real = torch.empty(0)

    def keep(rows: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        return lambda module, given, output: rows.append((given[0] if inputs else output)[real])

    hooks = [module.register_forward_hook(keep(rows)) for module, rows in zip(modules, kept, strict=True)]
    for batch in batches:
        real = batch["attention_mask"][:, 0, 0] == 0  # (B, T)
        model.bert(**batch)
    for hook in hooks:
        hook.remove()
    return [torch.cat(rows) for rows in kept]


def _basis(states: list[Tensor], width: int) -> Tensor:
    """The first principal directions (D, width) of all states, each layer on the same scale; no mean is taken off."""
    dimension = states[0].shape[1]
    moments = torch.zeros(dimension, dimension, dtype=torch.float64)
    for state in states:
        wide = state.double()
        moments += wide.T @ wide / wide.square().sum()
    if width == dimension:
        return torch.eye(dimension)
    _, vectors = torch.linalg.eigh(moments)
    return vectors[:, -width:].flip(1).float()


def _project(
    model: BertForSequenceClassification, shape: Shape, blocks: list[int], basis: Tensor
) -> BertForSequenceClassification:
    """The smaller model, its LayerNorms still to be fitted."""
    config = BertConfig(**model.config.to_dict())
    config.num_hidden_layers, config.hidden_size = shape.layers, shape.hidden
    config.num_attention_heads, config.intermediate_size = shape.heads, shape.feed_forward
    config._attn_implementation = "eager"
    small = BertForSequenceClassification(config).eval()
    ours, theirs = small.bert, model.bert
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        getattr(ours.embeddings, name).weight.copy_(getattr(theirs.embeddings, name).weight @ basis)
    for layer, block in zip(ours.encoder.layer, blocks, strict=True):
        _project_block(layer, theirs.encoder.layer[block], basis)
    ours.pooler.dense.weight.copy_(basis.T @ theirs.pooler.dense.weight @ basis)
    ours.pooler.dense.bias.copy_(basis.T @ theirs.pooler.dense.bias)
    small.classifier.weight.zero_()
    small.classifier.bias.zero_()
    return small


def _project_block(ours: nn.Module, theirs: nn.Module, basis: Tensor) -> None:
    own, other = ours.attention.self, theirs.attention.self
    size, heads = other.attention_head_size, other.num_attention_heads
    out = theirs.attention.output.dense
    values, outputs = other.value.weight.view(heads, size, -1), out.weight.view(-1, heads, size)
    # |Wo Wv| of each head, as it acts on the smaller hidden state.
    strength = torch.stack([(basis.T @ outputs[:, h] @ values[h] @ basis).norm() for h in range(heads)])
    rows = _strongest(strength, own.num_attention_heads)
    units = (rows[:, None] * size + torch.arange(size)).flatten()
    for name in ("query", "key", "value"):
        source, target = getattr(other, name), getattr(own, name)
        target.weight.copy_(source.weight[units] @ basis)
        target.bias.copy_(source.bias[units])
    ours.attention.output.dense.weight.copy_(basis.T @ out.weight[:, units])
    ours.attention.output.dense.bias.copy_(basis.T @ out.bias)
    enter, leave = theirs.intermediate.dense, theirs.output.dense
    strength = (enter.weight @ basis).norm(dim=1) * (basis.T @ leave.weight).norm(dim=0)
    neurons = _strongest(strength, ours.intermediate.dense.out_features)
    ours.intermediate.dense.weight.copy_(enter.weight[neurons] @ basis)
    ours.intermediate.dense.bias.copy_(enter.bias[neurons])
    ours.output.dense.weight.copy_(basis.T @ leave.weight[:, neurons])
    ours.output.dense.bias.copy_(basis.T @ leave.bias)


def _strongest(strength: Tensor, count: int) -> Tensor:
    """Indices of the largest, in their order; of equals the first."""
    return torch.sort(torch.sort(strength, descending=True, stable=True).indices[:count]).values


def _fit(
    small: BertForSequenceClassification, norm: nn.LayerNorm, target: Tensor, batches: list[dict[str, Tensor]]
) -> None:
    """Set gain and bias of a LayerNorm by least squares in each dimension; those before it are fitted already."""
    (given,) = _record(small, [norm], batches, inputs=True)
    plain = nn.functional.layer_norm(given, given.shape[1:], eps=norm.eps).double()  # (N, d)
    wanted = target.double()
    centered = plain - plain.mean(0)
    gain = (centered * wanted).sum(0) / centered.square().sum(0).clamp_min(1e-12)
    norm.weight.copy_(gain)
    norm.bias.copy_(wanted.mean(0) - gain * plain.mean(0))
