"""Where the winner lies: a whole model at every moment, whatever it is stopped at."""

import json
import os
import signal

import pytest

from multipress.artifact import open_artifact
from multipress.budget import place as module
from multipress.budget.place import Place
from multipress.durable import move_folder
from multipress.errors import StoreError

FIRST, SECOND = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@pytest.fixture
def made(write_tiny, tmp_path):
    """A place, and two artifacts to put there."""
    write_tiny(tmp_path / "first", run_id=FIRST)
    write_tiny(tmp_path / "second", run_id=SECOND, bits=4)
    (tmp_path / "small.search").mkdir()
    return Place(tmp_path / "small", tmp_path / "small.search")


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_the_better_one_takes_the_place_and_gives_no_score_yet(made, tmp_path):
    assert made.run_id() == ""
    made.put(tmp_path / "first", FIRST, ["rows"], "8 bits")
    assert made.run_id() == FIRST
    card = (made.out / "README.md").read_text()
    assert "8 bits. It was chosen by" in card
    assert "model-index" not in card
    made.put(tmp_path / "second", SECOND, ["rows"], "4 bits")
    assert weights(made.out) == weights(tmp_path / "second")
    assert sorted(path.name for path in (tmp_path / "small.search").iterdir()) == ["winners.json"]
    # One that lies there already keeps its card.
    (made.out / "README.md").write_text("the model card")
    made.put(tmp_path / "second", SECOND, ["rows"], "4 bits")
    assert (made.out / "README.md").read_text() == "the model card"


def test_it_is_known_for_what_it_was_chosen(made, tmp_path):
    assert not made.was_chosen_for(["rows"])
    made.put(tmp_path / "first", FIRST, ["rows"], "8 bits")
    assert made.was_chosen_for(["rows"])
    assert not made.was_chosen_for(["other rows"])
    made.put(tmp_path / "first", FIRST, ["other rows"], "8 bits")
    assert made.was_chosen_for(["other rows"])
    (tmp_path / "small.search" / "winners.json").write_text("{")
    with pytest.raises(StoreError, match=r"winners\.json is damaged"):
        made.was_chosen_for(["rows"])


@pytest.mark.parametrize("stop_at", [1, 2])
@pytest.mark.parametrize("before", [True, False])
def test_after_a_kill_at_either_rename_a_whole_model_is_there_again(made, tmp_path, monkeypatch, stop_at, before):
    """A kill just before or just after a folder gets its name."""
    made.put(tmp_path / "first", FIRST, ["rows"], "8 bits")
    calls = []

    class Killed(BaseException):
        pass

    def stop(*folders):
        calls.append(folders)
        if len(calls) == stop_at and before:
            raise Killed
        move_folder(*folders)
        if len(calls) == stop_at:
            raise Killed

    monkeypatch.setattr(module, "move_folder", stop)
    with pytest.raises(Killed):
        made.put(tmp_path / "second", SECOND, ["rows"], "4 bits")
    monkeypatch.undo()
    again = Place(made.out, tmp_path / "small.search")
    again.recover()
    assert again.run_id() == (SECOND if (stop_at, before) == (2, False) else FIRST)
    assert again.was_chosen_for(["rows"])
    assert open_artifact(made.out).dense_weights()
    again.put(tmp_path / "second", SECOND, ["rows"], "4 bits")
    assert again.run_id() == SECOND


def test_ctrl_c_between_the_renames_comes_behind_them(made, tmp_path, monkeypatch):
    made.put(tmp_path / "first", FIRST, ["rows"], "8 bits")

    def interrupted(*folders):
        os.kill(os.getpid(), signal.SIGINT)
        move_folder(*folders)

    monkeypatch.setattr(module, "move_folder", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            made.put(tmp_path / "second", SECOND, ["rows"], "4 bits")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert made.run_id() == SECOND
    assert json.loads((tmp_path / "small.search" / "winners.json").read_text()).keys() == {FIRST, SECOND}


def test_a_model_that_was_taken_away_does_not_come_back(made, tmp_path):
    made.put(tmp_path / "first", FIRST, ["rows"], "8 bits")
    made.put(tmp_path / "second", SECOND, ["rows"], "4 bits")
    made.out.rename(tmp_path / "elsewhere")
    made.recover()
    assert made.run_id() == ""
