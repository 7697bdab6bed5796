import json
import os
import sys
from pathlib import Path

import pytest

from multipress.durable import Lock
from multipress.errors import SpecError, StoreError
from multipress.store import Store

ID = "0123456789ab"
OTHER = "ba9876543210"


def spec(model="minilm-l6", methods=(), seed=0):
    return {
        "kind": "train",
        "model": model,
        "data": {"task": "sst2", "train": "", "max_train_rows": 100},
        "training": {"epochs": 3, "learning_rate": 1e-4},
        "methods": [{"name": name, "settings": settings} for name, settings in methods],
        "seed": seed,
        "teacher": "",
    }


def measurement(name, value, unit):
    return {"run_id": ID, "name": name, "value": value, "unit": unit, "context": {}}


def work(attempt, score=0.9):
    rows = [measurement("score", score, "share"), measurement("accuracy", score, "share")]
    rows += [measurement(f"{name}_bytes", 100, "bytes") for name in ("ideal", "weights", "package", "dense")]
    lines = [json.dumps(row) + "\n" for row in rows]
    (attempt.folder / "measurements.jsonl").write_text("".join(lines))
    (attempt.folder / "artifact").mkdir()
    (attempt.folder / "artifact" / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "my runs")
    store.register(ID, spec())
    return store


@pytest.fixture
def done(store):
    attempt = store.claim(ID)
    work(attempt)
    attempt.commit()
    return attempt.folder


def state(store, run_id=ID):
    return store.run(run_id).state


def test_a_run_goes_from_pending_over_running_to_done(store):
    assert state(store) == "pending"
    attempt = store.claim(ID)
    assert state(store) == "running"
    assert store.claim(ID) is None
    work(attempt)
    assert store.done(ID) is None
    attempt.commit()
    assert state(store) == "done"
    assert store.done(ID) == attempt.folder
    assert store.claim(ID) is None
    assert store.runs() == [store.run(ID)]
    assert store.run(ID).spec == spec()


@pytest.mark.parametrize("name", ["failed", "diverged", "refused"])
def test_a_failed_attempt_says_why_and_the_run_can_be_tried_again(store, name):
    store.claim(ID).fail(name, "out of memory", retryable=True)
    run = store.run(ID)
    assert (run.state, run.why, run.retryable, run.attempts) == (name, "out of memory", True, 1)
    attempt = store.claim(ID)
    work(attempt)
    attempt.commit()
    assert attempt.folder.name == "attempt-2"
    assert state(store) == "done"
    assert store.run(ID).why == ""


def test_an_attempt_that_nobody_works_on_is_pending_again(store):
    store.claim(ID).release()
    assert state(store) == "pending"
    assert "attempt-1 was interrupted" in store.run(ID).why
    assert store.claim(ID).folder.name == "attempt-2"


def test_the_tenth_attempt_is_newer_than_the_ninth(store):
    for _ in range(9):
        store.claim(ID).release()
    assert store.claim(ID).folder.name == "attempt-10"


def test_a_closed_attempt_cannot_be_closed_again(store, done):
    attempt = Store(store.folder).claim(ID)
    assert attempt is None
    store.register(OTHER, spec())
    attempt = store.claim(OTHER)
    attempt.fail("failed", "x", retryable=False)
    for act in (attempt.commit, lambda: attempt.fail("failed", "y", retryable=True)):
        with pytest.raises(StoreError, match="is closed"):
            act()
    assert store.run(OTHER).why == "x"


def test_a_zombie_that_finishes_late_is_refused(store):
    zombie = store.claim(ID)
    # The folder went away and came back, as after a lost and restored disk: both believe to hold the lock.
    (store.folder / ID / "lock").unlink()
    newer = store.claim(ID)
    with pytest.raises(StoreError, match="newer attempt"):
        zombie.commit()
    work(newer)
    newer.commit()
    assert store.done(ID) == newer.folder


def test_registering_twice_keeps_the_first_description_and_heals_a_damaged_one(store):
    store.register(ID, spec(model="another"))
    assert store.run(ID).spec == spec()
    (store.folder / ID / "spec.json").write_text('{"kind": "tr')
    store.register(OTHER, spec())
    assert state(store) == "failed"
    assert "spec.json is damaged" in store.run(ID).why
    assert state(store, OTHER) == "pending"
    store.register(ID, spec())
    assert state(store) == "pending"


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"files": {"x": 3}}', "\udcff"])
def test_a_damaged_done_is_noticed_and_only_that_run_is_made_again(store, done, damage):
    (done / "DONE").write_bytes(damage.encode(errors="surrogateescape"))
    assert store.done(ID) is None
    run = store.run(ID)
    assert run.state == "failed"
    assert run.retryable
    assert "DONE is damaged" in run.why
    attempt = store.claim(ID)
    work(attempt)
    attempt.commit()
    assert store.done(ID) == attempt.folder


