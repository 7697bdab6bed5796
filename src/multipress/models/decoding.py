"""Writing translations: batched beam search with cached keys and values, transformers' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LogitsProcessor, LogitsProcessorList

from multipress.models.encoder import model_batch, model_inputs
from multipress.runtime.tokenizer import Encoding, batches_by_length

__all__ = ["BEAMS", "LENGTH_PENALTY", "Written", "write_translations"]

BEAMS, LENGTH_PENALTY = 4, 0.6  # of Vaswani et al. 2017, and of Movva and Zhao 2020
MORE_TOKENS = 10  # a translation may have so many more than twice the text's, the end counted


class Written(NamedTuple):
    """What was written for one row.

    Args:
        ids: Token ids without the special ones around them.
        score: Log-probability divided by the length to the power of the length penalty; the beam's best.
    """

    ids: list[int]
    score: float


class _EndInTime(LogitsProcessor):
    """Ends each row at a length of its own, so that it does not depend on the rows beside it."""

    def __init__(self, most: Tensor, end: int) -> None:
        self._most, self._end = most, end

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Scores (B * beams, V) of the next tokens, after `input_ids` (B * beams, S + 1)."""
        most = self._most.repeat_interleave(len(scores) // len(self._most))
        others = torch.arange(scores.shape[1], device=scores.device) != self._end
        return scores.masked_fill((input_ids.shape[1] >= most)[:, None] & others, -torch.inf)


@torch.inference_mode()
def write_translations(
    model: nn.Module,
    rows: Sequence[Encoding],
    *,
    batch_size: int = 32,
    beams: int = BEAMS,
    length_penalty: float = LENGTH_PENALTY,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Written]:
    """The best translation of each row, in the order given, computed in the model's own floats.

    Args:
        model: A translator, in evaluation mode.
        rows: Encoded texts.
        batch_size: Most rows at once; rows of similar length go together.
        beams: How many partial translations of a row are followed; 1: the likeliest next word alone.
        length_penalty: Above 0 longer translations are preferred; see `Written.score`.
        on_progress: Called after each batch with the rows done and all rows.
    """
    translator: Any = model
    config = translator.config
    found = [Written([], 0.0)] * len(rows)
    num_done = 0
    for chosen in batches_by_length([len(row.ids) for row in rows], batch_size):
        batch = model_batch([rows[index] for index in chosen], config.pad_token_id)
        mask = (batch["attention_mask"][:, 0, 0] == 0).long()
        most = (2 * mask.sum(1) + MORE_TOKENS).clamp(max=config.max_position_embeddings - 1)
        written = translator.generate(
            input_ids=batch["input_ids"],
            attention_mask=mask,
            num_beams=beams,
            length_penalty=length_penalty if beams > 1 else None,
            do_sample=False,
            use_cache=True,
            suppress_tokens=[config.pad_token_id],  # it only fills rows
            logits_processor=LogitsProcessorList([_EndInTime(most, config.eos_token_id)]),
            max_new_tokens=int(most.max()),
        )
        scores = _scores(translator, batch, written, length_penalty)
        special = (config.pad_token_id, config.eos_token_id)
        for index, ids, score in zip(chosen, written.tolist(), scores.tolist(), strict=True):
            found[index] = Written([token for token in ids if token not in special], score)
        num_done += len(chosen)
        if on_progress is not None:
            on_progress(num_done, len(rows))
    return found


def _scores(translator: Any, batch: dict[str, Tensor], written: Tensor, length_penalty: float) -> Tensor:
    """The score (B,) of each translation.

    Args:
        translator: The model.
        batch: What it read.
        written: (B, S + 1) token ids, the padding with which each begins counted.
        length_penalty: See `Written.score`.
    """
    read, ids = written[:, :-1], written[:, 1:]  # (B, S)
    logits = translator(**model_inputs(translator, batch | {"decoder_input_ids": read})).logits.float()
    steps = -functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")  # (B, S)
    ends = (ids == translator.config.eos_token_id).long()
    real = ends.cumsum(1) == ends  # up to the first end, that one counted; what follows fills the row
    return (steps * real).sum(1) / real.sum(1) ** length_penalty
