import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from multipress.errors import DataError, RunError, SpecError
from multipress.tasks import Task, evaluate_logits
from multipress.tasks import metrics as ours

TWO = Task("t", "classes", ("no", "yes"), ("accuracy", "f1"), "accuracy")
NUMBER = Task("t", "number", (), ("pearson", "spearman"), "pearson")


# scikit-learn takes milliseconds a call.
MANY = pytest.mark.parametrize("num_cases", [60, pytest.param(5000, marks=pytest.mark.slow)])


def class_cases(num_cases, max_classes):
    """Random labels and predictions: any agreement, classes that never occur, one row, one class."""
    rng = np.random.default_rng(1)
    for _ in range(num_cases):
        rows, classes = int(rng.integers(1, 40)), int(rng.integers(1, max_classes + 1))
        labels = rng.integers(0, classes, rows)
        keep = rng.random(rows) < rng.random()
        yield np.where(keep, labels, rng.integers(0, classes, rows)), labels


def number_cases(num_cases):
    """Random numbers of any scale and offset, half of them with many ties; never constant."""
    rng = np.random.default_rng(2)
    for case in range(num_cases):
        rows = int(rng.integers(2, 60))
        x, y = rng.normal(size=(2, rows))
        if case % 2:
            x, y = np.round(x), np.round(y)
        x, y = (
            x * 10.0 ** rng.integers(-6, 7) + rng.integers(-3, 4),
            (y + rng.random() * x).astype(np.float32),
        )
        if np.ptp(x) and np.ptp(y):
            yield x, y


@pytest.mark.filterwarnings("ignore:A single label was found")
@MANY
def test_class_metrics_equal_those_of_scikit_learn(num_cases):
    for predictions, labels in class_cases(num_cases, 6):
        assert ours.accuracy(predictions, labels) == pytest.approx(
            reference.accuracy_score(labels, predictions), abs=1e-12
        )
        assert ours.macro_f1(predictions, labels) == pytest.approx(
            reference.f1_score(labels, predictions, average="macro", zero_division=0), abs=1e-12
        )
        assert ours.matthews(predictions, labels) == pytest.approx(
            reference.matthews_corrcoef(labels, predictions), abs=1e-12
        )


@MANY
def test_f1_of_two_classes_equals_that_of_scikit_learn(num_cases):
    for predictions, labels in class_cases(num_cases, 2):
        expected = reference.f1_score(labels, predictions, labels=[1], average="macro", zero_division=0)
        assert ours.f1(predictions, labels) == pytest.approx(expected, abs=1e-12)


@MANY
def test_recall_of_each_class_equals_that_of_scikit_learn(num_cases):
    for predictions, labels in class_cases(num_cases, 5):
        expected = reference.recall_score(labels, predictions, labels=range(5), average=None, zero_division=np.nan)
        np.testing.assert_allclose(ours.per_class_recall(predictions, labels, 5), expected, atol=1e-12)


@MANY
def test_correlations_equal_those_of_scipy(num_cases):
    for x, y in number_cases(num_cases):
        wide = y.astype(np.float64)
        assert ours.pearson(x, y) == pytest.approx(stats.pearsonr(x, wide).statistic, abs=1e-12)
        assert ours.spearman(x, y) == pytest.approx(stats.spearmanr(x, wide).statistic, abs=1e-12)


def test_pearson_equals_a_sum_in_exact_order():
    for x, y in number_cases(100):
        if abs(x.mean()) > 100 * x.std():
            continue  # the reference itself loses digits there
        a, b = [v - math.fsum(x) / len(x) for v in x], [float(v) - math.fsum(y) / len(y) for v in y]
        slow = math.fsum(p * q for p, q in zip(a, b, strict=True)) / math.sqrt(
            math.fsum(p * p for p in a) * math.fsum(q * q for q in b)
        )
        assert ours.pearson(x, y) == pytest.approx(slow, abs=1e-10)


def test_tied_ranks_are_shared():
    assert ours._ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


@pytest.mark.parametrize("metric", [ours.pearson, ours.spearman])
def test_a_constant_has_no_correlation(metric):
    numbers = np.array([0.1, 0.7, 0.3])
    constant = np.full(3, 0.1 + 0.2)
    assert metric(constant, numbers) == metric(numbers, constant) == metric(constant, constant) == 0.0


def test_correlations_survive_huge_and_tiny_numbers():
    numbers = np.array([1.0, 2.0, 4.0])
    assert ours.pearson(numbers * 1e300, numbers * 1e-300) == pytest.approx(1.0)


def test_a_correlation_never_leaves_its_range():
    for x, _ in number_cases(200):
        assert ours.pearson(x, x) <= 1.0
        assert ours.pearson(x, -x) >= -1.0


def test_all_metrics_and_the_score_are_given():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]], dtype=np.float32)
    values = evaluate_logits(TWO, logits, np.array([0, 1, 1]))
    assert set(values) == {"accuracy", "f1", "macro_f1", "matthews", "score"}
    assert values["score"] == values["accuracy"] == pytest.approx(2 / 3)
    assert values["f1"] == pytest.approx(2 / 3)


def test_f1_is_given_for_two_classes_only():
    task = Task("t", "classes", ("a", "b", "c"), ("accuracy",), "accuracy")
    assert "f1" not in evaluate_logits(task, np.eye(3), np.arange(3))


def test_of_equal_logits_the_first_class_is_predicted():
    assert evaluate_logits(TWO, np.zeros((2, 2)), np.array([0, 0]))["accuracy"] == 1.0


def test_a_negative_correlation_scores_zero_but_is_shown():
    values = evaluate_logits(NUMBER, np.array([[1.0], [2.0], [3.0]]), np.array([3.0, 2.0, 1.0]))
    assert values == {"pearson": pytest.approx(-1.0), "spearman": pytest.approx(-1.0), "score": 0.0}


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_outputs_that_are_not_numbers_are_an_error(broken):
    logits = np.array([[0.0, 1.0], [broken, 0.0]])
    with pytest.raises(RunError, match="1 of 2 rows"):
        evaluate_logits(TWO, logits, np.array([0, 1]))


def test_no_rows_is_an_error():
    with pytest.raises(DataError, match="no rows"):
        evaluate_logits(TWO, np.zeros((0, 2)), np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2,)])
def test_outputs_of_another_shape_are_an_error(shape):
    with pytest.raises(DataError, match="shape"):
        evaluate_logits(TWO, np.zeros(shape), np.array([0, 1]))


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro_f1", "matthews"])
def test_any_metric_can_be_the_score(metric):
    logits, labels = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]]), np.array([0, 1, 1])
    values = evaluate_logits(ours.score_by(TWO, metric), logits, labels)
    assert values["score"] == values[metric]
    assert ours.score_by(TWO, "") is TWO


@pytest.mark.parametrize(("task", "metric", "known"), [(TWO, "pearson", "macro_f1"), (NUMBER, "f1", "spearman")])
def test_a_score_that_the_task_cannot_have_is_an_error_that_names_the_others(task, metric, known):
    with pytest.raises(SpecError, match=rf"no metric '{metric}'.*{known}"):
        ours.score_by(task, metric)


def test_a_metric_that_the_task_cannot_have_is_an_error():
    task = Task("t", "classes", ("a", "b"), ("pearson",), "accuracy")
    with pytest.raises(DataError, match=r"pearson.*accuracy"):
        evaluate_logits(task, np.eye(2), np.arange(2))
