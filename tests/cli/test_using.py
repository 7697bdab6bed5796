"""predict, evaluate, inspect, measure: JSON alone on standard output, one line for what is wrong."""

import io
import json
import math

import numpy as np
import pytest
from scipy import stats

from multipress.runtime import Predictor
from multipress.spec import DataSpec, RunSpec
from multipress.store import Store

LABELS = ["bad", "fair", "good"]


@pytest.fixture(scope="module")
def artifact(write_tiny, tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("cli") / "a", bits=4, sparsity=0.3)


@pytest.fixture
def labelled(artifact, tmp_path):
    """Eight rows, of which the model has two wrong."""
    texts = [f"w{index} w{index + 20}" for index in range(8)]
    labels = [prediction.label for prediction in Predictor(artifact)(texts)]
    for row in (0, 1):
        labels[row] = LABELS[(LABELS.index(labels[row]) + 1) % 3]
    file = tmp_path / "rows.csv"
    lines = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
    file.write_text("\n".join(["text,label", *lines]) + "\n")
    return file


def test_predict_prints_a_label_a_score_and_all_scores(artifact, run):
    code, out, _ = run("predict", artifact.folder, "w1 w2", "", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["label"] for row in rows] == [p.label for p in Predictor(artifact)(["w1 w2", ""])]
    for row in rows:
        assert set(row) == {"label", "score", "scores"}
        assert list(row["scores"]) == LABELS
        assert sum(row["scores"].values()) == pytest.approx(1)


def test_predict_reads_texts_from_a_file(artifact, run, tmp_path):
    (tmp_path / "texts.txt").write_text("w1\nw2\nw3 w4\n")
    _, out, _ = run("predict", artifact.folder, "--file", tmp_path / "texts.txt", "--json")
    assert len(json.loads(out)) == 3
    _, plain, _ = run("predict", artifact.folder, "--file", tmp_path / "texts.txt")
    assert [line.split("\t")[2] for line in plain.splitlines()] == ["w1", "w2", "w3 w4"]


