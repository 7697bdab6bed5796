"""Rows to train, to select by and to report on: none is in two of them."""

import json

import pytest

from multipress.budget.rows import FEWEST, read_rows, write_rows
from multipress.budget.start import Outputs
from multipress.engines.job import ANYWHERE
from multipress.errors import DataError
from multipress.spec import DataSpec
from multipress.tasks import load_task


def make_rows(asked, test, folder, places, labels=None):
    read = read_rows(asked, test, places)
    labels = read.task.labels if labels is None else labels
    return write_rows(read, asked, Outputs("m", labels, read.task.labels), folder)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def labelled(name, count, start=0):
    return [{"text": f"{name} number {i}", "label": ("up", "down")[i % 2]} for i in range(start, start + count)]


@pytest.fixture
def asked(tmp_path):
    train = write(tmp_path / "train.jsonl", labelled("train", 30))
    dev = write(tmp_path / "dev.jsonl", labelled("dev", 101))
    return DataSpec(train=train, dev=dev)


def test_without_a_test_file_the_validation_rows_are_split_in_halves(asked, tmp_path):
    rows = make_rows(asked, "", tmp_path / "search", ANYWHERE)
    assert not rows.shared.any()
    assert (len(rows.select), len(rows.report)) == (50, 51)
    assert "50 are to select by and 51 to report on" in read_rows(asked, "", ANYWHERE).notes[-1]
    assert sorted(rows.select.texts + rows.report.texts) == sorted(f"dev number {i}" for i in range(101))
    again = make_rows(asked, "", tmp_path / "search", ANYWHERE)
    assert again.select.texts == rows.select.texts


def test_rows_of_one_text_are_in_one_half(tmp_path):
    train = write(tmp_path / "train.jsonl", labelled("train", 30))
    dev = write(tmp_path / "dev.jsonl", labelled("dev", 60) * 2)
    rows = make_rows(DataSpec(train=train, dev=dev), "", tmp_path / "search", ANYWHERE)
    assert not set(rows.select.texts) & set(rows.report.texts)
    assert (len(rows.select), len(rows.report)) == (60, 60)
    assert not rows.shared.any()


def test_what_is_written_is_read_as_the_same_rows(asked, tmp_path):
    rows = make_rows(asked, "", tmp_path / "search", ANYWHERE)
    loaded = load_task(rows.data)
    assert loaded.task == rows.task
    assert loaded.dev.texts == rows.select.texts
    assert loaded.dev.labels.tolist() == rows.select.labels.tolist()
    assert len(loaded.train) == 30


def test_pairs_and_numbers_are_read_as_the_same_rows_too(tmp_path):
    pairs = [{"a": f"one {i}", "b": f"two {i}", "score": i + 0.5} for i in range(120)]
    train, dev = write(tmp_path / "train.jsonl", pairs[:20]), write(tmp_path / "dev.jsonl", pairs[20:])
    asked = DataSpec(train=train, dev=dev, text=("a", "b"), label="score")
    rows = make_rows(asked, "", tmp_path / "search", ANYWHERE)
    loaded = load_task(rows.data)
    assert loaded.task == rows.task
    assert loaded.task.score == "pearson"
    assert loaded.dev.pairs == rows.select.pairs
    assert loaded.dev.labels.tolist() == rows.select.labels.tolist()


def test_a_test_file_leaves_the_validation_rows_whole_and_shared_rows_are_told(asked, tmp_path):
    test = write(tmp_path / "test.jsonl", labelled("test", 20) + labelled("dev", 3) + labelled("train", 2))
    rows = make_rows(asked, test, tmp_path / "search", ANYWHERE)
    notes = read_rows(asked, test, ANYWHERE).notes
    assert rows.shared.tolist() == [not text.startswith("test") for text in rows.report.texts]
    assert rows.shared.sum() == 5
    assert (len(rows.select), len(rows.report)) == (101, 25)
    assert any("3 of 25 test rows are also in the validation rows" in note for note in notes)
    assert any("2 of 25 test rows are also in the train rows" in note for note in notes)


def test_too_few_rows_to_select_by_are_refused(tmp_path):
    train = write(tmp_path / "train.jsonl", labelled("train", 30))
    dev = write(tmp_path / "dev.jsonl", labelled("dev", 2 * FEWEST - 2))
    with pytest.raises(DataError, match="39 rows to select by, 40 are the fewest"):
        make_rows(DataSpec(train=train, dev=dev), "", tmp_path / "search", ANYWHERE)
    assert not (tmp_path / "search").exists()


def test_validation_rows_inside_the_train_file_are_refused(tmp_path):
    train = write(tmp_path / "train.jsonl", labelled("x", 200))
    dev = write(tmp_path / "dev.jsonl", labelled("x", 100))
    with pytest.raises(DataError, match="also in train"):
        make_rows(DataSpec(train=train, dev=dev), "", tmp_path / "search", ANYWHERE)


def test_labels_keep_the_order_of_the_model_and_classes_without_a_drawn_row_stay(tmp_path):
    names = ["zero", "one", "two", "three"]
    rows = [{"text": f"row {i}", "label": names[i % 4]} for i in range(300)]
    train, dev = write(tmp_path / "train.jsonl", rows[:100]), write(tmp_path / "dev.jsonl", rows[100:])
    asked = DataSpec(train=train, dev=dev, max_train_rows=5)
    made = make_rows(asked, "", tmp_path / "search", ANYWHERE, tuple(names))
    loaded = load_task(made.data)
    assert loaded.task.labels == made.task.labels == tuple(names)
    assert len(loaded.train) == 5
    for split in (loaded.dev, made.select, made.report):
        meant = [names[int(text.split()[1]) % 4] for text in split.texts]
        assert [names[label] for label in split.labels] == meant


@pytest.mark.parametrize("task", ["cola", "mrpc"])
def test_registered_tasks_keep_their_order(task, data_dir, tmp_path):
    asked = DataSpec(task=task, max_train_rows=200, max_eval_rows=200)
    whole = load_task(asked, data_dir)
    rows = make_rows(asked, "", tmp_path / "search", ANYWHERE)
    known = dict(zip(whole.dev.texts, whole.dev.labels.tolist(), strict=True))
    assert rows.task.labels == whole.task.labels
    loaded = load_task(rows.data)
    for split in (loaded.dev, rows.report):
        assert [known[text] for text in split.texts] == split.labels.tolist()


def test_a_test_file_that_is_the_validation_file_is_refused(asked, tmp_path):
    with pytest.raises(DataError, match="101 of 101 rows are also validation rows"):
        make_rows(asked, asked.dev, tmp_path / "search", ANYWHERE)
