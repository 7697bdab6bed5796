"""The encoders and translators that are read, and in what they differ: config, names of tensors, inputs, head.

A config is read from an allow-list of keys, each checked, so that a hostile one allocates nothing and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MarianConfig,
    MarianMTModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from multipress.artifact import max_tokens
from multipress.errors import ModelError, SettingError

__all__ = ["FAMILIES", "TRANSLATORS", "Family", "config_values", "family_of", "new_weight", "read_config"]

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish")
Read = Callable[[dict[str, Any], str, str], Any]  # of a config's values, a key, and the model's name for messages


def _size(limit: int, *, low: int = 1, default: int | None = None) -> Read:
    """A whole number; without a default it must be there. The limits are well above the largest models."""

    def read(values: dict[str, Any], key: str, where: str) -> int:
        value = values.get(key, default)
        if value is None:
            raise ModelError(f"{where}: its config has no {key}.")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= limit:
            raise ModelError(f"{where}: {key} is {value!r}, but must be a whole number from {low} to {limit}.")
        return value

    return read


def _number(default: float, highest: float = 1.0) -> Read:
    def read(values: dict[str, Any], key: str, where: str) -> float:
        value = values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= highest:
            raise ModelError(f"{where}: {key} is {value!r}, but must be a number from 0 to {highest:g}.")
        return float(value)

    return read


def _choice(known: tuple[Any, ...], default: Any) -> Read:
    def read(values: dict[str, Any], key: str, where: str) -> Any:
        value = values.get(key, default)
        if not any(value is choice or (value == choice and type(value) is type(choice)) for choice in known):
            raise ModelError(f"{where}: {key} is {value!r}; known are: {', '.join(map(str, known))}.")
        return value

    return read


def _pad_token(default: int) -> Read:
    def read(values: dict[str, Any], key: str, where: str) -> int:
        return int(_size(values["vocab_size"] - 1, low=0, default=default)(values, key, where))

    return read


_ACTIVATION = _choice(ACTIVATIONS, "gelu")
_FLAG = _choice((False, True), False)
_BLOCKS = _size(96)
_SHAPE: dict[str, Read] = {
    "vocab_size": _size(1_000_000),
    "hidden_size": _size(8192),
    "num_hidden_layers": _BLOCKS,
    "num_attention_heads": _size(128),
    "intermediate_size": _size(65536),
}
_POSITIONS = {"max_position_embeddings": _size(65536)}


def _bert_like(pad: int = 0, types: int | None = None) -> dict[str, Read]:
    return {
        **_SHAPE,
        "hidden_act": _ACTIVATION,
        **_POSITIONS,
        "type_vocab_size": _size(64, default=types),
        "layer_norm_eps": _number(1e-12),
        "initializer_range": _number(0.02),
        "pad_token_id": _pad_token(pad),
    }


def _layer_types(values: dict[str, Any], key: str, where: str) -> list[str]:
    """Which blocks of a ModernBERT look at all tokens; old files say: every so many."""
    blocks = values["num_hidden_layers"]
    every = _size(96, default=3)(values, "global_attn_every_n_layers", where)
    default = ["sliding_attention" if block % every else "full_attention" for block in range(blocks)]
    found = values.get(key) or default
    known = {"sliding_attention", "full_attention"}
    if not isinstance(found, list) or len(found) != blocks or not all(kind in known for kind in map(str, found)):
        raise ModelError(f"{where}: {key} is {found!r}, but must say {' or '.join(sorted(known))} for each block.")
    return found


def _rope(values: dict[str, Any], key: str, where: str) -> dict[str, dict[str, Any]]:
    """The bases of ModernBERT's rotary positions; old files name them one by one."""
    if values.get("rope_scaling") is not None:
        raise ModelError(f"{where}: rope_scaling is {values['rope_scaling']!r}; scaled positions are not read.")
    found = values.get(key) or {}
    read = {}
    for kind, old, default in (
        ("full_attention", "global_rope_theta", 160_000.0),
        ("sliding_attention", "local_rope_theta", 10_000.0),
    ):
        table = found.get(kind) if isinstance(found, dict) else None
        table = {"rope_theta": values.get(old, default)} if table is None else table
        if not isinstance(table, dict) or table.get("rope_type", "default") != "default":
            raise ModelError(f"{where}: {key} is {found!r}; scaled positions are not read.")
        base = _number(default, 1e9)(table, "rope_theta", where)
        if base < 1:
            raise ModelError(f"{where}: rope_theta is {base:g}, but must be at least 1.")
        read[kind] = {"rope_type": "default", "rope_theta": base}
    return read


