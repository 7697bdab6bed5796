"""Training the rows of a word embedding that can learn: those of the words that occur."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["UsedRows", "trained_rows"]


def trained_rows(embedding: nn.Embedding) -> tuple[Tensor, Tensor | None]:
    """The parameter that an embedding learns, (n, D), and which rows of its weight it stands for; None: all."""
    found: tuple[Tensor, Tensor | None] = getattr(embedding, "trained", (embedding.weight, None))
    return found


class UsedRows:
    """A small parameter in place of a large word embedding while a model is trained.

    A word that is in no training row gets no gradient. Yet a whole gradient is made, normed and read by the optimizer
    in each step: a fifth of the time of a small encoder's step. Here only the rows that occur are a parameter; the
    embedding looks its words up there. Its own weight stays whole, and is kept equal after each step, so that methods
    that read or change it need not know.

    Weight decay does not reach the other rows. That aside, the training is the same.

    Args:
        embedding: The word embedding, of which no other module holds the weight; its `forward` is replaced.
        ids: The words that occur, in any order, as often as they like.

    Attributes:
        rows: (n, D), the parameter to train.
    """

    def __init__(self, embedding: nn.Embedding, ids: Tensor) -> None:
        weight = embedding.weight
        self._embedding = embedding
        self._ids = ids.unique().to(weight.device)
        self._places = torch.full((weight.shape[0],), -1, device=weight.device)
        self._places[self._ids] = torch.arange(len(self._ids), device=weight.device)
        self.rows = nn.Parameter(weight.detach()[self._ids])
        self._padding = None
        if embedding.padding_idx is not None and self._places[embedding.padding_idx] >= 0:
            self._padding = int(self._places[embedding.padding_idx])
        weight.requires_grad_(False)
        embedding.forward = self._look_up  # type: ignore[method-assign]
        embedding.trained = (self.rows, self._ids)  # type: ignore[assignment]
        self._seen = weight._version

    def _look_up(self, ids: Tensor) -> Tensor:
        return functional.embedding(self._places[ids], self.rows, self._padding)

    @torch.no_grad()
    def write(self) -> None:
        """Put the rows into the embedding's weight."""
        self._embedding.weight[self._ids] = self.rows
        self._seen = self._embedding.weight._version

    @torch.no_grad()
    def read(self) -> None:
        """Take the rows from the embedding's weight if anything has changed it since `write`."""
        if self._embedding.weight._version != self._seen:
            self.rows.copy_(self._embedding.weight[self._ids])
            self._seen = self._embedding.weight._version

    def remove(self) -> None:
        """Leave the embedding as it was, with the rows as they are now."""
        self.write()
        del self._embedding.forward, self._embedding.trained
        self._embedding.weight.requires_grad_(True)
