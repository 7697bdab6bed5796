"""Study files, runs as JSON, and the identity of a run part by part."""

import dataclasses
import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipress.errors import SpecError
from multipress.plan import expand_chains
from multipress.spec import DataSpec, MethodSpec, RunSpec, TrainingSpec, canonical_json, run_id
from multipress.study_file import parse_study, read_study
from multipress.tasks import list_tasks

STUDY = """
[study]
name = "small"
seeds = [0, 1]
[models]
names = ["minilm-l3"]
[tasks]
names = ["banking77"]
max_train_rows = 100
[training]
epochs = 2
learning_rates = [1e-4, 3e-4]
[methods]
subsets = [[], ["pruning"]]
[methods.pruning]
sparsity = [0.4, 0.6]
"""
RUN = RunSpec(
    kind="train",
    model="folder/of/a/model",
    data=DataSpec(train="here/train.csv", dev="here/dev.csv", text=("a", "b"), label="c"),
    training=TrainingSpec(),
    methods=(MethodSpec("pruning", {"sparsity": 0.6, "scope": "global"}),),
    seed=3,
    teacher="0123456789ab",
)
FACTS = {
    "model": "m",
    "data": "d",
    "methods": {"pruning": 1},
    "loop": 1,
    "packing": 1,
    "artifact": 1,
    "libraries": {"torch": "2.13"},
}
FACTS |= {"route": "fp32", "threads": 1}


def write(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def test_a_study_file_is_read_with_its_defaults(tmp_path):
    study = read_study(write(tmp_path, STUDY))
    assert study.models == ("minilm-l3",)
    assert study.data == (DataSpec(task="banking77", max_train_rows=100),)
    assert study.seeds == (0, 1)
    assert study.learning_rates == (1e-4, 3e-4)
    assert study.training == TrainingSpec(epochs=2)
    assert study.subsets == ((), ("pruning",))
    assert study.methods == {"pruning": {"sparsity": [0.4, 0.6]}}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[study]", "[stduy]", "stduy"),
        ("seeds = [0, 1]", "seed = [0]", "known are: name, report_to, seeds"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "twice"),
        ("seeds = [0, 1]", "seeds = [-1]", "study.seeds"),
        ("seeds = [0, 1]", "seeds = []", "study.seeds"),
        ("epochs = 2", "epoch = 2", "known are: adam_beta2"),
        ("epochs = 2", "epochs = 0", "epochs"),
        ("epochs = 2", "epochs = true", "epochs"),
        ("epochs = 2", 'epochs = "2"', "epochs"),
        ("[1e-4, 3e-4]", "[]", "learning_rates"),
        ("[1e-4, 3e-4]", '["1e-4"]', "learning_rates"),
        ("max_train_rows = 100", "max_train_rows = -1", "max_train_rows"),
        ("max_train_rows = 100", "max_train_rows = { banking77 = -1 }", "max_train_rows"),
        ("max_train_rows = 100", "max_train_rows = { sst2 = 5 }", "'sst2', which is not in tasks.names"),
        ("max_train_rows = 100", "max_train_rows = {}", "empty table"),
        ("max_train_rows = 100", 'max_train_rows = { "" = 5 }', "not in tasks.names"),
        ('names = ["banking77"]', "names = []", "tasks.names"),
        ('names = ["minilm-l3"]', 'names = ["a", "a"]', "twice"),
        ('subsets = [[], ["pruning"]]', 'subsets = "some"', "subsets"),
        ('subsets = [[], ["pruning"]]', "subsets = [[1]]", "subsets"),
        ("[methods.pruning]", "[methods]\npruning = 3\n[x]", "TOML|Unknown key"),
        ('name = "small"', "", "study.name"),
        ("[study]", "[study", "not TOML"),
    ],
)
def test_a_wrong_study_file_is_refused_with_what_is_known(tmp_path, old, new, message):
    assert old in STUDY
    with pytest.raises(SpecError, match=message):
        read_study(write(tmp_path, STUDY.replace(old, new, 1)))


def test_own_files_are_a_task_of_a_study_and_start_where_the_study_lies(tmp_path):
    own = 'train = "a.csv"\ndev = "b.csv"\ntext = ["first", "second"]\nlabel = "truth"\nmax_train_rows = 100'
    text = STUDY.replace('names = ["banking77"]\nmax_train_rows = 100', own)
    expected = DataSpec(
        train=str(tmp_path / "a.csv"),
        dev=str(tmp_path / "b.csv"),
        text=("first", "second"),
        label="truth",
        max_train_rows=100,
    )
    assert read_study(write(tmp_path, text)).data == (expected,)
    assert expected.name == "a.csv"
    both = STUDY.replace("max_train_rows = 100", own)
    assert [data.task for data in read_study(write(tmp_path, both)).data] == ["banking77", ""]
    with pytest.raises(SpecError, match="train and dev"):
        read_study(write(tmp_path, text.replace('dev = "b.csv"\n', "")))


