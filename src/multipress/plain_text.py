"""Text from strangers on one line of a terminal, a page or a file: names are hostile until they are escaped."""

from __future__ import annotations

import math
import re

__all__ = ["duration", "megabytes", "plain"]

# Controls, lone surrogates, marks that turn the direction of text, and what XML forbids.
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def plain(value: object) -> str:
    """Text on one line that does nothing to a terminal or to a layout: controls become U+FFFD, tabs stay."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(value))


def duration(seconds: float) -> str:
    """A time in words: seconds, or minutes from a minute and a half on."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def megabytes(size: float) -> str:
    """Bytes in words, such as `3.21 MB` and `0.0439 MB`: two decimals, below one MB three digits that count."""
    shown = size / 1e6
    return f"{shown:.2f} MB" if shown >= 0.9995 or not shown else f"{shown:.{2 - math.floor(math.log10(shown))}f} MB"
