"""Encoders that a study makes before it trains on them: once, by its workers, kept in the store for other computers."""

import hashlib
import shutil
from contextlib import closing
from dataclasses import replace

import pytest

from multipress.engines.execute import Executor
from multipress.engines.job import Outcome, Places
from multipress.engines.local import LocalEngine
from multipress.engines.recover import fetch_encoder, recovery_of
from multipress.errors import ModelError
from multipress.estimate import describe, predicted_seconds
from multipress.models.catalogue import shrunk_folder
from multipress.models.pretrained import identify
from multipress.plan import Plan
from multipress.shrink import make_named
from multipress.spec import DataSpec, StudySpec, TrainingSpec
from multipress.store import Store
from multipress.study import run_study

NAME = "minilm-l1-h32"
STUDY = StudySpec(
    name="tiny",
    models=(NAME,),
    data=(DataSpec(task="banking77", max_train_rows=16, max_eval_rows=8),),
    training=TrainingSpec(epochs=1, batch_size=8, max_length=12),
    learning_rates=(1e-3,),
    subsets=(("quantization",),),
)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A cache with the encoder in it, unrecovered, so that it takes seconds."""
    monkeypatch.setenv("MULTIPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("multipress.shrink.SHRUNK_STEPS", 0)
    monkeypatch.setattr("multipress.shrink.CALIBRATION_BATCHES", 1)
    make_named(NAME)
    return shrunk_folder(NAME)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_study_keeps_its_encoder_and_another_computer_takes_it_from_there(made, tmp_path):
    store, before, events = Store(tmp_path / "runs"), digests(made), []
    cells = run_study(
        STUDY, store.folder, num_workers=1, on_begin=lambda job: events.append((job.spec.kind, job.spec.model))
    )
    assert [cell.state for cell in cells] == ["done", "done"]
    assert events[0] == ("recover", NAME)
    recovery = recovery_of(NAME)
    kept = store.done(recovery.run_id) / "encoder"
    assert digests(kept) == before
    assert all(not found.problems for found in store.verify())

    identity = identify(NAME).sha256
    shutil.rmtree(made)  # as on a computer that never made it
    with pytest.raises(ModelError, match="not made yet"):
        identify(NAME)
    again = replace(STUDY, seeds=(1,))
    assert predicted_seconds(Plan(again, only_counts=True), recovery.spec) > 10  # were it not in the store
    notes, events = [], []
    cells = run_study(
        again,
        store.folder,
        num_workers=1,
        on_begin=lambda job: events.append((job.spec.kind, job.spec.model)),
        on_note=notes.append,
    )
    assert [cell.state for cell in cells] == ["done", "done"]
    assert all(kind == "train" for kind, _ in events)
    assert not any("is made from" in note for note in notes)
    assert (digests(made), identify(NAME).sha256) == (before, identity)


def test_a_worker_on_a_computer_without_the_encoder_takes_it_from_the_store(made, tmp_path):
    store = Store(tmp_path / "runs")
    recovery = recovery_of(NAME)
    executor = Executor(store, Places())
    store.register(recovery.run_id, recovery.record)
    executor.execute(recovery.run_id, recovery.spec)
    (job,) = Plan(replace(STUDY, subsets=((),))).cells({(NAME, STUDY.data[0]): 1e-3})
    shutil.rmtree(made)
    store.register(job.run_id, job.record)
    attempt = store.claim(job.run_id)
    assert executor.fill(job.run_id, job.spec, attempt.folder) == Outcome()
    assert made.is_dir()
    attempt.release()


def test_an_encoder_that_cannot_be_made_stops_the_study_and_says_why(made, tmp_path, monkeypatch):
    shutil.rmtree(made.parent)
    made.parent.write_text("in the way")
    store = Store(tmp_path / "runs")
    with closing(LocalEngine(store, Places(), 1)) as engine, pytest.raises(ModelError, match="could not be made: Can"):
        run_study(STUDY, store.folder, engine=engine)
    (run,) = store.runs()
    assert (run.state, run.retryable) == ("failed", True)


def test_what_is_not_made_is_counted_before_it_is(made, tmp_path):
    shutil.rmtree(made)
    text = describe(Plan(STUDY, only_counts=True), Store(tmp_path / "runs"), 1)
    assert ", 1 that make models; 3 are left to do" in text
    assert recovery_of("minilm-l6") is None
    assert recovery_of(str(tmp_path)) is None
    fetch_encoder("minilm-l6", Store(tmp_path / "runs"))  # nothing to fetch