def test_a_missing_or_cut_file_makes_a_run_not_done(store, done):
    (done / "artifact" / "model.safetensors").write_bytes(b"weight")
    assert state(store) == "failed"
    assert "has 6 bytes, but DONE says 7" in store.run(ID).why
    (done / "artifact" / "model.safetensors").unlink()
    assert "is missing" in store.run(ID).why


def test_a_damaged_failed_file_is_a_failure_that_says_so(store):
    store.claim(ID).fail("failed", "x", retryable=False)
    for text in ("", '{"state": "done", "why": "", "retryable": true}'):
        (store.folder / ID / "attempt-1" / "FAILED").write_text(text)
        assert state(store) == "failed"
        assert "FAILED is damaged" in store.run(ID).why


def test_verify_passes_a_sound_store_and_finds_every_kind_of_damage(store, done):
    (verdict,) = store.verify()
    assert verdict.problems == ()
    assert verdict.files == 3
    weights = done / "artifact" / "model.safetensors"
    for damage, said in (
        (lambda: weights.write_bytes(b"weightz"), "has other content"),
        (weights.unlink, "is missing"),
        (lambda: weights.symlink_to(done / "spec.json"), "is not a plain file"),
        (lambda: (weights.unlink(), weights.write_bytes(b"weights"), (done / "x").touch()), "not listed"),
        (lambda: ((done / "x").unlink(), (done / "DONE").write_text("{")), "DONE is damaged"),
    ):
        damage()
        (verdict,) = store.verify()
        assert any(said in problem for problem in verdict.problems), said
        assert f"Delete {done} and run the study again" in verdict.advice


def test_every_flipped_byte_of_a_done_attempt_is_found(store, done):
    for path in [path for path in done.rglob("*") if path.is_file()]:
        original = path.read_bytes()
        for position in range(0, len(original), max(1, len(original) // 25)):
            flipped = bytearray(original)
            flipped[position] ^= 1
            path.write_bytes(flipped)
            assert store.verify()[0].problems, f"{path.name} at {position}"
        path.write_bytes(original)
    assert not store.verify()[0].problems


def test_the_table_holds_one_row_a_cell_with_what_was_asked_and_measured(store, done):
    methods = [("pruning", {"sparsity": 0.6}), ("quantization", {"bits": 8})]
    store.register(OTHER, spec(methods=methods, seed=3))
    store.claim(OTHER).fail("diverged", "the loss is not a number", retryable=False)
    store.register("f" * 12, {**spec(), "kind": "label"})
    store.save_study("a", {"cells": [ID, OTHER], "spec": {}})
    store.save_study("b", {"cells": [OTHER, "c" * 12], "spec": {}})
    first, second, third = store.cells()
    assert first["score"] == 0.9
    assert first["metrics"] == {"accuracy": 0.9}
    assert first["weights_bytes"] == 100
    assert first["studies"] == ["a"]
    assert second["methods"] == ["pruning", "quantization"]
    assert second["settings"] == {"pruning": {"sparsity": 0.6}, "quantization": {"bits": 8}}
    assert (second["seed"], second["state"], second["score"]) == (3, "diverged", None)
    assert second["studies"] == ["a", "b"]
    assert third["state"] == "pending"
    assert [row["run_id"] for row in store.cells("b")] == [OTHER, "c" * 12]
    with pytest.raises(SpecError, match="there are: a, b"):
        store.cells("c")


def test_the_table_opens_three_small_files_of_a_run_once(store, done, monkeypatch):
    store.save_study("a", {"cells": [ID], "spec": {}})
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(os.path.basename(path)) or real(path, *rest))
    store.cells()
    assert sorted(opened) == ["DONE", "a.json", "measurements.jsonl", "spec.json"]


SCORE = '{"name": "score", "value": 1, "unit": "share"}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}\n",
        "not json\n",
        '{"name": "x", "value": 1, "unit": "share"}\n',
        f"{SCORE}, {SCORE}\n",
        f"{SCORE}\n\n{SCORE}\n",
        f"{SCORE}\n]\n",
        "\udcff",
    ],
)
def test_a_cell_without_a_readable_score_is_failed_not_blank(store, text):
    attempt = store.claim(ID)
    (attempt.folder / "measurements.jsonl").write_text(text, errors="surrogateescape")
    attempt.commit()
    store.save_study("a", {"cells": [ID], "spec": {}})
    (row,) = store.cells()
    assert row["state"] == "failed"
    assert "measurements.jsonl is damaged" in row["why"]


