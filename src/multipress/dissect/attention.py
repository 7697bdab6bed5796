"""What heads look at, and which head of one model looks like which of another.

All numbers are means over rows of words. A map has a line for each unit (a word, or the special tokens before and after
the words); a line is a distribution over the units that are looked at: of the same text, or, where a decoder looks at
what its encoder read, of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from multipress.dissect.capture import Capture

__all__ = ["ATTENTIONS", "HeadFacts", "PairFacts", "between", "heads_of", "pair_facts"]

DEGENERATE_BITS = 0.01  # less than this a head's look depends on the word that looks
_TINY = 1e-12

ATTENTIONS = {
    "attention_entropy": "bits of the distribution over what is looked at",
    "attention_distance": "words between the one that looks and what it looks at",
    "attention_to_special": "share of the look that goes to special tokens",
    "attention_degenerate": "heads that look at the same, whichever word looks",
    "attention_maxcorr": "mean over the reference's heads of the best correlation with a head",
    "attention_jensen_shannon": "mean over the reference's heads of the smallest divergence from a head, in bits",
    "attention_cka": "linear CKA of all heads together",
    "attention_same_index": "share of the reference's heads whose best match is the head of the same number",
}


@dataclass(frozen=True)
class HeadFacts:
    """What each head of a block does on each row.

    Args:
        entropy: Bits (R, H).
        distance: Words (R, H); None where what is looked at is another text.
        to_special: Share (R, H).
        dependence: Bits that what is looked at tells of which word looks (R, H), beyond what a unit can see at all; 0:
            it looks at the same always.
    """

    entropy: np.ndarray
    distance: np.ndarray | None
    to_special: np.ndarray
    dependence: np.ndarray

    def degenerate(self, rows: np.ndarray) -> np.ndarray:
        """Which heads look at the same whichever word looks, on these rows (H,)."""
        degenerate: np.ndarray = self.dependence[rows].mean(axis=0) < DEGENERATE_BITS
        return degenerate


@dataclass(frozen=True)
class PairFacts:
    """How the heads of two blocks compare on each row; H heads of the reference, K of the artifact.

    Args:
        correlation: Pearson's, over all cells of the maps (R, H, K); 0 where a map is the same everywhere. Of a
            decoder's own attention, of what differs from an even look at all that is seen: else the cells that none
            can see would make any two heads alike.
        divergence: Jensen-Shannon, bits, mean over lines (R, H, K).
        xx: Sum over cells of the products of the reference's heads, an even look taken off (R, H, H).
        yy: The same of the artifact's (R, K, K).
        xy: The same of both (R, H, K).
    """

    correlation: np.ndarray
    divergence: np.ndarray
    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray


def _maps(capture: Capture, block: int) -> Iterator[np.ndarray]:
    """The maps of each row (H, U, V), float64."""
    place = 0
    for lines, columns in zip(capture.num_units, _num_columns(capture), strict=True):
        cells = capture.maps[block][:, place : place + lines * columns]
        yield cells.reshape(len(cells), lines, columns).astype(np.float64)
        place += lines * columns


def _num_columns(capture: Capture) -> np.ndarray:
    return capture.num_units if capture.num_seen is None else capture.num_seen


def _even_look(capture: Capture, lines: int, columns: int) -> np.ndarray:
    """A look that is the same at all that a unit sees (U, V)."""
    seen = np.tri(lines, columns) if capture.is_causal else np.ones((lines, columns))
    even: np.ndarray = seen / seen.sum(axis=1, keepdims=True)
    return even


def _same_look(maps: np.ndarray, even: np.ndarray) -> np.ndarray:
    """The look of each head (H, U, V) if it preferred the same units whichever looks, of those that it sees.

    How much each unit is preferred to an even look, its mean over the lines that see it.
    """
    seen = even > 0
    preferred = np.divide(maps, even, out=np.zeros_like(maps), where=seen).sum(axis=1) / seen.sum(axis=0)  # (H, V)
    look: np.ndarray = preferred[:, None] * seen
    return look / np.maximum(look.sum(axis=2, keepdims=True), _TINY)


def _bits(shares: np.ndarray) -> np.ndarray:
    """Entropy in bits over the last axis."""
    entropy: np.ndarray = -np.sum(shares * np.log2(np.maximum(shares, _TINY)), axis=-1)
    return entropy


def heads_of(capture: Capture, block: int, is_special: list[np.ndarray]) -> HeadFacts:
    """What each head of a block does.

    Args:
        capture: Hidden states and maps.
        block: Which block, from 0.
        is_special: Which units that are looked at are special tokens, of each row (V,) bool.
    """
    rows = []
    for maps, special in zip(_maps(capture, block), is_special, strict=True):
        lines, columns = (np.arange(size) for size in maps.shape[1:])
        away = np.abs(lines[:, None] - columns)
        entropy = _bits(maps).mean(axis=1)
        same = _same_look(maps, _even_look(capture, *maps.shape[1:]))
        across = -np.sum(maps * np.log2(np.maximum(same, _TINY)), axis=2).mean(axis=1)
        rows.append(
            (
                entropy,
                (maps * away).sum(axis=2).mean(axis=1),
                maps[:, :, special].sum(axis=2).mean(axis=1),
                across - entropy,
            )
        )
    entropy, distance, to_special, dependence = (np.array(values) for values in zip(*rows, strict=True))
    return HeadFacts(entropy, distance if capture.num_seen is None else None, to_special, dependence)


def pair_facts(reference: Capture, artifact: Capture, block: int, other: int) -> PairFacts:
    """How each head of the reference's block compares with each of the artifact's, on the same units.

    Args:
        reference: Maps of the reference.
        artifact: Maps of the artifact.
        block: The reference's block, from 0.
        other: The artifact's block, from 0.
    """
    rows = []
    for x, y in zip(_maps(reference, block), _maps(artifact, other), strict=True):
        even = _even_look(reference, *x.shape[1:])
        flat_x, flat_y = ((maps - even).reshape(len(maps), -1) for maps in (x, y))
        xx, yy, xy = flat_x @ flat_x.T, flat_y @ flat_y.T, flat_x @ flat_y.T
        scale = np.sqrt(np.outer(np.diag(xx), np.diag(yy)))
        correlation = np.divide(xy, scale, out=np.zeros_like(xy), where=scale > _TINY)
        own = (_bits(x).mean(axis=1)[:, None] + _bits(y).mean(axis=1)) / 2
        mixed = np.array([_bits((head + y) / 2).mean(axis=1) for head in x])
        rows.append((correlation, mixed - own, xx, yy, xy))
    return PairFacts(*(np.array(values) for values in zip(*rows, strict=True)))


def between(pair: PairFacts, reference: HeadFacts, artifact: HeadFacts, rows: np.ndarray) -> dict[str, float]:
    """The measures of a pair of blocks on some rows: those of `ATTENTIONS` that compare.

    Heads of the reference that are degenerate, or where all of the artifact's are, are left out of the means: any two
    that always look at one place would be called alike. With none left there is nothing to compare, and only the CKA of
    all heads is given. Which are degenerate is told from all rows, so that an interval is one of the same heads.

    Args:
        pair: How their heads compare.
        reference: What the reference's heads do.
        artifact: What the artifact's heads do.
        rows: Positions of the rows, or a mask.
    """
    every = np.ones(len(pair.xx), dtype=bool)
    of_reference, of_artifact = ~reference.degenerate(every), ~artifact.degenerate(every)
    correlation = np.where(of_artifact, pair.correlation[rows].mean(axis=0), -np.inf)  # (H, K)
    divergence = np.where(of_artifact, pair.divergence[rows].mean(axis=0), np.inf)
    xx, yy, xy = (value[rows].sum(axis=0) for value in (pair.xx, pair.yy, pair.xy))
    norms = float(np.linalg.norm(xx) * np.linalg.norm(yy))
    found = {"attention_cka": float(np.sum(xy**2)) / norms if norms > _TINY else 0.0}
    if of_reference.any() and of_artifact.any():
        kept = correlation[of_reference]
        found["attention_maxcorr"] = float(kept.max(axis=1).mean())
        found["attention_jensen_shannon"] = float(divergence[of_reference].min(axis=1).mean())
        if correlation.shape[0] == correlation.shape[1]:
            found["attention_same_index"] = float(np.mean(kept.argmax(axis=1) == np.flatnonzero(of_reference)))
    return found
