"""How many rows, passes over them and steps a try may have, so that a search ends in the time that it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from multipress.budget.rows import SearchRows

__all__ = ["Pace", "pace"]

ROUNDS = 7  # of tries side by side that should fit: two or three to fine-tune and to begin, the others to choose
SHARE = 0.8  # of the time; models are looked at, taught from and compared, too
MOST_EPOCHS = 8
FEWEST_ROWS = 256
BATCHES = (32, 16, 8)
ENOUGH_STEPS = 300  # bits in the loss need steps to find which weights may go, more than many rows a step


@dataclass(frozen=True)
class Pace:
    """What every try does.

    Args:
        epochs: Passes over the rows.
        rows: How many rows are drawn; 0: all.
        batch_size: Rows of a step.
    """

    epochs: int
    rows: int = 0
    batch_size: int = BATCHES[0]

    def text(self, num_rows: int) -> str:
        """In words, of so many rows in all."""
        if not self.rows:
            return f"{self.epochs} epoch{'s'[: self.epochs - 1]}"
        return f"one, of {self.rows:,} of the {num_rows:,} rows: with more time there would be more"

    def of(self, rows: SearchRows) -> SearchRows:
        """The rows of a search with so many to train on."""
        if not self.rows:
            return rows
        return replace(rows, data=replace(rows.data, max_train_rows=self.rows), num_train=self.rows)


def pace(epoch_seconds: float, num_rows: int, seconds: float, epochs: int = 0) -> Pace:
    """As many passes as the time allows; where it allows not one, fewer rows; where steps are few, smaller ones.

    Args:
        epoch_seconds: About how long one pass over all rows takes.
        num_rows: How many rows there are.
        seconds: How long the search may take.
        epochs: Passes that were asked for; 0: none were.
    """
    each = SHARE * seconds / ROUNDS
    rows = 0
    if not epochs:
        epochs = max(1, min(MOST_EPOCHS, math.floor(each / epoch_seconds)))
        some = max(FEWEST_ROWS, math.floor(num_rows * each / epoch_seconds))
        rows = some if some < num_rows else 0
    seen = epochs * (rows or num_rows)
    batch = next((size for size in BATCHES if seen >= ENOUGH_STEPS * size), BATCHES[-1])
    return Pace(epochs, rows, batch)