STUDIES = sorted((Path(__file__).parents[1] / "studies").rglob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_that_is_shipped_can_be_read_and_expanded(path):
    study = read_study(path)
    assert expand_chains(study)[0] == ((),)
    assert {data.task for data in study.data} <= set(list_tasks())


def test_rows_can_be_limited_for_some_tasks_alone() -> None:
    text = STUDY.replace('["banking77"]\nmax_train_rows = 100', '["sst2", "cola"]\nmax_train_rows = { sst2 = 100 }')
    study = parse_study(tomllib.loads(text))
    assert study.data == (DataSpec(task="sst2", max_train_rows=100), DataSpec(task="cola"))


def test_a_missing_or_binary_study_file_is_refused(tmp_path):
    with pytest.raises(SpecError, match="no study file"):
        read_study(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        read_study(tmp_path / "binary.toml")


def test_methods_must_be_a_table():
    with pytest.raises(SpecError, match="table"):
        parse_study({"study": {"name": "x"}, "models": {"names": ["a"]}, "tasks": {"names": ["b"]}, "methods": 3})


def test_a_run_survives_json():
    assert RunSpec.from_json(json.loads(json.dumps(RUN.to_json()))) == RUN


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_canonical_json_does_not_depend_on_the_order_of_keys(values):
    assert canonical_json(values) == canonical_json(dict(reversed(values.items())))
    assert json.loads(canonical_json(values)) == values


def test_settings_that_came_later_do_not_change_the_ids_of_runs_without_them():
    old = MethodSpec("quantization", {"bits": 8, "activation_bits": 8})
    with_default = MethodSpec("quantization", {**old.settings, "activation_scale": "dynamic"})
    static = MethodSpec("quantization", {**old.settings, "activation_scale": "static"})
    ids = [run_id(dataclasses.replace(RUN, methods=(one,)), FACTS) for one in (old, with_default, static)]
    assert ids[0] == ids[1] != ids[2]
    ids = [run_id(dataclasses.replace(RUN, before=((one,),), start="x"), FACTS) for one in (old, with_default, static)]
    assert ids[0] == ids[1] != ids[2]


def test_a_run_id_has_twelve_hex_digits_and_repeats():
    assert len(run_id(RUN, FACTS)) == 12
    assert int(run_id(RUN, FACTS), 16) >= 0
    assert run_id(RUN, FACTS) == run_id(RunSpec.from_json(RUN.to_json()), dict(reversed(FACTS.items())))


@pytest.mark.parametrize("name", sorted(FACTS))
def test_each_fact_is_a_part_of_the_identity(name):
    assert run_id(RUN, FACTS | {name: "other"}) != run_id(RUN, FACTS)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(TrainingSpec)])
def test_each_training_setting_is_a_part_of_the_identity(field):
    value = getattr(RUN.training, field)
    changed = "inverse_sqrt" if field == "schedule" else value + 1 if isinstance(value, int) else value / 2 + 0.001
    other = dataclasses.replace(RUN.training, **{field: changed})
    assert run_id(dataclasses.replace(RUN, training=other), FACTS) != run_id(RUN, FACTS)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "label"},
        {"seed": 4},
        {"teacher": ""},
        {"methods": ()},
        {"methods": (MethodSpec("pruning", {"sparsity": 0.4, "scope": "global"}),)},
        {"data": dataclasses.replace(RUN.data, max_train_rows=5)},
        {"data": dataclasses.replace(RUN.data, sample_seed=5)},
        {"data": dataclasses.replace(RUN.data, target="number")},
        {"data": dataclasses.replace(RUN.data, metric="macro_f1")},
    ],
    ids=str,
)
def test_each_other_part_of_a_run_is_a_part_of_its_identity(change):
    assert run_id(dataclasses.replace(RUN, **change), FACTS) != run_id(RUN, FACTS)


def test_a_study_can_name_the_metric_that_is_the_score():
    study = parse_study({"study": {"name": "x"}, "models": {"names": ["a"]}, "tasks": {"names": ["b"], "metric": "f1"}})
    assert study.data == (DataSpec(task="b", metric="f1"),)
    tables = {"study": {"name": "x"}, "models": {"names": ["a"]}}
    by_task = {"names": ["cola", "b"], "metric": {"cola": "matthews"}}
    study = parse_study({**tables, "tasks": by_task})
    assert study.data == (DataSpec(task="cola", metric="matthews"), DataSpec(task="b"))
    for wrong in ({"sst2": "f1"}, {"cola": 1}, 1):
        with pytest.raises(SpecError, match=r"tasks\.metric"):
            parse_study({**tables, "tasks": by_task | {"metric": wrong}})


def test_a_setting_that_came_later_leaves_older_identities_as_they_were():
    settings = RUN.to_json()
    del settings["model"], settings["data"]["train"], settings["data"]["dev"], settings["data"]["metric"]
    text = canonical_json({"settings": settings, "facts": FACTS})
    assert run_id(RUN, FACTS) == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_names_and_paths_are_no_part_of_the_identity():
    data = dataclasses.replace(RUN.data, train="elsewhere/train.csv", dev="elsewhere/dev.csv")
    assert run_id(dataclasses.replace(RUN, model="another/path", data=data), FACTS) == run_id(RUN, FACTS)
