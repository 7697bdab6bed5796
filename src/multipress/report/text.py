"""Numbers and names as a reader sees them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from multipress.plain_text import plain

__all__ = ["change_text", "escaped", "megabytes", "points_text", "ratio_text", "score_text", "state_text"]

_MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"


def escaped(value: object) -> str:
    """Text safe between tags and inside quoted attributes of HTML and XML."""
    return html.escape(plain(value), quote=True)


def score_text(score: Mapping[str, Any]) -> str:
    """Mean and, of two seeds or more, standard deviation: `0.9012 ± 0.0031`; a dash of none."""
    if score["mean"] is None:
        return NONE
    spread = "" if score["sd"] is None else f" ± {score['sd']:.4f}"
    return f"{score['mean']:.4f}{spread}"


def change_text(change: Mapping[str, Any]) -> str:
    """Signed change against the dense control; a dash where there is none to compare with."""
    if change["mean"] is None:
        return NONE
    text = f"{round(change['mean'], 4) + 0.0:+.4f}"  # adding 0.0 makes a rounded -0.0 a +0.0
    return text.replace("-", _MINUS)


def points_text(share: float) -> str:
    """A share as signed points, `+1.04`, never `-0.00`."""
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def megabytes(size_bytes: float | None) -> str:
    """MB of a million bytes, three digits or more: `0.123`, `4.56`, `78.9`, `1,340`; a dash of none."""
    if size_bytes is None:
        return NONE
    size = size_bytes / 1e6
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if size < limit:
            return f"{size:.{digits}f}"
    return f"{size:,.0f}"


def ratio_text(ratio: float | None) -> str:
    """How many times smaller: `17.8×`; a dash of none."""
    return NONE if ratio is None else f"{ratio:.1f}×"


def state_text(group: Mapping[str, Any]) -> str:
    """What of a group's cells is not done: `1 failed, 2 waiting`; empty if all are."""
    counts = ((group["num_failed"], "failed"), (group["num_waiting"], "waiting"))
    return ", ".join(f"{count} {name}" for count, name in counts if count)
