"""The store under kills, full disks and many runners: nothing finished lost, nothing run twice."""

import errno
import json
import multiprocessing
import os
import traceback

import pytest

from multipress.errors import StoreError
from multipress.store import Store

IDS = [f"{number:012x}" for number in range(3)]
CALLS = ("open", "fsync", "replace", "mkdir")
# A file that is only read: stopping there leaves what stopping before the next call leaves.
READING = os.O_RDONLY | os.O_CLOEXEC


def study(folder, ran):
    """A study whose runs are a line of text; each appends to `ran` what it has finished."""
    store = Store(folder)
    store.check_writable()
    for run_id in IDS:
        store.register(run_id, {"model": "stub", "data": {"task": "t"}, "methods": []})
    store.save_study("s", {"cells": IDS, "spec": {}})
    for run_id in IDS:
        attempt = store.claim(run_id)
        if attempt is None:
            continue
        row = {"run_id": run_id, "name": "score", "value": int(run_id, 16) / 4, "unit": "share"}
        (attempt.folder / "measurements.jsonl").write_text(json.dumps(row) + "\n")
        if run_id == IDS[2] and not ran.exists():
            attempt.fail("failed", "stub", retryable=True)
        else:
            attempt.commit()
        with ran.open("a") as file:
            file.write(run_id + "\n")


def table(folder):
    return json.dumps(Store(folder).cells(), sort_keys=True)


def at_call(number, act):
    """Do `act` in place of the n-th call of the operating system that the store makes."""
    count = 0
    for name in CALLS:
        real = getattr(os, name)

        def counted(*args, real=real, **kwargs):
            nonlocal count
            count += args[1:] != (READING,)
            if count == number and args[1:] != (READING,):
                act()
            return real(*args, **kwargs)

        setattr(os, name, counted)


def in_child(function):
    """Exit status of a forked process that runs the function."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        except StoreError:
            os._exit(1)
        except BaseException:  # noqa: BLE001 (a forked test must not go on)
            traceback.print_exc()
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def disk_full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("act", "status"), [(lambda: os._exit(9), 9), (disk_full, 1)])
def test_a_study_stopped_at_any_call_goes_on_to_the_same_table(tmp_path, monkeypatch, act, status):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow, and only a power cut would tell
    study(tmp_path / "whole", tmp_path / "whole ran")
    study(tmp_path / "whole", tmp_path / "whole ran")
    expected = table(tmp_path / "whole")
    number = 0
    while True:
        number += 1
        folder, ran = tmp_path / f"runs {number}", tmp_path / f"ran {number}"

        def stopped(folder=folder, ran=ran, number=number):
            at_call(number, act)
            study(folder, ran)

        found = in_child(stopped)
        finished = set(folder.glob("*/*/DONE"))
        for _ in range(2):
            study(folder, ran)
        assert table(folder) == expected, number
        assert len(list(folder.glob("*/*/DONE"))) == len(IDS), number
        assert finished <= set(folder.glob("*/*/DONE")), number
        assert not any(verdict.problems for verdict in Store(folder).verify()), number
        if found == 0:
            break
        assert found == status, number
    assert number > 50


def runner(folder, barrier):
    store = Store(folder)
    barrier.wait()
    for run_id in IDS * 10:
        attempt = store.claim(run_id)
        if attempt is not None:
            (attempt.folder / "worker").write_text(str(os.getpid()))
            attempt.commit()


def test_runners_that_share_a_folder_never_make_a_run_twice(tmp_path):
    context = multiprocessing.get_context("fork")
    for turn in range(10):
        folder = tmp_path / str(turn)
        for run_id in IDS:
            Store(folder).register(run_id, {})
        barrier = context.Barrier(3)
        workers = [context.Process(target=runner, args=(folder, barrier)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        assert [run.attempts for run in Store(folder).runs()] == [1] * len(IDS)
        assert {run.state for run in Store(folder).runs()} == {"done"}
