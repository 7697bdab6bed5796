"""Standard errors and intervals over rows: known formulas, their coverage, and a second library."""

import numpy as np
import pytest
from scipy import stats

from multipress.measure.intervals import change_error, change_interval, score_error, score_interval
from multipress.tasks import Task

CLASSES = Task("t", "classes", ("no", "yes"), ("accuracy", "macro_f1"), "accuracy")
F1 = Task("t", "classes", ("no", "yes"), ("accuracy", "macro_f1"), "macro_f1")
NUMBER = Task("t", "number", (), ("pearson",), "pearson")


def logits_of(right, labels):
    """Logits (N, 2) that are right on these rows."""
    predicted = np.where(right, labels, 1 - labels)
    return np.stack([1.0 - predicted, predicted.astype(float)], axis=1)


@pytest.mark.parametrize(("right", "rows"), [(0, 40), (37, 40), (40, 40), (700, 1500)])
def test_the_interval_of_the_accuracy_is_wilsons(right, rows):
    labels = np.arange(rows) % 2
    found = score_interval(CLASSES, logits_of(np.arange(rows) < right, labels), labels)
    expected = stats.binomtest(right, rows).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert found[0] < found[1]


def test_no_change_has_an_interval_with_a_width():
    labels = np.arange(50) % 2
    logits = logits_of(np.arange(50) < 45, labels)
    low, high = change_interval(CLASSES, logits, logits, labels)
    assert low == pytest.approx(-high)
    assert 0.01 < high < 0.1
    assert 0.005 < change_error(CLASSES, logits, logits, labels) < 0.05


@pytest.mark.parametrize(
    ("rows", "gain", "loss"), [(60, 0.02, 0.05), (100, 0.01, 0.01), (100, 0.0, 0.01), (400, 0.05, 0.02)]
)
def test_both_intervals_cover_the_truth(rows, gain, loss):
    """Over 1,000 draws of rows: 95 % but for chance, and never far below, as percentiles of drawn rows are."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    kinds = random.choice(4, p=[0.9 - loss, loss, gain, 0.1 - gain], size=(1000, rows))
    changed = scored = 0
    for kind in kinds:
        before, after = logits_of(kind < 2, labels), logits_of(kind % 2 == 0, labels)
        low, high = change_interval(CLASSES, before, after, labels)
        changed += low <= gain - loss <= high
        low, high = score_interval(CLASSES, after, labels)
        scored += low <= 0.9 - loss + gain <= high
    assert changed / 1000 > 0.925
    assert scored / 1000 > 0.925


def test_the_error_of_many_rows_is_that_of_the_paired_differences():
    random = np.random.default_rng(0)
    labels = random.integers(2, size=4000)
    right = random.random((2, 4000)) < 0.9
    before, after = (logits_of(one, labels) for one in right)
    spread = np.std(right[1].astype(float) - right[0], ddof=1) / np.sqrt(4000)
    assert change_error(CLASSES, before, after, labels) == pytest.approx(spread, rel=0.01)
    assert score_error(CLASSES, after, labels) == pytest.approx(right[1].std() / np.sqrt(4000), rel=0.01)


@pytest.mark.parametrize("task", [F1, NUMBER], ids=["macro_f1", "pearson"])
def test_other_scores_have_the_percentiles_of_drawn_rows(task):
    """Against scipy's bootstrap, of a score that is computed here by scikit-learn and scipy."""
    from sklearn.metrics import f1_score

    random = np.random.default_rng(1)
    if task is F1:
        labels = random.integers(2, size=200)
        outputs = logits_of(random.random(200) < 0.8, labels)
        others = logits_of(random.random(200) < 0.7, labels)
    else:
        labels = random.normal(size=200)
        outputs, others = (labels[:, None] + noise * random.normal(size=(200, 1)) for noise in (0.5, 1.0))

    def score(labels, predicted):
        if task is F1:
            return f1_score(labels, predicted.argmax(axis=1), average="macro")
        return stats.pearsonr(labels, predicted[:, 0]).statistic

    def drawn(statistic):
        rows = np.arange(200)
        return stats.bootstrap(
            (rows,), statistic, method="percentile", n_resamples=1000, vectorized=False, rng=np.random.default_rng(2)
        )

    alone = drawn(lambda rows: score(labels[rows], outputs[rows]))
    assert score_interval(task, outputs, labels) == pytest.approx(tuple(alone.confidence_interval), abs=0.01)
    assert score_error(task, outputs, labels) == pytest.approx(alone.standard_error, rel=0.1)
    both = drawn(lambda rows: score(labels[rows], outputs[rows]) - score(labels[rows], others[rows]))
    assert change_interval(task, others, outputs, labels) == pytest.approx(tuple(both.confidence_interval), abs=0.015)
    assert change_error(task, others, outputs, labels) == pytest.approx(both.standard_error, rel=0.1)
