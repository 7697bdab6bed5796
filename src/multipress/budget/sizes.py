"""What packages of a model weigh by the bits of a weight, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from multipress.errors import SettingError

if TYPE_CHECKING:
    from multipress.budget.tries import Recipe, Tries

__all__ = ["FEWEST_BITS", "MARGIN", "MOST_BITS", "Sizes", "fewest_bytes", "line_by_words", "line_of", "smallest_bytes"]

FEWEST_BITS, MOST_BITS = 0.35, 4.0  # of a rate; above, plain 8 bits lose nothing and are not much larger
MARGIN = 0.985  # of a size: a rate is met within a few percent, and mostly from below
LOOKED_AT = (FEWEST_BITS, 2.0)  # rates whose sizes are predicted; of others they are on the line through both


@dataclass(frozen=True)
class Sizes:
    """Bytes of the package by the rate, a straight line.

    Args:
        at_zero: Bytes at a rate of 0.
        per_bit: Bytes that each bit a weight adds.
    """

    at_zero: float
    per_bit: float

    def rate(self, package_bytes: float) -> float:
        """The rate at which the package has so many bytes."""
        return (package_bytes - self.at_zero) / self.per_bit

    def package_bytes(self, rate: float) -> float:
        """The size of the package at a rate."""
        return self.at_zero + rate * self.per_bit


def line_of(tries: Tries, recipe: Recipe) -> Sizes:
    """The sizes of a recipe, whatever its rate."""
    few, many = (tries.size(replace(recipe, rate=rate)).package_bytes for rate in LOOKED_AT)
    per_bit = (many - few) / (LOOKED_AT[1] - LOOKED_AT[0])
    return Sizes(few - LOOKED_AT[0] * per_bit, per_bit)


def line_by_words(tries: Tries, base: Recipe) -> dict[str, Sizes]:
    """The sizes of a model by the words that stay; of a tokenizer that loses none, with all of them alone."""
    lines = {}
    for words in ("all", "general", "rows"):
        try:
            lines[words] = line_of(tries, replace(base, words=words))
        except SettingError:
            if words == "all":
                raise
            continue  # another kind of tokenizer, or no word to drop
    return lines


def fewest_bytes(tries: Tries, base: Recipe) -> float:
    """The smallest limit of the package that a model can keep, by one look: the fewest bits and words."""
    try:
        size = tries.size(replace(base, rate=FEWEST_BITS, words="rows"))
    except SettingError:  # no word can be dropped
        size = tries.size(replace(base, rate=FEWEST_BITS, words="all"))
    return size.package_bytes / MARGIN


def smallest_bytes(lines: dict[str, Sizes]) -> float:
    """The smallest limit of the package that can be kept."""
    return min(line.at_zero + FEWEST_BITS * line.per_bit for line in lines.values()) / MARGIN
