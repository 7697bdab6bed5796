"""Translators: encoder-decoder Transformers made new by a name that says their shape, and their parts.

They are transformers' Marian models: LayerNorm after each residual connection, one matrix for the words of both
languages and for the output, positions that are computed. Weights are drawn as in Vaswani et al. 2017 and its
implementation in fairseq.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel, PreTrainedConfig

from multipress.errors import ModelError
from multipress.reproducibility import seed_for

__all__ = [
    "FIXED_WEIGHTS",
    "NAMED",
    "TranslatorShape",
    "build_translator",
    "empty_translator",
    "new_weights",
    "target_batch",
    "train_tokenizer",
    "translator_config",
    "translator_shape",
]

FIXED_WEIGHTS = ("final_logits_bias",)  # stored though no parameter
PAD, END = "<pad>", "</s>"  # ids 0 and 1; a translation begins with the padding, as Marian's do
POSITIONS = 512
_BLOCK = re.compile(r"\.layers\.(\d+)\.")
_ADDING = tuple(f"{layer}.weight" for layer in ("v_proj", "out_proj", "fc1", "fc2"))
_SHAPE = re.compile(r"transformer-l([1-9]\d?)-h([1-9]\d*)(?:-v([1-9]\d*))?")


@dataclass(frozen=True)
class TranslatorShape:
    """The shape of a translator.

    Args:
        layers: Blocks of the encoder, and as many of the decoder.
        hidden: Width of the hidden state.
        heads: Attention heads of a block.
        feed_forward: Neurons of a block's feed-forward network.
        words: Pieces of words that the tokenizer learns, of both languages together.
    """

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    words: int


NAMED = {
    "transformer-big": TranslatorShape(6, 1024, 16, 4096, 32_000),  # Vaswani et al. 2017; Movva and Zhao 2020
    "transformer-base": TranslatorShape(6, 512, 8, 2048, 32_000),
    "transformer-small": TranslatorShape(6, 256, 4, 1024, 8_000),
    "transformer-tiny": TranslatorShape(6, 128, 4, 256, 4_000),  # as Wu et al. 2021, with two blocks more
}


def translator_shape(name: str) -> TranslatorShape | None:
    """The shape that a name says: one of `NAMED`, or `transformer-l3-h128-v8000` and the like; None for other names.

    Heads are 32 wide then, the feed-forward network 4 times as wide as the hidden state, and without `-v` there are
    8,000 pieces of words.

    Raises:
        ModelError: there is no model of that shape.
    """
    if name in NAMED:
        return NAMED[name]
    found = _SHAPE.fullmatch(name)
    if not found:
        return None
    layers, hidden, words = int(found[1]), int(found[2]), int(found[3] or 8_000)
    if hidden % 32 or hidden > 4096:
        raise ModelError(f"{name}: the hidden size must be a multiple of 32 up to 4096, so that heads of 32 fill it.")
    if not 300 <= words <= 200_000:
        raise ModelError(f"{name}: {words} pieces of words; from 300 to 200,000 can be learned (256 are single bytes).")
    return TranslatorShape(layers, hidden, hidden // 32, 4 * hidden, words)


def translator_config(shape: TranslatorShape) -> MarianConfig:
    """The config of a new translator."""
    return MarianConfig(
        vocab_size=shape.words,
        d_model=shape.hidden,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.feed_forward,
        decoder_ffn_dim=shape.feed_forward,
        activation_function="relu",
        max_position_embeddings=POSITIONS,
        scale_embedding=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
    )


def train_tokenizer(texts: Iterable[str], words: int) -> str:
    """A tokenizer of byte pairs learned from texts, as the content of a `tokenizer.json`; every text can be written.

    Args:
        texts: Texts of both languages.
        words: Most pieces; fewer where the texts have no more.

    References:
        Sennrich et al. 2016; on bytes as in Radford et al. 2019.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return str(tokenizer.to_str())


def empty_translator(config: PreTrainedConfig) -> MarianMTModel:
    """A translator without values (on `meta`), its positions no weights but a table that is computed."""
    with torch.device("meta"):
        model = MarianMTModel(config)
    for side in (model.model.encoder, model.model.decoder):
        module = side.embed_positions
        del module.weight
        module.register_buffer("weight", _positions(*_module_shape(module)), persistent=False)
    config.use_cache = False  # for generation it is turned on
    return model


def _module_shape(module: nn.Embedding) -> tuple[int, int]:
    """Rows and columns of an embedding."""
    return module.num_embeddings, module.embedding_dim


def _positions(count: int, width: int) -> Tensor:
    """Sines of the positions in the first half of the columns, cosines in the second: (count, width)."""
    angles = np.arange(count)[:, None] / np.power(10_000, 2 * np.arange(width // 2) / width)
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1)).float()


def build_translator(config: PreTrainedConfig, weights: dict[str, Tensor]) -> MarianMTModel:
    """A translator that holds these very tensors, its word matrix shared; arguments as of `build_classifier`."""
    model = empty_translator(config)
    shared = weights["model.shared.weight"]
    tied = dict.fromkeys(("lm_head.weight", *(f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder"))))
    model.load_state_dict(weights | dict.fromkeys(tied, shared), strict=True, assign=True)
    words = model.model.shared.weight
    for module in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens, model.lm_head):
        module.weight = words
    return model


def new_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Weights of a new translator: uniform by width for matrices, normal for words; biases 0, norms 1.

    What a block adds to its input begins smaller the more blocks there are: as large as is usual, six blocks a side
    learned nothing of the text that they read in thousands of steps (docs/log.md).

    Args:
        shapes: Names and shapes of its tensors.
        seed: What they are drawn from.

    References:
        Wang et al. 2022, DeepNet, section 4: its factor for the weights of models of one side, (8 blocks)^-1/4, on
        both sides here (of two sides it has other ones, .50 and .34 for six blocks each where this is .38); not its
        factor for the residual connections, which Marian's models do not have.
    """
    generator = torch.Generator().manual_seed(seed_for(seed, "translator"))
    blocks = 1 + max(int(found[1]) for name in shapes if (found := _BLOCK.search(name)))
    weights = {name: _drawn(name, shape, generator) for name, shape in shapes.items()}
    factor = (8 * blocks) ** -0.25
    return {name: value * factor if name.endswith(_ADDING) else value for name, value in weights.items()}


def _drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if "layer_norm" in name:
        return torch.full(shape, float(name.endswith("weight")))
    if len(shape) < 2 or name == "final_logits_bias":
        return torch.zeros(shape)
    if name == "model.shared.weight":
        words = torch.empty(shape).normal_(0, shape[1] ** -0.5, generator=generator)
        words[0] = 0  # the padding
        return words
    # Queries, keys and values are drawn as if they were one matrix.
    gain = 2**-0.5 if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")) else 1.0
    bound = gain * math.sqrt(6 / sum(shape))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def target_batch(targets: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """What a decoder reads and is to write: `decoder_input_ids` and `labels`, (B, S) int64.

    Args:
        targets: Token ids of each row, the end counted.
        pad_id: Begins each row of the input, and fills it; labels are -100 there.
    """
    longest = max(map(len, targets))
    read = torch.full((len(targets), longest), pad_id)
    written = torch.full((len(targets), longest), -100)
    for row, ids in enumerate(targets):
        written[row, : len(ids)] = torch.tensor(ids)
        read[row, 1 : len(ids)] = torch.tensor(ids[:-1])
    return {"decoder_input_ids": read, "labels": written}