@dataclass(frozen=True)
class Family:
    """What one kind of encoder has of its own.

    Args:
        config: Class of its config; `model_type` names the family.
        classifier: Class of the encoder with a head for classes or a number.
        keys: What is read of a config, in order; nothing else is.
        prefix: Where the encoder is in the classifier.
        blocks: Where the list of blocks is in the encoder.
        output: The head's last layer, which has one row a label.
        drawn: Prefixes of the head's tensors that a pre-trained encoder may lack.
        unused: Tensors of pre-training that a classifier does not need, as a regular expression.
        dropouts: Keys of the dropouts of embeddings, attention, blocks and head.
        token_types: Whether a pair's second text is told from the first by `token_type_ids`.
        has_first_token: Whether the blocks are BERT's, so that the last one may compute the first token alone.
        learned_positions: Whether positions are a table of the model; else they are computed.
        plain_mask: Whether the classifier needs the mask as (B, T), 1 where there is a token: it makes one for each
            kind of block from it, or a mean over the tokens.
        fixed: Settings that do not come from the file.
        decoder_blocks: Where the list of the decoder's blocks is beside the encoder, of a model that writes text.
        tied: Other names of its first weight, which files need not hold.
    """

    config: type[PreTrainedConfig]
    classifier: type[PreTrainedModel]
    keys: dict[str, Read]
    prefix: str
    blocks: str = "encoder.layer"
    output: str = "classifier"
    drawn: tuple[str, ...] = ("classifier.",)
    unused: str = r"(?!)"
    dropouts: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    token_types: bool = False
    has_first_token: bool = True
    learned_positions: bool = True
    plain_mask: bool = False
    fixed: dict[str, Any] = field(default_factory=dict)
    decoder_blocks: str = ""
    tied: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether it is a translator, which writes text, and no classifier."""
        return bool(self.decoder_blocks)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the model is called with."""
        more = {"token_type_ids": self.token_types, "decoder_input_ids": self.writes}
        return ("input_ids", "attention_mask", *(name for name, has in more.items() if has))

    def encoder(self, model: nn.Module) -> Any:
        """The encoder of a classifier."""
        return getattr(model, self.prefix)

    def reader(self, model: nn.Module) -> Any:
        """What reads the text and gives its hidden states: the encoder alone, of a translator too."""
        return self.encoder(model).encoder if self.writes else self.encoder(model)

    def block_list(self, model: nn.Module) -> nn.ModuleList:
        """The blocks of the encoder, bottom to top."""
        return attrgetter(self.blocks)(self.encoder(model))  # type: ignore[no-any-return]

    def all_blocks(self, model: nn.Module) -> list[nn.Module]:
        """The blocks of the encoder, bottom to top, then those of the decoder, where there is one."""
        decoder = attrgetter(self.decoder_blocks)(self.encoder(model)) if self.writes else ()
        return [*self.block_list(model), *decoder]


_ROBERTA: dict[str, Any] = {
    "prefix": "roberta",
    "output": "classifier.out_proj",
    "unused": r"lm_head\..+|(roberta\.)?pooler\..+|(roberta\.)?embeddings\.position_ids",
}

