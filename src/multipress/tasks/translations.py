"""How good translations are: BLEU and chrF by sacrebleu, and BLEU of any sample of rows from their counts.

Both are from 0 to 100, as the field writes them; the score of a task is a hundredth of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from multipress.errors import DataError, MissingExtraError

__all__ = ["METRICS", "bleu_of_counts", "bleu_rows", "evaluate_translations", "score_on_rows", "signatures"]

METRICS = ("bleu", "chrf")
_ORDER = 4  # n-grams of up to so many words


def evaluate_translations(translations: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """`bleu` and `chrf` of all rows together, from 0 to 100, as sacrebleu computes them by default.

    Args:
        translations: What a model wrote, N rows.
        references: What was to be written, one for each.

    Raises:
        DataError: there are no rows, or not as many of both.
        MissingExtraError: sacrebleu is not installed.
    """
    if not references or len(translations) != len(references):
        raise DataError(f"There are {len(translations)} translations of {len(references)} rows; give one for each.")
    scorers = _scorers()
    return {
        name: float(scorer.corpus_score(list(translations), [list(references)]).score)
        for name, scorer in scorers.items()
    }


def signatures() -> dict[str, str]:
    """What sacrebleu says of how each metric is computed: cases, tokens, smoothing, its version."""
    found = {}
    for name, scorer in _scorers().items():
        scorer.corpus_score(["a"], [["a"]])  # it knows the number of references only then
        found[name] = str(scorer.get_signature())
    return found


def bleu_rows(translations: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What BLEU counts in each row, int64 (N, 10): words written, words of the reference, and for n-grams of 1 to 4
    words how many are right and how many there are.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """  # noqa: D205 - one sentence
    scorer = _scorers()["bleu"]
    counts = scorer._extract_corpus_statistics(list(translations), [list(references)])
    return np.array(counts, dtype=np.int64).reshape(len(references), 2 + 2 * _ORDER)


def score_on_rows(metric: str, translations: Sequence[str], references: Sequence[str]) -> Callable[[np.ndarray], float]:
    """What gives a metric, from 0 to 100, of any sample of rows, from what it counts in each.

    Args:
        metric: One of `METRICS`.
        translations: What a model wrote, N rows.
        references: What was to be written, one for each.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    scorer = _scorers()[metric]
    counts = np.array(scorer._extract_corpus_statistics(list(translations), [list(references)]))
    return lambda rows: float(scorer._compute_score_from_stats(counts[rows].sum(axis=0).tolist()).score)


def bleu_of_counts(counts: np.ndarray) -> np.ndarray:
    """BLEU, from 0 to 100, of sums of `bleu_rows`.

    Args:
        counts: (..., 10), sums over the rows of a sample.

    Returns:
        (...); equal to sacrebleu's by default: n-grams of which none is right count as if 1/2, then 1/4, ... were.
    """
    counts = np.asarray(counts, dtype=np.float64)
    written, wanted = counts[..., 0], counts[..., 1]
    right, there = counts[..., 2 : 2 + _ORDER], counts[..., 2 + _ORDER :]
    missed = np.cumsum((right == 0) & (there > 0), axis=-1)
    smooth = np.where(right > 0, right, 0.5**missed)
    shares = smooth / np.maximum(there, 1)
    brevity = np.minimum(0.0, 1 - wanted / np.maximum(written, 1e-9))
    with np.errstate(divide="ignore"):
        value = 100 * np.exp(np.log(shares).mean(axis=-1) + brevity)
    known = (right.sum(axis=-1) > 0) & (there > 0).all(axis=-1)
    return np.where(known, value, 0.0)


def _scorers() -> dict[str, Any]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise MissingExtraError('Scoring translations needs sacrebleu: pip install "multipress[train]".') from None
    return {"bleu": BLEU(), "chrf": CHRF()}