def test_a_description_of_the_wrong_shape_fails_its_cell_alone(store, done):
    store.register(OTHER, {"methods": ["pruning"]})
    store.save_study("a", {"cells": [OTHER, ID], "spec": {}})
    damaged, sound = store.cells()
    assert damaged["state"] == "failed"
    assert "spec.json is damaged" in damaged["why"]
    assert sound["score"] == 0.9


def test_names_that_leave_the_folder_are_refused(store):
    for name in ("", "../x", "a/b", ".x", "a\n", "x" * 200):
        with pytest.raises(SpecError, match="its name may hold only"):
            store.save_study(name, {"cells": []})
    for run_id in ("..", "x", "0123456789AB", "0123456789abc", None):
        with pytest.raises(StoreError, match="not a run's id"):
            store.register(run_id, {})


def test_a_study_is_written_whole_and_a_damaged_one_is_named(store):
    store.save_study("quick-start_1.0", {"cells": [ID], "spec": {"name": "x"}})
    assert store.studies() == {"quick-start_1.0": {"cells": [ID], "spec": {"name": "x"}}}
    (store.folder / "studies" / "quick-start_1.0.json").write_text("{")
    with pytest.raises(StoreError, match=r"quick-start_1\.0\.json is damaged"):
        store.studies()


def test_a_missing_folder_is_named(tmp_path):
    for look in (Store(tmp_path / "no").runs, Store(tmp_path / "no").cells, Store(tmp_path / "no").verify):
        with pytest.raises(StoreError, match="no folder of runs"):
            look()


def test_an_unregistered_run_cannot_be_claimed(store):
    with pytest.raises(StoreError, match="was not registered"):
        store.claim(OTHER)


def test_a_folder_that_cannot_be_written_to_is_refused_before_training(tmp_path):
    (tmp_path / "file").touch()
    folders = [tmp_path / "file" / "runs", tmp_path / "file"]
    if sys.platform == "linux":
        folders.append(Path("/proc/multipress"))
    for folder in folders:
        with pytest.raises(StoreError, match="Cannot"):
            Store(folder).check_writable()
    Store(tmp_path / "new" / "runs").check_writable()
    assert os.listdir(tmp_path / "new" / "runs") == []


def test_an_attempt_holds_no_link(store):
    attempt = store.claim(ID)
    (attempt.folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="not a plain file"):
        attempt.commit()
    assert store.done(ID) is None


def test_a_look_at_the_store_changes_nothing(store, done):
    store.save_study("a", {"cells": [ID], "spec": {}})
    before = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*")}
    store.runs(), store.cells(), store.verify(), store.studies(), store.claim(ID)
    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("*")} == before


def test_locks_of_done_runs_are_free(store, done):
    assert not Lock.is_taken(store.folder / ID / "lock")


def test_a_later_measurement_lies_beside_its_run_and_touches_nothing_of_it(store, done):
    before = store.cells(), store.run(ID), (store.done(ID) / "DONE").read_bytes()
    assert store.done(ID, "speed-1") is None
    attempt = store.claim(ID, "speed-1")
    assert store.claim(ID, "speed-1") is None  # another works on it
    (attempt.folder / "measurements.jsonl").write_text("{}\n")
    attempt.commit()
    assert store.claim(ID, "speed-1") is None
    found = store.done(ID, "speed-1")
    assert found == store.folder / ID / "measurements" / "speed-1" / "attempt-1"
    assert store.done(ID, "speed-2") is None
    assert before == (store.cells(), store.run(ID), (store.done(ID) / "DONE").read_bytes())
    assert not any(verdict.problems for verdict in store.verify())
    (found / "measurements.jsonl").write_text("[]\n")
    (verdict,) = store.verify()
    assert "measurements/speed-1" in verdict.problems[0]
    assert str(found) in verdict.advice
    for name in ("../speed-1", "speed", "speed-0", "a/b-1"):
        with pytest.raises(StoreError, match="not the name"):
            store.claim(ID, name)
