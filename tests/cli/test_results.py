"""`analyze`, `report`, `study status` and `study verify` on a folder of stub runs."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from multipress.cli.main import main
from multipress.store import Store

IDS = [f"{number:012x}" for number in range(6)]


def fill(store, run_id, number):
    names = [[], ["pruning"], ["quantization"]][number % 3]
    settings = {"pruning": {"sparsity": 0.6}, "quantization": {"bits": 8}}
    spec = {
        "kind": "train",
        "model": f"model-{number // 3}",
        "data": {"task": "sst2"},
        "training": {"learning_rate": 1e-4},
        "methods": [{"name": name, "settings": settings[name]} for name in names],
        "seed": 0,
    }
    store.register(run_id, spec)
    attempt = store.claim(run_id)
    if number == 4:
        attempt.fail("diverged", "the loss is\x1b[31m not a number", retryable=False)
        return
    rows = [("score", 0.9 - number / 100, "share"), ("ideal_bytes", 1e6, "bytes")]
    rows += [
        ("weights_bytes", 1.1e6 if names else 4.1e6, "bytes"),
        ("package_bytes", 2e6, "bytes"),
        ("dense_bytes", 4e6, "bytes"),
    ]
    lines = [json.dumps({"run_id": run_id, "name": n, "value": v, "unit": u}) for n, v, u in rows]
    (attempt.folder / "measurements.jsonl").write_text("\n".join(lines))
    attempt.commit()


@pytest.fixture
def runs(tmp_path):
    store = Store(tmp_path / "my runs")
    for number, run_id in enumerate(IDS):
        fill(store, run_id, number)
    store.save_study("s", {"cells": IDS, "spec": {"name": "s"}})
    return store.folder


def test_analyze_prints_one_json_document(runs, capsys):
    assert main(["analyze", str(runs), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) >= {"cells", "frontier", "multiplicativity", "interactions", "failed"}
    assert [cell["run_id"] for cell in document["cells"]] == IDS
    assert [cell["run_id"] for cell in document["failed"]] == [IDS[4]]


def test_analyze_shows_effects_with_intervals_and_says_whom_it_left_out(runs, capsys):
    for number in (0, 1, 3):  # two dense runs and a pruned one
        attempt = runs / IDS[number] / "attempt-1"
        right = np.arange(100) < 90 - number
        labels = np.zeros(100, dtype=np.int64)
        save_file({"logits": np.eye(2)[(~right).astype(int)], "labels": labels}, attempt / "predictions.safetensors")
        task = {"name": "sst2", "target": "classes", "labels": ["a", "b"], "metrics": ["accuracy"], "score": "accuracy"}
        (attempt / "artifact").mkdir()
        (attempt / "artifact" / "manifest.json").write_text(json.dumps({"facts": {"task": task}}))
    assert main(["analyze", str(runs)]) == 0
    printed = capsys.readouterr()
    assert re.search(r"P60 +-1\.00 +-\d", printed.out)
    assert "leave out 2 runs" in printed.err
    assert main(["analyze", str(runs), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["intervals"]["rows"]
    assert {(row["by"], row["where"]) for row in rows} == {("all", ""), ("model", "model-0"), ("task", "sst2")}
    assert main(["analyze", str(runs), "--json", "--resamples", "0"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["intervals"]["rows"] == []
    assert not printed.err


@pytest.mark.parametrize("columns", [80, 100])
def test_analyze_stays_inside_the_terminal_and_shows_failures(runs, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["analyze", str(runs), "--drop", "0.01"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    tables = lines[: next(i for i, line in enumerate(lines) if line.startswith("Smallest within"))]
    assert max(map(len, tables)) <= columns
    assert "1 failed" in out
    assert "diverged: 000000000004" in out
    assert "\x1b" not in out
    assert any(line.startswith("Smallest within") for line in lines)
    row = next(line for line in lines if " P60 " in line)
    for text in ("0.8900", "1.00", "1.10", "3.6×"):
        assert text in row


def test_analyze_names_what_is_missing(runs, tmp_path, capsys):
    assert main(["analyze", str(tmp_path / "no")]) == 2
    assert "no folder of runs" in capsys.readouterr().err
    assert main(["analyze", str(runs), "--study", "x"]) == 2
    assert "there are: s" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["analyze", str(tmp_path / "empty")]) == 1
    assert "No study in" in capsys.readouterr().err


def test_report_writes_the_page_and_what_is_asked_for_beside_it(runs, tmp_path, capsys):
    names = {"-o": "page.html", "--figure": "a.svg", "--markdown": "a.md", "--csv": "a.csv"}
    options = [text for option, name in names.items() for text in (option, str(tmp_path / name))]
    assert main(["report", str(runs), *options]) == 0
    assert capsys.readouterr().out.strip().replace("\n", "") == str(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "5 of 6 cells are done" in text
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 7
    assert main(["report", str(runs), "-o", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")


def test_the_page_says_the_command_that_made_it_with_all_that_was_asked(runs, tmp_path):
    page = tmp_path / "page.html"
    asked = ["report", str(runs), "-o", str(page), "--drop", "0.02", "--relative", "--resamples", "50"]
    assert main(asked) == 0
    assert "--drop 0.02 --relative --resamples 50</pre>" in page.read_text()
    assert main(asked[:4]) == 0
    assert "--drop" not in page.read_text()


def test_status_shows_every_run_with_its_state_and_reason(runs, capsys):
    assert main(["study", "status", str(runs)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 7
    assert re.search(r"000000000004 +diverged +1 attempt +train model-1 sst2 pruning seed 0: the loss", out)
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "1 diverged, 5 done"
    assert main(["study", "status", str(runs), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run_id"], row["state"]) for row in rows][4] == (IDS[4], "diverged")


def test_status_tells_rounds_of_pruning_apart_and_goes_on_where_a_description_is_odd(tmp_path, capsys):
    store = Store(tmp_path)
    about = {"kind": "train", "model": "m", "data": {"task": "sst2"}, "seed": 0}
    method = {"name": "pruning", "settings": {"sparsity": 0.2, "importance": "random"}}
    store.register(IDS[0], {**about, "methods": [method], "mask_from": IDS[1], "start": f"{IDS[1]}@1.0"})
    store.register(IDS[1], {**about, "methods": [], "rewound": True})
    store.register(IDS[2], {**about, "methods": [3], "mask_from": IDS[1]})
    store.register(IDS[3], {"methods": "odd"})
    assert main(["study", "status", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("train m sst2 tickets pruned to 0.2, at random, weights rewound seed 0")
    assert lines[1].endswith("train m sst2 the beginning of dense seed 0")
    assert lines[2].endswith("train m sst2 ? seed 0")
    assert lines[4] == "4 pending"


def test_verify_exits_with_1_and_says_what_to_delete(runs, capsys):
    assert main(["study", "verify", str(runs)]) == 0
    assert "0 runs damaged" in capsys.readouterr().out
    (runs / IDS[0] / "attempt-1" / "measurements.jsonl").write_text("{}")
    assert main(["study", "verify", str(runs)]) == 1
    out = capsys.readouterr().out
    assert f"Delete {runs / IDS[0] / 'attempt-1'} and run the study again" in out
    assert "1 runs damaged" in out
    assert main(["study", "verify", str(runs), "--json"]) == 1
    assert [bool(row["problems"]) for row in json.loads(capsys.readouterr().out)] == [True] + [False] * 5


def test_predictions_that_do_not_give_the_score_are_told_and_in_no_interval(runs, capsys):
    attempt = runs / IDS[0] / "attempt-1"
    labels = np.zeros(100, dtype=np.int64)
    logits = np.eye(2)[(np.arange(100) >= 50).astype(int)]
    save_file({"logits": logits, "labels": labels}, attempt / "predictions.safetensors")
    task = {"name": "sst2", "target": "classes", "labels": ["a", "b"], "metrics": ["accuracy"], "score": "accuracy"}
    (attempt / "artifact").mkdir()
    (attempt / "artifact" / "manifest.json").write_text(json.dumps({"facts": {"task": task}}))
    assert main(["analyze", str(runs), "--json"]) == 0
    assert "its predictions give a score of 0.5000, not the 0.9000 it has" in capsys.readouterr().err


def test_a_figure_of_another_kind_and_a_single_repetition_are_refused(runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(runs), "-o", str(page), "--figure", str(tmp_path / "a.png")]) == 2
    assert "multipress analyze" in capsys.readouterr().err
    assert not page.exists()
    assert main(["analyze", str(runs), "--resamples", "1"]) == 2
    assert "0 for no intervals" in capsys.readouterr().err
