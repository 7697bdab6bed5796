import errno
import os
import signal
import subprocess
import sys

import pytest

from multipress.durable import Lock, file_fact, json_text, write_bytes, write_json, write_text
from multipress.errors import StoreError
from multipress.reproducibility import file_sha256

HOLD = "import sys, time; from pathlib import Path; from multipress.durable import Lock\n"
HOLD += "lock = Lock(Path(sys.argv[1])); print(lock.acquire(), flush=True); time.sleep(60)"


def hold(path):
    """A process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def end(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_written_file_holds_exactly_what_was_written(tmp_path):
    for data in (b"", b"\0\xff\n", os.urandom(3_000_000)):
        write_bytes(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
        assert file_fact(tmp_path / "file") == {"size": len(data), "sha256": file_sha256(tmp_path / "file")}
    assert os.listdir(tmp_path) == ["file"]


def test_equal_values_give_equal_json_text():
    assert json_text({"b": 1, "a": [1, 2]}) == json_text({"a": [1, 2], "b": 1})
    assert json_text({"a": "ü"}).endswith("}\n")
    with pytest.raises(ValueError, match="Out of range"):
        json_text({"a": float("nan")})


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    write_text(tmp_path / "file", "old")

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StoreError, match="No space left on device"):
        write_text(tmp_path / "file", "new")
    monkeypatch.undo()
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_missing_folder_is_a_clear_error(tmp_path):
    with pytest.raises(StoreError, match=r"Cannot write .*No such file"):
        write_json(tmp_path / "no" / "file", {})
    with pytest.raises(StoreError, match=r"Cannot lock .*No such file"):
        Lock(tmp_path / "no" / "lock").acquire()


def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    calls = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    for name in real:
        monkeypatch.setattr(os, name, lambda *a, name=name: (calls.append(name), real[name](*a))[1])
    write_bytes(tmp_path / "file", b"x")
    assert calls == ["fsync", "replace", "fsync"]


def test_a_lock_is_held_by_one_and_given_back(tmp_path):
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.acquire()
    assert first.acquire()
    assert first.held
    assert not second.acquire()
    assert not second.held
    first.release()
    first.release()
    assert second.acquire()
    second.release()


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path):
    process = hold(tmp_path / "lock")
    lock = Lock(tmp_path / "lock")
    assert Lock.is_taken(tmp_path / "lock")
    assert not lock.acquire()
    end(process)
    assert not Lock.is_taken(tmp_path / "lock")
    assert lock.acquire()
    lock.release()


def test_whoever_only_looks_never_makes_a_claim_fail(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    look = "import sys; from pathlib import Path; from multipress.durable import Lock\n"
    look += "print('ready', flush=True)\nwhile True: Lock.is_taken(Path(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", look, str(path)], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    for _ in range(300):
        lock = Lock(path)
        assert lock.acquire()
        lock.release()
    end(process)


def test_a_lock_on_a_file_that_was_replaced_is_not_held(tmp_path):
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    (tmp_path / "lock").unlink()
    assert not lock.held
    write_bytes(tmp_path / "lock", b"")
    assert not lock.held
    lock.release()


def test_a_missing_lock_file_is_free(tmp_path):
    assert not Lock.is_taken(tmp_path / "lock")
