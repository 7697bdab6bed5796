import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multipress.errors import DataError, SpecError
from multipress.spec import DataSpec
from multipress.tasks import load_task

TRAIN = [
    ("good film", "positive"),
    ("bad film", "negative"),
    ("fine film", "positive"),
    ("dull film", "negative"),
]
DEV = [("great film", "positive"), ("poor film", "negative")]


@pytest.fixture
def load(tmp_path):
    """Write two CSV files and load them; settings go to `DataSpec`."""

    def load_files(train=TRAIN, dev=DEV, header=("text", "label"), dev_header=None, **settings):
        for name, rows, names in (("train", train, header), ("dev", dev, dev_header or header)):
            with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([names, *rows])
        return load_task(DataSpec(train=str(tmp_path / "train.csv"), dev=str(tmp_path / "dev.csv"), **settings))

    return load_files


@pytest.fixture
def load_json(tmp_path):
    """The same with JSON lines, so that values have kinds."""

    def load_files(train, dev, **settings):
        for name, rows in (("train", train), ("dev", dev)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_task(DataSpec(train=str(tmp_path / "train.jsonl"), dev=str(tmp_path / "dev.jsonl"), **settings))

    return load_files


def labelled(labels, prefix="text"):
    return [(f"{prefix} {i}", label) for i, label in enumerate(labels)]


# What is read


def test_texts_and_labels_are_read_in_order_and_labels_by_name(load):
    data = load()
    assert data.task.labels == ("negative", "positive")
    assert data.task.num_outputs == 2
    assert data.train.texts == [text for text, _ in TRAIN]
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert data.train.labels.dtype == np.int64
    assert data.dev.labels.tolist() == [1, 0]
    assert data.notes == ()
    assert data.facts["text_columns"] == ["text"]
    assert data.facts["label_column"] == "label"


def test_two_texts_a_row_make_a_pair(load):
    header = ("premise", "hypothesis", "label")
    data = load(train=[("a", "b", "x"), ("c", "d", "y")], dev=[("a", "d", "x"), ("c", "b", "y")], header=header)
    assert data.task.is_pair
    assert data.train.pairs == ["b", "d"]


def test_columns_can_be_named(load):
    header = ("title", "body", "topic")
    rows = {"train": [("a", "b", "x"), ("c", "d", "y")], "dev": [("e", "f", "x"), ("g", "h", "y")]}
    one = load(**rows, header=header, text=("title",), label="topic")
    two = load(**rows, header=header, text=("body", "title"), label="topic")
    assert (one.train.texts, one.train.pairs) == (["a", "c"], None)
    assert (two.train.texts, two.train.pairs) == (["b", "d"], ["a", "c"])


def test_the_only_column_beside_the_label_and_the_identity_is_the_text(load):
    rows = [("0", "one", "x"), ("1", "two", "y")]
    data = load(train=rows, dev=[("0", "three", "x")], header=("", "Headline", "Label"))
    assert data.train.texts == ["one", "two"]


@pytest.mark.parametrize("words", [("NA", "null"), ("nan", "None"), ("N/A", "-1"), ("inf", "nan")])
def test_words_for_nothing_are_labels_and_texts_like_any_other(load, words):
    rows = [(word, word) for word in words]
    data = load(train=rows, dev=labelled(words, "dev"))
    assert data.task.labels == tuple(sorted(words))
    assert data.train.texts == list(words)


def test_labels_that_are_numbers_are_ordered_as_numbers(load):
    labels = ["10", "9", "-1"]
    assert load(train=labelled(labels), dev=labelled(labels, "dev")).task.labels == ("-1", "9", "10")


@settings(deadline=None, max_examples=40)
@given(
    names=st.lists(st.text(st.sampled_from("ab01.-é "), min_size=1, max_size=4), min_size=2, max_size=6)
    .map(lambda names: [name.strip() for name in names])
    .filter(lambda names: all(names) and len(set(names)) > 1),
    data=st.data(),
)
def test_the_order_of_rows_does_not_change_the_classes(tmp_path_factory, names, data):
    folder = tmp_path_factory.mktemp("order")
    mixed = data.draw(st.permutations(names))
    tasks = []
    for i, labels in enumerate([names, mixed]):
        for split in ("train", "dev"):
            rows = [{"text": f"{split} {j}", "label": label} for j, label in enumerate(labels)]
            (folder / f"{split}{i}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        loaded = load_task(
            DataSpec(train=str(folder / f"train{i}.jsonl"), dev=str(folder / f"dev{i}.jsonl"), target="classes")
        )
        assert [loaded.task.labels[k] for k in loaded.train.labels] == labels
        tasks.append(loaded.task)
    assert tasks[0] == tasks[1]


def test_numbers_with_fractions_are_a_number_to_predict(load):
    data = load(train=labelled(["1.5", "3", "4e0"]), dev=labelled(["2", "0.25"], "dev"))
    assert (data.task.target, data.task.labels, data.task.num_outputs) == ("number", (), 1)
    assert data.task.score == "pearson"
    assert data.train.labels.dtype == np.float32
    assert data.train.labels.tolist() == [1.5, 3.0, 4.0]


@pytest.mark.parametrize("kind", [int, float, str])
def test_whole_numbers_are_classes_unless_the_target_says_number(load_json, kind):
    train = [{"text": f"t{i}", "label": kind(label)} for i, label in enumerate([1, 5, 3])]
    dev = [{"text": f"d{i}", "label": kind(label)} for i, label in enumerate([5, 1])]
    assert load_json(train, dev).task.labels == ("1", "3", "5")
    assert load_json(train, dev, target="number").dev.labels.tolist() == [5.0, 1.0]


def test_truth_values_are_two_classes(load_json):
    rows = [{"text": "a", "label": True}, {"text": "b", "label": False}]
    dev = [{"text": "c", "label": True}]
    assert load_json(rows, dev).task.labels == ("false", "true")


def test_class_names_in_parquet_are_used_and_agree_with_a_csv_of_names(tmp_path, load):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    names = ["positive", "negative"]  # not in sorted order: numbers must not be taken for positions
    features = {"info": {"features": {"mood": {"names": names, "_type": "ClassLabel"}}}}
    for split, rows in (("train", TRAIN), ("dev", DEV)):
        table = pa.table({"text": [t for t, _ in rows], "mood": [names.index(label) for _, label in rows]})
        metadata = {"huggingface": json.dumps(features)}
        parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{split}.parquet")
    ours = load_task(DataSpec(train=str(tmp_path / "train.parquet"), dev=str(tmp_path / "dev.parquet")))
    assert ours.sha256 == load().sha256
    assert ours.facts["label_column"] == "mood"


def test_a_label_in_words_beside_a_plain_number_is_the_label(load):
    rows = [("a", "0", "no"), ("b", "1", "yes")]
    dev = [("c", "1", "yes")]
    assert load(train=rows, dev=dev, header=("text", "label", "label_text")).task.labels == ("no", "yes")


def test_a_column_that_holds_the_label_is_no_identity_whatever_its_name(load):
    data = load(header=("text", "id"), label="id")
    assert data.task.labels == ("negative", "positive")


# What is refused and counted


def test_rows_without_text_or_label_are_refused_and_counted(load):
    train = [*TRAIN, ("", "positive"), (" \t", "negative"), ("film", " ")]
    data = load(train=train)
    facts = data.facts["train"]
    assert facts["refused"] == {"empty label": 1, "empty text": 2}
    assert facts["rows_found"] == facts["rows_used"] + facts["rows_refused"] + facts["rows_left_out"] == 7
    assert data.train.texts == [text for text, _ in TRAIN]
    (note,) = data.notes
    assert "3 of 7 rows refused (1 with an empty label, 2 with an empty text); the first: line 6" in note


def test_more_than_half_refused_is_an_error(load):
    with pytest.raises(DataError, match=r"5 of 9 rows refused.*More than half"):
        load(train=[*TRAIN, *[("", "positive")] * 5])


def test_class_number_minus_one_means_no_label(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    features = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["x", "y", "z"], "label": [0, -1, 1]})
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "train.parquet"
    )
    (tmp_path / "dev.csv").write_text("text,label\nu,a\nv,b\n")
    data = load_task(DataSpec(train=str(tmp_path / "train.parquet"), dev=str(tmp_path / "dev.csv")))
    assert data.train.texts == ["x", "z"]
    assert data.facts["train"]["refused"] == {"empty label": 1}


