"""Small things that many tests build: encoders of a few layers and a tokenizer that knows a few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_piece(words: Sequence[str]) -> str:
    """A WordPiece tokenizer, as JSON, of `SPECIAL` (ids 0 to 4) and these words, in lower case, for texts and pairs."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(word, vocabulary[word]) for word in ("[CLS]", "[SEP]")],
    )
    return str(tokenizer.to_str())


def bert_config(num_words: int, **changes: Any):
    """Two layers of 32 hidden units, two heads, for `num_words` words beside the special ones; plain attention."""
    from transformers import BertConfig

    shape = {
        "vocab_size": len(SPECIAL) + num_words,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 24,
        "attn_implementation": "eager",
    }
    return BertConfig(**(shape | changes))


def family_config(name: str, num_words: int, **changes: Any):
    """The config of a small encoder of a family: three blocks of 32 hidden units; ModernBERT looks 4 tokens far."""
    from multipress.models.families import FAMILIES

    shape: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + num_words,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "attn_implementation": "eager",
    }
    if name == "distilbert":
        for old, new in (
            ("hidden_size", "dim"),
            ("num_hidden_layers", "n_layers"),
            ("num_attention_heads", "n_heads"),
            ("intermediate_size", "hidden_dim"),
        ):
            shape[new] = shape.pop(old)
    own: dict[str, dict[str, Any]] = {
        "roberta": {"type_vocab_size": 1},
        "xlm-roberta": {"type_vocab_size": 1},
        "electra": {"embedding_size": 16},
        "modernbert": {
            "local_attention": 8,
            "classifier_pooling": "mean",
            **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
        },
    }
    return FAMILIES[name].config(**(shape | own.get(name, {}) | changes))


def tiny_translator(seed: int = 0, **changes: Any):
    """A translator of two blocks a side, 32 hidden units, two heads, for 40 words."""
    from dataclasses import replace

    from multipress.models.encoder import build_classifier, expected_shapes
    from multipress.models.translation import TranslatorShape, new_weights, translator_config

    config = translator_config(replace(TranslatorShape(2, 32, 2, 64, 40), **changes))
    config.dropout = 0.1
    config._attn_implementation = "eager"
    return build_classifier(config, new_weights(expected_shapes(config), seed))


def parallel_rows(count: int = 48):
    """Rows of 3 to 8 words; what is to be written is each word's number plus 18."""
    import numpy as np

    from multipress.batches import Rows
    from multipress.runtime.tokenizer import Encoding

    random = np.random.default_rng(3)
    read = [random.integers(2, 20, random.integers(3, 9)).tolist() for _ in range(count)]
    encodings = [Encoding([*words, 1], [0] * (len(words) + 1)) for words in read]
    return Rows(encodings, None, 0, targets=[[*(word + 18 for word in words), 1] for words in read])
