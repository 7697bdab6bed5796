import json
import sys
import types

import numpy as np
import pytest

from multipress.errors import DataError, MissingExtraError
from multipress.spec import DataSpec
from multipress.tasks import glue, list_tasks, load_task

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SST2 = DataSpec(task="sst2")


def sst2(labels, names=None, prefix="text"):
    """A table laid out as SST-2's; with `names`, the labels are numbers of a ClassLabel."""
    table = pa.table({"sentence": [f"{prefix} {i}" for i in range(len(labels))], "label": labels})
    if names is None:
        return table
    features = {"sentence": {"_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(folder, train, dev, task="sst2"):
    (folder / "glue" / task).mkdir(parents=True)
    parquet.write_table(train, folder / "glue" / task / "train.parquet")
    parquet.write_table(dev, folder / "glue" / task / "validation.parquet")


@pytest.fixture(autouse=True)
def no_folder_and_no_hub(monkeypatch):
    monkeypatch.delenv("MULTIPRESS_DATA", raising=False)

    def load_dataset(name, config):
        raise ConnectionError(f"Couldn't reach '{name}'\nmore")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))


OFFICIAL = ["negative", "positive"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1, 0, 1], OFFICIAL),
        ([1, 0, 1], None),
        ([0, 1, 0], ["positive", "negative"]),
        (["positive", "negative", "positive"], None),
    ],
    ids=["official names", "plain numbers", "names in another order", "names as text"],
)
def test_labels_are_the_official_classes_however_the_file_holds_them(tmp_path, labels, names):
    write(tmp_path, sst2(labels, names), sst2(labels, names, "dev"))
    data = load_task(SST2, tmp_path)
    assert data.task.labels == ("negative", "positive")
    assert data.train.labels.tolist() == [1, 0, 1]


def test_the_named_folder_comes_before_the_environments_and_that_before_the_hub(tmp_path, monkeypatch):
    for name in ("given", "environment"):
        write(tmp_path / name, sst2([0, 1], OFFICIAL, name), sst2([0, 1], OFFICIAL, "dev"))
    hub = {"train": sst2([0, 1], OFFICIAL, "hub"), "validation": sst2([1, 0], OFFICIAL, "dev")}
    loaded = {k: types.SimpleNamespace(data=types.SimpleNamespace(table=v)) for k, v in hub.items()}
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda name, config: loaded)
    (tmp_path / "without").mkdir()

    assert load_task(SST2).train.texts[0] == "hub 0"
    monkeypatch.setenv("MULTIPRESS_DATA", str(tmp_path / "environment"))
    assert load_task(SST2).train.texts[0] == "environment 0"
    assert load_task(SST2, tmp_path / "without").train.texts[0] == "environment 0"
    assert load_task(SST2, tmp_path / "given").train.texts[0] == "given 0"


def test_without_folder_and_hub_the_error_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no data folder was given.*glue/sst2/train\.parquet.*--data-dir") as caught:
        load_task(SST2)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=rf"it is not in {tmp_path}/glue/sst2, and the"):
        load_task(SST2, tmp_path)


def test_without_the_datasets_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "multipress\[train\]".*--data-dir'):
        load_task(SST2)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (sst2([0, 1]).rename_columns(["text", "label"]), r"lacks sentence; its columns: 'text', 'label'"),
        (sst2([0, 2]), r"row 2: the label is 2, but there are 2 classes"),
        (sst2([0, -2]), r"row 2: the label is -2, but there are 2 classes"),
        (sst2([0, 2], OFFICIAL), r"row 2: the label is 2, but the file names 2 classes"),
        (sst2([0, -2], OFFICIAL), r"row 2: the label is -2, but the file names 2 classes"),
        (sst2([0, 1], ["negative", "neutral"]), r"row 2: unknown label 'neutral'"),
        (sst2([-1, -1], OFFICIAL), r"2 of 2 rows refused \(2 with an empty label\)"),
        (sst2([-1, -1]), r"2 of 2 rows refused \(2 with an empty label\)"),
    ],
    ids=[
        "column",
        "number",
        "below 0",
        "number of names",
        "below 0 of names",
        "name",
        "unlabelled",
        "unlabelled numbers",
    ],
)
def test_rows_that_are_not_the_tasks_are_an_error(tmp_path, train, message):
    write(tmp_path, train, sst2([0, 1], prefix="dev"))
    with pytest.raises(DataError, match=message):
        load_task(SST2, tmp_path)