# What is an error

H3 = ("text", "label", "id")
BAD_CSV = {
    "no label column": ({"header": ("text", "topic")}, r"the label is in no column.*'topic'.*--label"),
    "no text column": (
        {"header": ("one", "two", "label"), "train": [("a", "b", "x")]},
        r"the text could be in one or two",
    ),
    "two label columns": (
        {"header": ("text", "intent", "sentiment")},
        r"label could be in 'intent', 'sentiment'",
    ),
    "two text columns": ({"header": ("text", "review", "label")}, r"text could be in text or review.*--text"),
    "named text missing": ({"text": ("body",)}, r"no text column 'body'; its columns: 'text', 'label'"),
    "named label missing": ({"label": "topic"}, r"no label column 'topic'"),
    "three text columns": ({"text": ("a", "b", "c")}, r"must be one or two"),
    "label as text": ({"text": ("label",), "label": "label"}, r"none of them the label's"),
    "column missing in dev": ({"dev_header": ("sentence", "label")}, r"dev\.csv has no text column 'text'"),
    "one class": ({"train": [("a", "x"), ("b", "x")]}, r"train\.csv: all rows have the label 'x'"),
    "unknown label in dev": (
        {"dev": [("a", "neutral")]},
        r"dev\.csv, line 2: unknown label 'neutral'; known are: 'neg",
    ),
    "repeated identity": (
        {"header": H3, "train": [("a", "x", "7"), ("b", "y", "8"), ("c", "x", "7")]},
        r"train\.csv, line 4: id '7' was already used at .*line 2",
    ),
    "a class for each row": (
        {"train": labelled(map(str, range(50))), "dev": labelled(["1"], "dev")},
        r"50 different labels in 50 rows are too many.*--label",
    ),
    "no number": (
        {"train": labelled(["0.5", "1.5", "n/a"])},
        r"line 4: the label is 'n/a', but the labels are numbers",
    ),
    "nan": ({"train": labelled(["0.5", "1.5", "nan"])}, r"line 4: the label is 'nan'"),
    "inf": ({"train": labelled(["0.5", "1", "inf"]), "target": "number"}, r"line 4: the label is 'inf'"),
    "too large": ({"train": labelled(["0.5", "1", "1e39"])}, r"line 4: the label 1e39 is too large"),
    "names for a number": ({"target": "number"}, r"train\.csv, line 2: the label is 'positive'"),
    "same number": (
        {"train": labelled(["1.5"] * 3), "dev": labelled(["1", "2"], "dev")},
        r"All 3 train labels are 1\.5",
    ),
    "same number in dev": (
        {"train": labelled(["1.5", "2"]), "dev": labelled(["1", "1"], "dev")},
        r"All 2 validation labels are 1",
    ),
    "dev is train": ({"dev": TRAIN}, r"dev\.csv: 4 of 4 rows are also in train, above 20%"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_rows_are_an_error_that_says_what_and_where(load, case):
    settings_, message = BAD_CSV[case]
    settings_ = dict(settings_)
    width = len(settings_.get("header", ("text", "label")))
    for name, rows in (("train", TRAIN), ("dev", DEV)):
        rows = settings_.get(name, rows)
        settings_[name] = [(*row, *["0", "1"])[:width] for row in rows]
    with pytest.raises(DataError, match=message) as caught:
        load(**settings_)
    assert "\n" not in str(caught.value)


BAD_JSON = {
    "number as text": ([{"text": 5, "label": "a"}], r"line 1: column 'text' holds '5' \(int\)"),
    "several labels a row": ([{"text": "x", "label": ["a"]}], r"line 1: the label is \['a'\], several values.*token"),
    "a list as a text": ([{"text": "x", "label": '["a", "b"]'}], r"line 1: the label is \[\"a\", \"b\"\], several"),
    "a tag for each token": (
        [{"text": "x y", "label": "O B-PER"}, {"text": "z", "label": "O"}, {"text": "y z", "label": "B-PER I-PER"}],
        r"2 labels are several each: the label is B-PER I-PER",
    ),
    "names between commas": (
        [{"text": str(n), "label": name} for n, name in enumerate(("a", "b", "c", "a,b", "c, b"))],
        r"2 labels are several each: the label is a,b",
    ),
    "nan label": ([{"text": "x", "label": float("nan")}], r"line 1: the label is nan"),
    "half a surrogate pair": (
        [{"text": "ok", "label": 1}, {"text": "\ud800", "label": 2}],
        r"line 2: .*surrogate",
    ),
    "half a surrogate pair as label": (
        [{"text": "x", "label": "\ud800"}, {"text": "y", "label": "b"}],
        r"line 1: .*surrogate",
    ),
    "huge number": ([{"text": "x", "label": 10**400}], r"line 1: the label is .*below 2\*\*63"),
    "all empty": ([{"text": None, "label": 1}], r"1 of 1 rows refused \(1 with an empty text\)"),
    "repeated number": (
        [{"text": "x", "label": 1, "idx": 3}, {"text": "y", "label": 2, "idx": 3}],
        r"line 2: idx 3 was",
    ),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_values_are_an_error_that_says_what_and_where(load_json, case):
    rows, message = BAD_JSON[case]
    with pytest.raises(DataError, match=message):
        load_json(rows, [{"text": "z", "label": 1}])


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({}, "no train file"),
        ({"train": "train.csv"}, "no dev file"),
        ({"task": "sst2", "train": "train.csv"}, "task .sst2. and files too"),
        ({"task": "sst3"}, r"No task 'sst3'; there are: banking77, cola, .*, sst2, stsb"),
    ],
)
def test_a_data_spec_that_says_too_little_or_too_much_is_an_error(settings_, message):
    with pytest.raises(SpecError, match=message):
        load_task(DataSpec(**settings_))


def test_an_unknown_target_is_an_error(load):
    with pytest.raises(SpecError, match="must be classes, number, text"):
        load(target="regression")


@settings(deadline=None, max_examples=80)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "text": st.none() | st.text(max_size=3) | st.integers() | st.just("x"),
                "label": st.none() | st.text(max_size=2) | st.floats() | st.integers() | st.booleans(),
                "idx": st.integers(0, 9),
            },
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_rows_are_used_counted_or_refused_with_a_data_error(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    (folder / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    dev = [row | {"text": f"{row['text']} in dev"} for row in rows if isinstance(row.get("text"), str)]
    (folder / "dev.jsonl").write_text("\n".join(json.dumps(row) for row in dev))
    try:
        data = load_task(DataSpec(train=str(folder / "train.jsonl"), dev=str(folder / "dev.jsonl")))
    except DataError:
        return
    facts = data.facts["train"]
    assert facts["rows_found"] == len(rows) == facts["rows_used"] + facts["rows_refused"]
    assert len(data.train) == facts["rows_used"]


def test_the_order_of_the_classes_can_be_given_and_holds_those_of_the_rows(load):
    data = load(labels=("positive", "unsure", "negative"))
    assert data.task.labels == ("positive", "unsure", "negative")
    assert [data.task.labels[index] for index in data.train.labels] == [label for _, label in TRAIN]
    assert data.dev.labels.tolist() == [0, 2]
    with pytest.raises(DataError, match="the label 'negative' is none of positive, unsure"):
        load(labels=("positive", "unsure"))


def test_names_with_commas_and_brackets_are_names(load_json):
    names = ["Food, drink", "Sports; games", "[other", "Food"]
    rows = [{"text": str(n), "label": name} for n, name in enumerate(names * 3)]
    assert load_json(rows, [{"text": "x", "label": "Food"}]).task.labels == tuple(sorted(names))


def test_a_class_that_is_called_nothing_is_told(load_json):
    rows = [{"text": str(n), "label": name} for n, name in enumerate(["nan", "a", "b"] * 3)]
    loaded = load_json(rows, [{"text": "x", "label": "a"}])
    assert loaded.task.labels == ("a", "b", "nan")
    assert any("'nan' is a class like any other" in note for note in loaded.notes)


def test_f1_says_of_which_class_it_is(load_json):
    rows = [{"text": str(n), "label": name} for n, name in enumerate(["fraud", "legit"] * 3)]
    notes = load_json(rows, [{"text": "x", "label": "fraud"}], metric="f1").notes
    assert any("f1 is that of 'legit'" in note for note in notes)
