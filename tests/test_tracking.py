"""Trackers get a copy of the runs, and can break nothing."""

import json
import sys
from contextlib import closing

import pytest

import stub
from multipress import tracking
from multipress.engines.job import Places
from multipress.engines.local import LocalEngine
from multipress.errors import SpecError
from multipress.store import Store
from multipress.study_file import parse_study
from multipress.tracking import Tracking


@pytest.fixture
def finished(tmp_path):
    store = Store(tmp_path)
    with closing(LocalEngine(store, Places(), 1, executor=stub.EXECUTOR)) as engine:
        stub.run(store, stub.make_jobs(2), engine)
    run = next(run for run in store.runs() if run.spec["kind"] == "train")
    lines = [{"step": 10, "loss": 2.5}, {"step": 20, "loss": 1.5}, {"training_seconds": 3.0}]
    (store.done(run.run_id) / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return store, run


def test_tensorboard_shows_the_losses_and_the_measurements(finished):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    store, run = finished
    notes = []
    for _ in range(2):  # the second time there is nothing to do
        Tracking(["tensorboard"], store, notes.append).log(run)
    assert notes == []
    (folder,) = (store.folder / "tensorboard").iterdir()
    assert folder.name == run.run_id
    assert len(list(folder.iterdir())) == 1
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 2.5), (20, 1.5)]
    score = next(row for row in store.cells() if row["run_id"] == run.run_id)["score"]
    assert events.Scalars("score")[0].value == pytest.approx(score)
    assert all(found.state == "done" for found in store.runs())  # its folder is no run
    assert not any(found.problems for found in store.verify() if found.run_id != run.run_id)


@pytest.mark.parametrize("when", ["opened", "used"])
def test_a_tracker_that_fails_is_a_note_and_no_more(finished, monkeypatch, when):
    class Broken:
        def __init__(self, store):
            if when == "opened":
                raise ConnectionError("no server")

        def log(self, run, steps, values):
            raise ConnectionError("no server")

    monkeypatch.setitem(tracking.TRACKERS, "broken", Broken)
    store, run = finished
    notes = []
    found = Tracking(["broken"], store, notes.append)
    for _ in range(3):
        found.log(run)
    assert len(notes) == 1
    assert "no server" in notes[0]
    assert "goes on" in notes[0]


def test_an_absent_tensorboard_is_a_note_and_an_unknown_tracker_an_error(finished, monkeypatch):
    store, _ = finished
    notes = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Tracking(["tensorboard"], store, notes.append)
    assert len(notes) == 1
    with pytest.raises(SpecError, match="tensorboard"):
        Tracking(["wandb"], store, notes.append)


def test_a_study_file_names_its_trackers():
    document = {"study": {"name": "s", "report_to": ["tensorboard"]}, "models": {"names": ["m"]}}
    assert parse_study(document | {"tasks": {"names": ["sst2"]}}).report_to == ("tensorboard",)
