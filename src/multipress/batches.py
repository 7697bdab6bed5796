"""Rows as batches: which rows, of similar length, make a step, and the tensors they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multipress.models.encoder import model_batch
from multipress.models.translation import target_batch
from multipress.precision import device
from multipress.reproducibility import seed_for
from multipress.runtime.tokenizer import Encoding
from multipress.spec import TrainingSpec

__all__ = ["POOL_BATCHES", "Rows", "all_batches", "collate", "epoch_batches", "num_steps", "token_batches"]

POOL_BATCHES = 32  # batches sorted by length together: padding is then under a tenth of the tokens


@dataclass(frozen=True)
class Rows:
    """Encoded training rows.

    Args:
        encodings: N rows of token ids.
        labels: (N,) int64 class indices or float32 numbers; None: no labels, only what methods add is minimized.
        pad_id: Token id that fills short rows.
        num_made: How many rows, the last ones, were made of others: they have no labels (-1 or NaN stands there), and
            do not make the training longer.
        targets: Token ids of the text that is to be written for each row, for a translator; it has no other labels.
        num_cut: How many rows, and how many texts to be written, were longer than a row may be and are cut.
    """

    encodings: list[Encoding]
    labels: np.ndarray | None
    pad_id: int
    num_made: int = 0
    targets: list[list[int]] | None = None
    num_cut: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row: (N, 1), or (N, 2) with those of the text to be written."""
        read = [[len(row.ids)] for row in self.encodings]
        if self.targets is not None:
            read = [[*own, len(ids)] for own, ids in zip(read, self.targets, strict=True)]
        return np.array(read)


def num_steps(lengths: np.ndarray, training: TrainingSpec) -> int:
    """Optimizer steps of a training; the last batch of an epoch may be short.

    Args:
        lengths: Of the rows, as `Rows.lengths`.
        training: Its settings.
    """
    if training.batch_tokens:
        return training.epochs * len(token_batches(lengths, training.batch_tokens, 0))
    return training.epochs * math.ceil(len(lengths) / training.batch_size)


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int) -> list[np.ndarray]:
    """Row indices of each batch of an epoch: all rows once, in random order, similar lengths together.

    Rows are shuffled, cut into pools of `POOL_BATCHES` batches, sorted by length inside each pool, cut into batches,
    and the batches are shuffled.

    Args:
        lengths: (N,) tokens of each row.
        batch_size: Rows a batch.
        seed: Seed of the epoch.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    order = random.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), POOL_BATCHES * batch_size):
        pool = order[start : start + POOL_BATCHES * batch_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    return [batches[index] for index in random.permutation(len(batches))]


def token_batches(lengths: np.ndarray, batch_tokens: int, seed: int) -> list[np.ndarray]:
    """Row indices of each batch of an epoch: all rows once, similar lengths together, about as many tokens in each.

    Rows are sorted by the length of what is written, then of what is read, those of equal lengths in random order, and
    cut into batches, which are shuffled. Their number does not depend on the seed.

    Args:
        lengths: (N, sides) tokens of each row.
        batch_tokens: Most tokens a batch, padding counted; a longer row is a batch of its own.
        seed: Seed of the epoch.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    order = np.lexsort((random.permutation(len(lengths)), *lengths.T))
    batches, first, longest = [], 0, lengths[order[0]]
    for place, row in enumerate(order):
        wider = np.maximum(longest, lengths[row])
        if place > first and wider.sum() * (place - first + 1) > batch_tokens:
            batches.append(order[first:place])
            first, wider = place, lengths[row]
        longest = wider
    batches.append(order[first:])
    return [batches[index] for index in random.permutation(len(batches))]


def all_batches(lengths: np.ndarray, training: TrainingSpec, seed: int) -> Iterator[np.ndarray]:
    """The batches of all epochs, one after the other: row indices of each."""
    for epoch in range(training.epochs):
        of_epoch = seed_for(seed, "order", epoch)
        if training.batch_tokens:
            yield from token_batches(lengths, training.batch_tokens, of_epoch)
        else:
            yield from epoch_batches(lengths.sum(axis=1), training.batch_size, of_epoch)


def collate(rows: Rows, batch: np.ndarray) -> dict[str, Tensor]:
    """These rows as tensors: what the model is called with, `rows` (B,), and `labels` where there are some.

    Labels are (B,), or (B, S) the tokens that are to be written, -100 where there is none.
    """
    tensors = model_batch([rows.encodings[index] for index in batch], rows.pad_id)
    if rows.targets is not None:
        written = target_batch([rows.targets[index] for index in batch], rows.pad_id)
        tensors |= {name: value.to(device()) for name, value in written.items()}
    elif rows.labels is not None:
        tensors["labels"] = torch.from_numpy(rows.labels[batch]).to(device())
    tensors["rows"] = torch.from_numpy(batch).to(device())
    return tensors
