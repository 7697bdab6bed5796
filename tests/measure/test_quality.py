"""Quality: read from the folder, scored by the task's metrics."""

import numpy as np
import pytest

from multipress.errors import DataError
from multipress.measure import measure_quality
from multipress.runtime import Predictor
from multipress.tasks import Split, Task

TEXTS = [f"w{index} w{index * 7 % 50}" for index in range(40)] + ["w1 " * 30]


def task_of(artifact) -> Task:
    return Task.from_json(artifact.facts["task"])


def test_accuracy_is_the_share_of_rows_that_are_predicted_right(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a")
    found = [prediction.label for prediction in Predictor(tmp_path / "a")(TEXTS)]
    labels = np.array([["bad", "fair", "good"].index(label) for label in found])
    labels[:10] = (labels[:10] + 1) % 3
    rows, logits = measure_quality(artifact, Split(TEXTS, None, labels), task_of(artifact))
    values = {row.name: row.value for row in rows}
    assert values["accuracy"] == values["score"] == pytest.approx(31 / 41)
    assert np.array_equal(logits, Predictor(tmp_path / "a").logits(TEXTS))
    assert {row.unit for row in rows} == {"share"}
    assert rows[0].context["rows"] == 41
    assert rows[0].context["truncated_rows"] == 1


def test_numbers_are_scored_by_correlation(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a", target="number")
    labels = 3 * Predictor(artifact).logits(TEXTS)[:, 0] + 1
    rows, _ = measure_quality(artifact, Split(TEXTS, None, labels), task_of(artifact))
    assert {row.name: row.value for row in rows}["pearson"] == pytest.approx(1.0)


def test_labels_in_another_order_are_refused(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "a")
    task = Task("text", "classes", ("good", "fair", "bad"), ("accuracy",), "accuracy")
    with pytest.raises(DataError, match="good"):
        measure_quality(artifact, Split(TEXTS, None, np.zeros(41, dtype=np.int64)), task)