FAMILIES: dict[str, Family] = {
    "bert": Family(
        BertConfig,
        BertForSequenceClassification,
        _bert_like(),
        prefix="bert",
        unused=r"cls\.(predictions|seq_relationship)\..+|(bert\.)?embeddings\.position_ids",
        token_types=True,
    ),
    "distilbert": Family(
        DistilBertConfig,
        DistilBertForSequenceClassification,
        {
            "vocab_size": _SHAPE["vocab_size"],
            "dim": _SHAPE["hidden_size"],
            "n_layers": _BLOCKS,
            "n_heads": _SHAPE["num_attention_heads"],
            "hidden_dim": _SHAPE["intermediate_size"],
            "activation": _ACTIVATION,
            **_POSITIONS,
            "initializer_range": _number(0.02),
            "pad_token_id": _pad_token(0),
        },
        prefix="distilbert",
        blocks="transformer.layer",
        drawn=("pre_classifier.", "classifier."),
        unused=r"vocab_(transform|layer_norm|projector)\..+|(distilbert\.)?embeddings\.position_ids",
        dropouts=("dropout", "attention_dropout", "seq_classif_dropout"),
        has_first_token=False,
    ),
    "roberta": Family(RobertaConfig, RobertaForSequenceClassification, _bert_like(1, 2), **_ROBERTA),
    "xlm-roberta": Family(XLMRobertaConfig, XLMRobertaForSequenceClassification, _bert_like(1, 2), **_ROBERTA),
    "electra": Family(
        ElectraConfig,
        ElectraForSequenceClassification,
        {**_bert_like(), "embedding_size": _size(8192)},
        prefix="electra",
        output="classifier.out_proj",
        unused=r"(discriminator|generator)_predictions\..+|generator_lm_head\..+|(electra\.)?embeddings\.position_ids",
        token_types=True,
    ),
    "modernbert": Family(
        ModernBertConfig,
        ModernBertForSequenceClassification,
        {
            **_SHAPE,
            "hidden_activation": _ACTIVATION,
            **_POSITIONS,
            "layer_types": _layer_types,
            "local_attention": _size(65536, default=128),
            "rope_parameters": _rope,
            **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), _FLAG),
            "norm_eps": _number(1e-5),
            "classifier_pooling": _choice(("cls", "mean"), "cls"),
            "classifier_activation": _ACTIVATION,
            "initializer_range": _number(0.02),
            "pad_token_id": _pad_token(0),
        },
        prefix="model",
        blocks="layers",
        drawn=("head.", "classifier."),
        unused=r"decoder\..+",
        learned_positions=False,
        plain_mask=True,
        dropouts=("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"),
        has_first_token=False,
        # Their defaults are ids of the published vocabulary, which need not be this one.
        fixed=dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    ),
}

