"""What a run predicted, scored on other samples of its rows."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from multipress.errors import StoreError
from multipress.measure import read_outcome
from multipress.tasks import evaluate_logits
from multipress.tasks.base import Task

CLASSES = ("a", "b", "c")


def stored(folder, score, target="classes", num_rows=60):
    """An attempt's folder as the executor writes it, and its task, logits and labels."""
    random = np.random.default_rng(4)
    labels = random.integers(3, size=num_rows) if target == "classes" else random.random(num_rows, dtype=np.float32)
    outputs = 3 if target == "classes" else 1
    logits = random.standard_normal((num_rows, outputs)).astype(np.float32) + labels[:, None] / 3
    logits = logits.astype(np.float32)
    task = Task("t", target, CLASSES if outputs > 1 else (), (score,), score)
    (folder / "artifact").mkdir()
    (folder / "artifact" / "manifest.json").write_text(json.dumps({"facts": {"task": task.to_json()}}))
    save_file({"logits": logits, "labels": labels}, folder / "predictions.safetensors")
    return task, logits, labels


@pytest.mark.parametrize(
    ("score", "target"),
    [("accuracy", "classes"), ("macro_f1", "classes"), ("matthews", "classes"), ("spearman", "number")],
)
def test_samples_have_the_scores_that_the_evaluation_gives(score, target, tmp_path):
    task, logits, labels = stored(tmp_path, score, target)
    outcome = read_outcome(tmp_path)
    assert outcome.num_rows == 60
    draws = np.random.default_rng(1).integers(60, size=(20, 60))
    expected = [evaluate_logits(task, logits[rows], labels[rows])["score"] for rows in draws]
    assert outcome.score_on(draws) == pytest.approx(expected, abs=1e-7)
    assert len(set(expected)) > 5


@pytest.mark.parametrize("gone", ["predictions.safetensors", "artifact/manifest.json"])
def test_what_is_missing_or_damaged_is_named(gone, tmp_path):
    stored(tmp_path, "accuracy")
    (tmp_path / gone).write_bytes(b"no")
    with pytest.raises(StoreError, match="study verify"):
        read_outcome(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(StoreError, match="study verify"):
        read_outcome(tmp_path)