def test_predict_reads_standard_input_and_counts_empty_rows(artifact, run, tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("w1\n\nw3 w4\n")
    expected = run("predict", artifact.folder, "--file", tmp_path / "texts.txt", "--json")
    monkeypatch.setattr("sys.stdin", io.StringIO("w1\n\nw3 w4\n"))
    found = run("predict", artifact.folder, "--file", "-", "--json")
    assert found == expected
    assert "1 of 3 rows are empty" in found[2]


def test_predict_counts_rows_of_which_no_word_is_known(artifact, run):
    _, _, err = run("predict", artifact.folder, "送", "w1", "", "--json")
    assert "1 of 3 rows are empty" in err
    assert "1 of 3 rows have no word that the model knows" in err


def test_predict_warns_on_standard_error_when_texts_are_cut(artifact, run):
    code, out, err = run("predict", artifact.folder, "w1 " * 99, "w2", "--json")
    assert code == 0
    assert len(json.loads(out)) == 2
    assert "1 of 2 rows" in err
    assert "16 tokens" in err


def test_predict_takes_two_texts_a_row_for_a_model_of_pairs(artifact, write_tiny, run, tmp_path):
    task = artifact.facts["task"] | {"is_pair": True}
    pair = write_tiny(tmp_path / "pair", task=task)
    _, out, _ = run("predict", pair.folder, "w1", "w2", "w3", "w4", "--json")
    expected = Predictor(pair)(["w1", "w3"], ["w2", "w4"])
    assert json.loads(out) == [prediction.to_json() for prediction in expected]
    _, plain, _ = run("predict", pair.folder, "w1", "w2")
    assert plain.endswith("w1 | w2\n")
    code, _, err = run("predict", pair.folder, "w1", "w2", "w3")
    assert code == 2
    assert "two a row" in err


def test_wrong_use_is_one_line_and_exit_code_2(artifact, run, tmp_path, labelled):
    for arguments in (
        ("predict", artifact.folder),
        ("predict", artifact.folder, "w1", "--file", labelled),
        ("predict", tmp_path / "nowhere", "w1"),
        ("evaluate", artifact.folder),  # its task "text" has no rows of its own
        ("evaluate", artifact.folder, "--task", "sst2", "--data", labelled),
        ("evaluate", artifact.folder, "--task", "nothing"),
        ("evaluate", artifact.folder, "--data", tmp_path / "nowhere.csv"),
        ("inspect", tmp_path),
        ("measure", tmp_path),
        ("measure", artifact.folder, "--data", tmp_path / "nowhere.csv"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert len(err.strip().splitlines()) == 1
        assert "unexpected" not in err


def test_evaluate_scores_a_file(artifact, run, labelled):
    code, out, _ = run("evaluate", artifact.folder, "--data", labelled, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["rows"], result["score"], result["metrics"]["accuracy"]) == (8, 0.75, 0.75)
    expected = stats.binomtest(6, 8).proportion_ci(method="wilson")
    assert (result["score_low"], result["score_high"]) == pytest.approx((expected.low, expected.high), abs=1e-6)
    _, plain, _ = run("evaluate", artifact.folder, "--data", labelled)
    assert f"score 0.7500 (accuracy), 95 % on other rows like these {expected.low:.4f} to {expected.high:.4f}" in plain


def test_evaluate_gives_the_recall_of_each_class_and_scores_by_the_metric_asked_for(artifact, run, labelled):
    result = json.loads(run("evaluate", artifact.folder, "--data", labelled, "--metric", "macro_f1", "--json")[1])
    assert result["score"] == result["metrics"]["macro_f1"] != result["metrics"]["accuracy"]
    assert result["score_metric"] == "macro_f1"
    actual = [line.split(",")[1] for line in labelled.read_text().split()[1:] if "," in line]
    right = [prediction.label for prediction in Predictor(artifact)([f"w{i} w{i + 20}" for i in range(8)])]
    for name, recall in result["per_class_recall"].items():
        of_class = [a == b for a, b in zip(actual, right, strict=True) if a == name]
        assert recall == (pytest.approx(np.mean(of_class)) if of_class else None)
    _, plain, _ = run("evaluate", artifact.folder, "--data", labelled)
    assert "(accuracy)" in plain
    assert "recall" in plain
    code, _, err = run("evaluate", artifact.folder, "--data", labelled, "--metric", "pearson")
    assert code == 2
    assert "macro_f1" in err


def test_evaluate_maps_labels_by_name_and_refuses_an_unknown_one(artifact, run, labelled):
    rows = labelled.read_text().splitlines()
    labelled.write_text("\n".join([rows[0], *rows[:0:-1]]))
    assert json.loads(run("evaluate", artifact.folder, "--data", labelled, "--json")[1])["score"] == 0.75
    labelled.write_text(labelled.read_text() + "\nw1,awful\n")
    code, _, err = run("evaluate", artifact.folder, "--data", labelled)
    assert code == 2
    assert "awful" in err


def test_inspect_says_what_is_stored(artifact, run):
    result = json.loads(run("inspect", artifact.folder, "--json")[1])
    assert result["weights_bytes"] == artifact.weights_bytes
    assert result["package_bytes"] == artifact.package_bytes
    assert {"ideal_bytes", "entropy_bound_bytes"} <= set(result)
    stored = artifact.tensors()
    assert [row["name"] for row in result["tensors"]] == sorted(stored)
    for row in result["tensors"]:
        tensor = stored[row["name"]]
        assert row["shape"] == list(tensor.values.shape)
        assert (row["bits"], row["nonzeros"]) == (tensor.bits, int((tensor.values != 0).sum()))
        assert {"bytes", "entropy_bound_bytes"} <= set(row)
        assert row["bits_per_weight"] == 8 * row["bytes"] / tensor.values.size
    weights = sum(row["share"] for row in result["tensors"])
    parts = sum(row["share"] for row in result["groups"] if row["weights"])
    assert weights == pytest.approx(parts)


def test_inspect_shows_the_package_by_parts(artifact, run):
    result = json.loads(run("inspect", artifact.folder, "--json")[1])
    parts = {row["group"]: row for row in result["groups"]}
    assert {"embeddings", "attention", "feed-forward", "head", "tokenizer", "graph", "manifest"} <= set(parts)
    assert sum(row["bytes"] for row in parts.values()) == result["package_bytes"]
    assert sum(row["share"] for row in parts.values()) == pytest.approx(1)
    assert sum(row["weights"] for row in parts.values()) == sum(math.prod(row["shape"]) for row in result["tensors"])
    for name, own in (("embeddings", "embeddings"), ("attention", ".attention."), ("head", "classifier")):
        rows = [row for row in result["tensors"] if own in row["name"] or (name == "head" and "pooler" in row["name"])]
        assert parts[name]["bytes"] == sum(row["bytes"] for row in rows)
        assert parts[name]["nonzeros"] == sum(row["nonzeros"] for row in rows)
        assert parts[name]["bits_per_weight"] == 8 * parts[name]["bytes"] / parts[name]["weights"]
    assert parts["tokenizer"]["bits_per_weight"] is None
    shown = run("inspect", artifact.folder)[1]
    assert all(name in shown for name in parts)
    assert "####" in shown


def test_inspect_dumps_the_stored_integers(artifact, run, tmp_path):
    code, out, _ = run("inspect", artifact.folder, "--dump", tmp_path / "dump", "--json")
    assert code == 0
    json.loads(out)
    for name, tensor in artifact.tensors().items():
        found = np.load(tmp_path / "dump" / f"{name}.npy")
        assert (found.dtype, found.tobytes()) == (tensor.values.dtype, tensor.values.tobytes())
        if tensor.scale is not None:
            assert np.array_equal(np.load(tmp_path / "dump" / f"{name}.scale.npy"), tensor.scale)


def test_inspect_says_where_arrays_cannot_go(artifact, run, tmp_path):
    (tmp_path / "taken").write_text("")
    for place in ("taken", "taken/below"):
        code, _, err = run("inspect", artifact.folder, "--dump", tmp_path / place)
        assert code == 2
        assert "cannot hold the arrays" in err


def test_measure_gives_rows_of_every_kind(artifact, run, labelled):
    code, out, _ = run("measure", artifact.folder, "--data", labelled, "--repeats", 2, "--json")
    rows = json.loads(out)
    assert code == 0
    assert all({"name", "value", "unit", "context"} <= set(row) for row in rows)
    values = {row["name"]: row["value"] for row in rows}
    assert values["score"] == 0.75
    assert values["weights_bytes"] == artifact.weights_bytes
    assert {"package_bytes", "ideal_bytes", "latency_p50_ms", "peak_memory_bytes"} <= set(values)


def test_measure_goes_on_without_rows_that_nobody_asked_for(artifact, run):
    code, out, err = run("measure", artifact.folder, "--repeats", 1, "--json")
    assert code == 0
    assert "no quality was measured" in err
    assert "score" not in {row["name"] for row in json.loads(out)}


def test_a_damaged_artifact_is_named_by_every_command(write_tiny, run, tmp_path):
    folder = write_tiny(tmp_path / "a").folder
    (folder / "config.json").write_text("{}")
    open_commands = (
        ("predict", folder, "w1"),
        ("evaluate", folder),
        ("inspect", folder),
        ("measure", folder),
    )
    for arguments in open_commands:
        code, _, err = run(*arguments)
        assert code == 2
        assert "config.json" in err


def test_a_registered_task_is_meant_whatever_lies_in_the_folder(artifact, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "banking77").mkdir()  # what `train -o banking77` leaves behind
    code, _, err = run("evaluate", artifact.folder, "--task", "banking77")
    assert code == 2
    assert "unknown label 'card_arrival'" in err  # the model has other classes: the task's rows were read


def test_a_file_is_meant_even_if_its_name_is_a_tasks(artifact, run, tmp_path, labelled, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labelled.rename(tmp_path / "banking77.csv")
    assert json.loads(run("evaluate", artifact.folder, "--data", "banking77.csv", "--json")[1])["rows"] == 8
    code, _, err = run("evaluate", artifact.folder, "--data", "banking77")
    assert code == 2
    assert "card_arrival" not in err


def test_study_measure_times_each_finished_model_once_beside_its_run(write_tiny, run, tmp_path):
    store = Store(tmp_path / "runs")
    for run_id in ("0" * 12, "1" * 12, "2" * 12):
        store.register(run_id, RunSpec("train", "tiny", DataSpec(task="t")).to_json())
    attempt = store.claim("0" * 12)
    write_tiny(attempt.folder / "artifact")
    attempt.commit()
    label = store.claim("1" * 12)  # a run without a model
    (label.folder / "logits.safetensors").write_bytes(b"x")
    label.commit()
    code, out, _ = run("study", "measure", store.folder, "--repeats", "2", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {row["name"] for row in rows} >= {"latency_p50_ms", "latency_p95_ms"}
    assert run("study", "measure", store.folder, "--repeats", "2", "--json")[1] == out
    shown = run("study", "measure", store.folder, "--repeats", "2")[1]
    assert shown.startswith("0" * 12)
    assert " ms" in shown
    assert [verdict.problems for verdict in store.verify()] == [(), (), ()]
    assert run("study", "measure", store.folder, "--threads", "2", "--repeats", "2", "--json")[1] != out
