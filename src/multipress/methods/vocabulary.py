"""Vocabulary: words that neither the task nor general text uses are dropped, and the tokenizer shrinks with them.

What it does:
    After the training, the rows of the word embedding whose pieces occur neither in the training rows nor in a general
    text are taken away, and the tokenizer loses the pieces. The training rows are read as before. A text at predict
    time that holds a dropped word is split into shorter pieces, down to single characters; a character of another
    script than the texts' becomes the unknown word.

When to use it:
    When the file must be small: of a small compressed encoder most bytes are embeddings, and a task uses a third of the
    words or less.

Settings:
    general: Whether the words of a general text stay too (true): the 460,000 words of WikiText-2's validation and test
        splits, which the package brings. false keeps the words of the training rows alone.

Cost:
    Training time: none.

With other methods:
    Acts on what pruning and quantization leave; what is stored of a word that stays is the same. In a chain it belongs
    to the last stage.

Limits:
    WordPiece tokenizers only (BERT, DistilBERT, ELECTRA). Rows with dropped words are read in more and rarer pieces:
    their score stands in the measurements as `score_dropped_words`.

Source:
    Abdaoui et al. 2020 (smaller versions of multilingual BERT, rows of unused words taken away). Differs: the pieces of
    the training rows all stay, however rare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from multipress.errors import SettingError
from multipress.methods.base import Context, Method, Stage

__all__ = ["Vocabulary"]


@dataclass
class Vocabulary(Method):
    """Dropping of unused words; see the module's card."""

    name: ClassVar[str] = "vocabulary"
    stage: ClassVar[Stage] = Stage.STRUCTURE

    general: bool = True

    def prepare(self, model: nn.Module, context: Context) -> nn.Module:
        """Finds out which words stay, and says how many; the rows are dropped by `convert` alone."""
        if context.words is None:
            raise SettingError("vocabulary needs a tokenizer and its rows, which this training does not give.")
        embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
        if sum(getattr(module, "weight", None) is embedding.weight for module in model.modules()) > 1:
            raise SettingError("vocabulary cannot drop words of an embedding that is an output layer too.")
        self._kept = context.words(self.general)
        if len(self._kept) == len(embedding.weight):
            raise SettingError("vocabulary has nothing to drop: every word of this model is used.")
        embedding.stored_rows = self._kept
        return model

    @torch.no_grad()
    def convert(self, model: nn.Module) -> nn.Module:
        """Takes the rows away, with their codes and scales, and leaves `kept_words`; changes `model`, returns it."""
        embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
        kept = self._kept
        dropped = (len(embedding.weight) - len(kept)) * embedding.embedding_dim
        model.num_dropped = getattr(model, "num_dropped", 0) + dropped
        embedding.weight = nn.Parameter(embedding.weight.detach()[kept].clone())
        embedding.num_embeddings = len(kept)
        del embedding.stored_rows
        if hasattr(embedding, "weight_codes"):
            embedding.weight_codes = embedding.weight_codes[kept]
            if len(embedding.weight_scale) > 1:
                embedding.weight_scale = embedding.weight_scale[kept]
        if hasattr(embedding, "num_pruned"):
            embedding.num_pruned = min(embedding.num_pruned, int((embedding.weight == 0).sum()))
        place = {old: new for new, old in enumerate(kept.tolist())}
        if embedding.padding_idx is not None:
            embedding.padding_idx = place.get(embedding.padding_idx)
        config: Any = model.config
        config.vocab_size = len(kept)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id"):
            if getattr(config, name, None) is not None:
                setattr(config, name, place.get(getattr(config, name)))
        model.kept_words = kept  # type: ignore[assignment]
        return model