TRANSLATORS: dict[str, Family] = {
    "marian": Family(
        MarianConfig,
        MarianMTModel,
        {
            "vocab_size": _SHAPE["vocab_size"],
            "d_model": _SHAPE["hidden_size"],
            **{f"{side}_layers": _BLOCKS for side in ("encoder", "decoder")},
            **{f"{side}_attention_heads": _SHAPE["num_attention_heads"] for side in ("encoder", "decoder")},
            **{f"{side}_ffn_dim": _SHAPE["intermediate_size"] for side in ("encoder", "decoder")},
            "activation_function": _ACTIVATION,
            **_POSITIONS,
            "scale_embedding": _FLAG,
            "init_std": _number(0.02),
            **dict.fromkeys(("pad_token_id", "eos_token_id", "decoder_start_token_id"), _pad_token(0)),
        },
        prefix="model",
        blocks="encoder.layers",
        drawn=("final_logits_bias",),
        unused=r"(lm_head|model\.(en|de)coder\.embed_(tokens|positions))\.weight",
        dropouts=("dropout",),
        has_first_token=False,
        learned_positions=False,
        fixed={"forced_eos_token_id": None, "bos_token_id": None},
        decoder_blocks="decoder.layers",
        tied=("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
    ),
}


_KNOWN = FAMILIES | TRANSLATORS


def family_of(of: Any) -> Family:
    """The family of a config, or of a model that has one; raises `SettingError` for what is none of them."""
    family = _KNOWN.get(getattr(getattr(of, "config", of), "model_type", ""))
    if family is None:
        raise SettingError(f"{type(of).__name__} is none of the models that are read: {', '.join(_KNOWN)}.")
    return family


def read_config(values: dict[str, Any], where: str) -> PreTrainedConfig:
    """The config of an encoder, read from an allow-list of keys.

    Args:
        values: What `config.json` holds.
        where: Name of the model for messages.

    Raises:
        ModelError: another model type, code of its own, a decoder, or a size that is missing or out of range.
    """
    kind = values.get("model_type")
    family = _KNOWN.get(kind) if isinstance(kind, str) else None
    if family is None:
        known = ", ".join(_KNOWN)
        if kind is None:
            raise ModelError(f"{where}: its config.json has no model_type. Write the one it is of into it: {known}.")
        raise ModelError(f"{where}: model_type is {kind!r}; models that are read: {known}.")
    if values.get("auto_map"):
        raise ModelError(f"{where}: its config names code of its own (auto_map). Code in model folders is never run.")
    if values.get("is_decoder") or values.get("add_cross_attention"):
        raise ModelError(f"{where}: it is a decoder; only encoders are read.")
    values = {key: value for key, value in values.items() if value is not None}  # null: the default
    if family.learned_positions and values.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(f"{where}: position_embedding_type is {values['position_embedding_type']!r}, not 'absolute'.")
    read = {key: reader(values, key, where) for key, reader in family.keys.items()}
    config = family.config(**read, **family.fixed)
    if config.hidden_size % config.num_attention_heads:
        raise ModelError(
            f"{where}: hidden_size {config.hidden_size} is no multiple of "
            f"num_attention_heads {config.num_attention_heads}."
        )
    if not family.learned_positions and config.hidden_size // config.num_attention_heads % 2:
        raise ModelError(f"{where}: its heads are of an odd size, but its positions turn pairs of numbers.")
    if family.writes:
        _check_translator(config, values, where)
    if (max_tokens(config.to_dict()) or 0) < 1:
        raise ModelError(f"{where}: {config.max_position_embeddings} positions leave none for a token.")
    return config


def _check_translator(config: Any, values: dict[str, Any], where: str) -> None:
    """Raise `ModelError` for a translator of a kind that is not read."""
    for key in ("share_encoder_decoder_embeddings", "tie_word_embeddings"):
        if values.get(key, True) is not True:
            raise ModelError(f"{where}: {key} is {values[key]!r}; translators with one word matrix are read.")
    if config.decoder_start_token_id != config.pad_token_id:
        raise ModelError(f"{where}: its translations do not begin with the padding, as those that are read do.")
    if config.d_model % config.decoder_attention_heads:
        raise ModelError(f"{where}: d_model {config.d_model} is no multiple of {config.decoder_attention_heads} heads.")


def config_values(config: PreTrainedConfig) -> dict[str, Any]:
    """What `read_config` needs to make this config again, as `config.json` holds it."""
    return {"model_type": config.model_type, **{key: getattr(config, key) for key in family_of(config).keys}}


def new_weight(name: str, shape: tuple[int, ...], config: PreTrainedConfig, generator: torch.Generator) -> Tensor:
    """A tensor of a new head as transformers draws it: normal weights, no bias, norms of one."""
    if len(shape) < 2 or name == "final_logits_bias":
        return torch.full(shape, float(name.endswith("norm.weight")))
    if config.model_type != "modernbert":
        return torch.empty(shape).normal_(0.0, config.initializer_range, generator=generator)
    deviation = config.hidden_size**-0.5
    if name.startswith("head."):
        deviation = config.initializer_range / (2 * config.num_hidden_layers) ** 0.5
    cut = 2 * deviation
    return nn.init.trunc_normal_(torch.empty(shape), 0.0, deviation, -cut, cut, generator=generator)
