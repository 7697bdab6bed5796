"""Columns of a model's own rows, by which later files are read."""

import pytest

from multipress.errors import DataError
from multipress.tasks import Columns, load_rows, load_texts

ROWS = "id,sentence,genre\n1,a dog,pets\n2,a car,things\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


def facts(**data):
    return {"spec": {"data": {"task": "", "text": ["sentence"], "label": "genre"} | data}}


def test_columns_that_the_model_knows_are_found_and_others_still_must_be_named(file):
    rows = load_rows(file, usual=Columns.of(facts()))
    assert rows.split.texts == ["a dog", "a car"]
    assert rows.task.labels == ("pets", "things")
    with pytest.raises(DataError, match="--label"):
        load_rows(file)
    with pytest.raises(DataError, match="--label"):
        load_rows(file, usual=Columns.of(facts(label="kind")))  # the file has no such column
    assert load_rows(file, label="id", usual=Columns.of(facts()), text=("genre",)).split.texts == ["pets", "things"]


def test_texts_to_predict_too(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("heading,words\nno,yes\n")
    with pytest.raises(DataError, match="--text"):
        load_texts(path)
    assert load_texts(path, usual=Columns.of(facts(text=["words"])))[0] == ["yes"]


@pytest.mark.parametrize(
    "wrong", [{}, {"spec": None}, {"spec": {"data": []}}, facts(text="sentence", label=3), facts(task="sst2")]
)
def test_facts_that_name_none_give_none(wrong):
    assert Columns.of(wrong) == Columns()
