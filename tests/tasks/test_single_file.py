import json
from dataclasses import replace

import pytest

from multipress.errors import DataError
from multipress.spec import DataSpec
from multipress.tasks import Task, load_rows, load_task, load_texts, load_validation

MOOD = Task("text", "classes", ("negative", "positive"), ("accuracy",), "accuracy")
NUMBER = Task("text", "number", (), ("pearson",), "pearson")


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="x.csv"):
        (tmp_path / name).write_text(content, encoding="utf-8")
        return tmp_path / name

    return write_file


# Labelled rows


@pytest.mark.parametrize("labels", [("negative", "positive"), ("positive", "negative")])
def test_labels_are_mapped_by_name_onto_the_models_classes(write, labels):
    path = write("text,label\na,positive\nb,negative\nc,positive\n")
    loaded = load_rows(path, task=replace(MOOD, labels=labels))
    assert [labels[k] for k in loaded.split.labels] == ["positive", "negative", "positive"]
    assert loaded.task.labels == labels


def test_label_numbers_fit_a_model_whose_classes_are_those_numbers(write):
    path = write('{"text": "a", "label": 1}\n{"text": "b", "label": 0.0}\n', "x.jsonl")
    assert load_rows(path, task=replace(MOOD, labels=("0", "1"))).split.labels.tolist() == [1, 0]


def test_label_numbers_fit_a_model_with_names_if_the_file_holds_the_names(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    features = {"info": {"features": {"label": {"names": ["positive", "negative"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    parquet.write_table(table, tmp_path / "plain.parquet")
    named = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(named, tmp_path / "named.parquet")
    assert load_rows(tmp_path / "named.parquet", task=MOOD).split.labels.tolist() == [1, 0]
    # Without names they are the numbers of the model's classes where that is asked for, and this is said.
    with pytest.raises(DataError, match=r"row 1: unknown label '0' .*known are: 'negative', 'positive'"):
        load_rows(tmp_path / "plain.parquet", task=MOOD)
    plain = load_rows(tmp_path / "plain.parquet", task=MOOD, by_number=True)
    assert plain.split.labels.tolist() == [0, 1]
    assert any("0 is negative, 1 is positive" in note for note in plain.notes)


@pytest.mark.parametrize("given", [(0, 2), (1, "negative")])
def test_numbers_beyond_the_classes_or_beside_names_are_unknown_labels(write, given):
    path = write("text,label\n" + "".join(f"a{label},{label}\n" for label in given))
    with pytest.raises(DataError, match=r"unknown label '[012]'.*known are: 'negative', 'positive'"):
        load_rows(path, task=MOOD, by_number=True)


def test_an_unknown_label_is_an_error_that_names_it(write):
    path = write("text,label\na,positive\nb,neutral\n")
    with pytest.raises(DataError, match=r"x\.csv, line 3: unknown label 'neutral'; known are: 'neg"):
        load_rows(path, task=MOOD)


def test_without_a_task_it_is_found_from_the_rows(write):
    loaded = load_rows(write("text,label\na,x\nb,y\n"))
    assert loaded.task.labels == ("x", "y")
    assert load_rows(write("text,label\na,0.5\nb,1\n")).task.target == "number"


def test_rows_of_one_class_can_be_scored_and_a_note_says_so(write):
    loaded = load_rows(write("text,label\na,positive\nb,positive\n"), task=MOOD)
    assert loaded.split.labels.tolist() == [1, 1]
    (note,) = loaded.notes
    assert note.endswith("x.csv: all 2 labels are 'positive'; the score says nothing of rows that are to have another.")
    assert load_rows(write("text,label\na,positive\nb,negative\n"), task=MOOD).notes == ()


def test_whole_numbers_are_numbers_for_a_model_of_numbers(write):
    assert load_rows(write("text,label\na,1\nb,3\n"), task=NUMBER).split.labels.tolist() == [1.0, 3.0]
    with pytest.raises(DataError, match="nothing to rank"):
        load_rows(write("text,label\na,1\nb,1\n"), task=NUMBER)


def test_refused_rows_are_counted_and_noted(write):
    loaded = load_rows(write("text,label\na,positive\n,negative\nc,negative\n"), task=MOOD)
    assert (loaded.facts["rows_found"], loaded.facts["rows_used"], loaded.facts["rows_refused"]) == (3, 2, 1)
    assert "1 of 3 rows refused" in loaded.notes[0]


def test_a_model_of_pairs_needs_two_columns_and_another_model_one(write):
    two = write("sentence1,sentence2,label\na,b,positive\n", "two.csv")
    one = write("text,label\na,positive\n", "one.csv")
    assert load_rows(two, task=replace(MOOD, is_pair=True)).split.pairs == ["b"]
    with pytest.raises(DataError, match=r"two\.csv: 2 text columns, but the model reads 1 a row.*--text"):
        load_rows(two, task=MOOD)
    with pytest.raises(DataError, match=r"one\.csv: 1 text column, but the model reads 2 a row"):
        load_rows(one, task=replace(MOOD, is_pair=True))
    assert load_rows(two, task=MOOD, text=("sentence1",)).split.texts == ["a"]


def test_a_registered_task_gives_its_validation_rows_on_the_models_classes():
    own = load_task(DataSpec(task="banking77"))
    turned = replace(own.task, labels=own.task.labels[::-1])
    loaded = load_validation("banking77", task=turned)
    assert loaded.split.texts == own.dev.texts
    assert (76 - loaded.split.labels == own.dev.labels).all()
    assert loaded.facts["dev_indices_also_in_train"] == own.facts["dev_indices_also_in_train"]
    assert "6 of 3,080 rows are also in banking77's train split." in loaded.notes


def test_a_registered_task_of_other_texts_is_an_error(data_dir):
    with pytest.raises(DataError, match=r"2 text columns, but the model reads 1 a row\. So mrpc is no task for it\.$"):
        load_validation("mrpc", task=MOOD, data_dir=data_dir)


def test_a_registered_task_of_other_classes_is_an_error():
    with pytest.raises(DataError, match=r"test\.csv, line 2: unknown label 'card_arrival'"):
        load_validation("banking77", task=MOOD)


# Texts to predict


def test_a_text_file_holds_one_text_a_line(write):
    assert load_texts(write("one\r\n\ntwo, three\n", "x.txt")) == (["one", "", "two, three"], None)


def test_texts_of_columns_keep_every_row(write):
    assert load_texts(write('label,text\nx,"a, b"\ny,\n')) == (["a, b", ""], None)
    assert load_texts(write('{"text": null}\n{"text": "b"}\n', "x.jsonl")) == (["", "b"], None)
    pairs = write("premise,hypothesis\na,b\n,d\n", "p.csv")
    assert load_texts(pairs, is_pair=True) == (["a", ""], ["b", "d"])


@pytest.mark.parametrize(
    ("name", "content", "is_pair", "message"),
    [
        ("x.txt", "", False, "holds no text"),
        ("x.txt", "a\n", True, "1 text column, but the model reads 2"),
        ("x.csv", "premise,hypothesis\na,b\n", False, "2 text columns, but the model reads 1"),
        ("x.csv", "one,two\na,b\n", False, "the text could be in one or two"),
        ("x.csv", "id,label\na,b\n", False, "the text is in no column"),
        ("x.doc", "a", False, r"a file of texts ends in \.txt, \.csv"),
    ],
)
def test_a_file_without_the_texts_is_an_error(write, name, content, is_pair, message):
    with pytest.raises(DataError, match=message):
        load_texts(write(content, name), is_pair=is_pair)