def test_every_glue_task_is_registered_and_sound():
    assert set(glue.GLUE) < set(list_tasks())
    for facts in glue.GLUE.values():
        assert len(facts.text) in (1, 2)
        assert facts.score in facts.metrics
        assert len(set(facts.labels)) == len(facts.labels) != 1


# Counts and class sizes: of the official splits, or of the samples of them that the folder holds (train of QNLI, QQP
# and MNLI; validation of QQP and MNLI mismatched). Rows of validation that are also in train, as in the official data.
REAL = {
    "cola": ((8551, 1043), [2528, 6023], [322, 721]),
    "sst2": ((67349, 872), [29780, 37569], [428, 444]),
    "mrpc": ((3668, 408), [1194, 2474], [129, 279]),
    "qqp": ((42054, 1000), [25355, 16699], [617, 383]),
    "mnli": ((24740, 9815), [8333, 8198, 8209], [3479, 3123, 3213]),
    "mnli_mismatched": ((24740, 1000), [8333, 8198, 8209], [350, 316, 334]),
    "qnli": ((18869, 5463), [9460, 9409], [2702, 2761]),
    "rte": ((2490, 277), [1249, 1241], [146, 131]),
}
SHARED = {"cola": 16, "stsb": 6}


@pytest.mark.parametrize("name", REAL)
def test_real_splits_have_their_official_sizes(name, data_dir):
    sizes, train, dev = REAL[name]
    data = load_task(DataSpec(task=name), data_dir)
    assert (len(data.train), len(data.dev)) == sizes
    assert np.bincount(data.train.labels).tolist() == train
    assert np.bincount(data.dev.labels).tolist() == dev
    assert data.task.is_pair == (name not in ("cola", "sst2"))
    assert data.facts["dev_rows_also_in_train"] == SHARED.get(name, 0)
    assert len(data.notes) == (name in SHARED)


def test_stsb_is_a_number_from_0_to_5_scored_by_pearson(data_dir):
    data = load_task(DataSpec(task="stsb"), data_dir)
    assert (len(data.train), len(data.dev)) == (5749, 1500)
    assert (data.task.target, data.task.score, data.task.num_outputs) == ("number", "pearson", 1)
    assert (data.dev.labels.min(), data.dev.labels.max()) == (0.0, 5.0)
    assert data.facts["dev_rows_also_in_train"] == SHARED["stsb"]


@pytest.mark.parametrize("name", sorted(glue.GLUE))
def test_class_names_are_those_of_the_hub_in_its_order(name, data_dir):
    """The files carry the hub's `ClassLabel` names; order matters, because heads and other tools go by it."""
    facts = glue.GLUE[name]
    file = data_dir / "glue" / (facts.config or name) / f"{facts.dev}.parquet"
    features = json.loads(parquet.read_schema(file).metadata[b"huggingface"])["info"]["features"]
    assert tuple(features["label"].get("names", ())) == facts.labels
    assert {*facts.text, "label"} <= set(features)


def test_the_score_is_accuracy_but_for_the_number(data_dir):
    """CoLA's too, as in the paper; what GLUE itself asks for stands beside it."""
    scores = {name: facts.score for name, facts in glue.GLUE.items()}
    assert {name for name, score in scores.items() if score != "accuracy"} == {"stsb"}
    assert glue.GLUE["cola"].metrics == ("matthews", "accuracy")
    assert all("f1" in glue.GLUE[name].metrics for name in ("mrpc", "qqp"))


def test_the_hub_library_gives_the_same_rows_as_the_files(data_dir, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "datasets")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(data_dir / "glue"), "mrpc", cache_dir=str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: loaded)
    assert load_task(DataSpec(task="mrpc")).sha256 == load_task(DataSpec(task="mrpc"), data_dir).sha256
