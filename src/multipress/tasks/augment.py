"""More texts out of the texts there are: words replaced by the nearest words of an embedding. No torch.

Movva et al. 2022 replaced words by synonyms from a list. Here the nearest words of the teacher's own embeddings stand
in, which needs no outside data and differs: near words are often opposites (`lost`, `found`), so that a new text may
mean something else. That is why the teacher labels it, and its old label is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from multipress.reproducibility import seed_for

__all__ = ["nearest_words", "replace_words"]

WORD = re.compile(r"[^\W\d_]{3,}")
NEAREST = 5


def nearest_words(
    words: Iterable[str], vocabulary: dict[str, int], embeddings: np.ndarray, count: int = NEAREST
) -> dict[str, list[str]]:
    """The nearest other words of each word, by the cosine of their embeddings, the nearest first.

    Args:
        words: Words in lower case; those that the vocabulary does not hold as one piece are left out.
        vocabulary: Row of each piece; pieces that are no whole word of three or more letters are no neighbour.
        embeddings: (V, D).
        count: Neighbours of each word.
    """
    whole = sorted(piece for piece in vocabulary if WORD.fullmatch(piece))
    place = {piece: index for index, piece in enumerate(whole)}
    vectors = embeddings[[vocabulary[piece] for piece in whole]].astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    wanted = sorted({word for word in words if word in place})
    found: dict[str, list[str]] = {}
    for first in range(0, len(wanted), 1024):
        some = wanted[first : first + 1024]
        own = np.array([place[word] for word in some])
        cosines = vectors[own] @ vectors.T  # (1024, whole words)
        cosines[np.arange(len(some)), own] = -np.inf
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        found |= {word: [whole[index] for index in row] for word, row in zip(some, order.tolist(), strict=True)}
    return found


def replace_words(texts: Sequence[str], nearest: dict[str, list[str]], share: float, *seed: object) -> list[str]:
    """A new text for each text: words that have neighbours are replaced with probability `share`.

    At least one word of each text is replaced if any can be. The same on every computer, as `sample_positions` is.

    Args:
        texts: Any texts.
        nearest: As `nearest_words` gives it.
        share: 0 to 1.
        seed: Anything; equal parts give equal texts.
    """
    random = np.random.PCG64(seed_for(*seed, "replace"))

    def uniform() -> float:
        return float(random.random_raw()) / 2.0**64

    new = []
    for text in texts:
        spots = [match for match in WORD.finditer(text) if match[0].lower() in nearest]
        chosen = [spot for spot in spots if uniform() < share]
        if spots and not chosen:
            chosen = [spots[int(uniform() * len(spots))]]
        for spot in reversed(chosen):
            others = nearest[spot[0].lower()]
            text = text[: spot.start()] + others[int(uniform() * len(others))] + text[spot.end() :]
        new.append(text)
    return new
