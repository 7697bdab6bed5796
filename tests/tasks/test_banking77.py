import csv
from pathlib import Path

import pytest

from multipress import tasks
from multipress.spec import DataSpec
from multipress.tasks import load_task

FOLDER = Path(tasks.__file__).parent / "data" / "banking77"


@pytest.fixture(scope="module")
def data():
    return load_task(DataSpec(task="banking77"))


def test_both_official_splits_are_whole(data):
    assert (len(data.train), len(data.dev), data.task.num_outputs) == (10003, 3080, 77)
    # The official test split holds 40 rows of each intent.
    assert {int((data.dev.labels == k).sum()) for k in range(77)} == {40}
    assert set(data.train.labels.tolist()) == set(range(77))


def test_every_label_is_that_of_its_line(data):
    for split, file in ((data.train, "train.csv"), (data.dev, "test.csv")):
        with (FOLDER / file).open(newline="", encoding="utf-8") as rows:
            lines = list(csv.DictReader(rows))
        assert [line["text"] for line in lines] == split.texts
        assert [line["label"] for line in lines] == [data.task.labels[k] for k in split.labels]


def test_the_six_rows_that_are_also_in_train_are_noted(data):
    known = set(data.train.texts)
    assert data.facts["dev_rows_also_in_train"] == sum(text in known for text in data.dev.texts) == 6
    assert int((~data.dev_unseen).sum()) == 6
    assert [note for note in data.notes if note.startswith("6 of 3,080 validation rows are also in train")]


def test_the_attribution_is_shipped_beside_the_rows():
    text = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for part in ("CC BY 4.0", "PolyAI-LDN/task-specific-datasets", "57ec275d8078", "Casanueva", "changed"):
        assert part in text


def test_shipped_rows_are_those_of_the_source(data, data_dir):
    parquet = pytest.importorskip("pyarrow.parquet")
    for split, file in ((data.train, "train"), (data.dev, "test")):
        source = parquet.ParquetFile(data_dir / "banking77" / f"{file}.parquet").read()
        assert source["text"].to_pylist() == split.texts
        assert source["label_text"].to_pylist() == [data.task.labels[k] for k in split.labels]
