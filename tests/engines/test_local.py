"""The engine of this computer on a study without torch: order, lost workers, limits, many runners, an interrupt."""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import multipress.engines.open as opening
import stub
from multipress.engines import open_engine
from multipress.engines.job import Job, Outcome, Places, scratch_of, settle
from multipress.engines.local import LocalEngine
from multipress.engines.schedule import run_jobs, run_what_is_left
from multipress.errors import SettingError
from multipress.spec import DataSpec, RunSpec
from multipress.store import Store
from multipress.store.attempt import state_of

STUB = Path(stub.__file__)


@contextmanager
def engine(store, workers=1, **settings):
    with closing(LocalEngine(store, Places(), workers, executor=stub.EXECUTOR, **settings)) as found:
        yield found


def job(number, model="stub", needs=()):
    return Job(f"{number:012x}", RunSpec("train", model, DataSpec(task="t"), seed=number), tuple(needs))


def states(store, jobs):
    return [store.run(job.run_id).state for job in jobs]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_table_is_the_same_with_any_number_of_workers(tmp_path, workers):
    tables = []
    for number in (1, workers):
        store = Store(tmp_path / f"{workers} {number}")
        with engine(store, number) as local:
            stub.run(store, stub.make_jobs(9), local)
        tables.append(stub.table(store))
    assert tables[0] == tables[1]
    assert tables[0].count('"done"') == 9


def test_jobs_begin_in_the_order_given_each_after_its_needs(tmp_path):
    store = Store(tmp_path)
    jobs = [job(1, needs=[job(4).run_id]), job(2), job(3, needs=[job(2).run_id]), job(4)]
    begun, ended = [], []
    with engine(store) as local:
        run_what_is_left(
            jobs,
            store,
            local,
            on_begin=begun.append,
            on_end=lambda run, done, total: ended.append((run.run_id, done, total)),
        )
    assert [one.spec.seed for one in begun] == [2, 3, 4, 1]
    assert [(int(run_id, 16), done, total) for run_id, done, total in ended] == [
        (2, 1, 4),
        (3, 2, 4),
        (4, 3, 4),
        (1, 4, 4),
    ]


def test_what_needs_a_failed_run_fails_and_the_rest_goes_on(tmp_path):
    store = Store(tmp_path)
    jobs = [job(1, "diverges"), job(2, needs=[job(1).run_id]), job(3, needs=[job(2).run_id]), job(4)]
    with engine(store, 2) as local:
        run_what_is_left(jobs, store, local)
    assert states(store, jobs) == ["diverged", "failed", "failed", "done"]
    first, *others = (store.run(job.run_id).why.removesuffix(".") for job in jobs[:3])
    for index, why in enumerate(others):  # each names the run it needs, and both why the first one failed
        assert why.startswith(f"The run did not end: {jobs[index].run_id}, a run that it needs, is not done: ")
        assert why.endswith(first)
        assert why.count("did not end") == 1
    begun = []
    with engine(store) as local:
        run_what_is_left(jobs, store, local, on_begin=begun.append)
    assert begun == []  # what diverged is not tried again, so what needs it cannot be


@pytest.mark.parametrize(
    ("model", "state", "attempts", "why"),
    [
        ("dies-once", "done", 2, ""),
        ("dies", "failed", 3, "SIGKILL"),
        ("breaks", "failed", 3, "exit code 1"),
        ("hangs-once", "done", 2, ""),
        ("hangs", "failed", 3, "did nothing for 1 seconds"),
        ("refused", "refused", 1, "stub"),
    ],
)
def test_a_worker_that_is_lost_is_replaced_and_its_neighbours_go_on(tmp_path, model, state, attempts, why):
    store = Store(tmp_path)
    jobs = [job(1, model), *(job(number) for number in range(2, 8))]
    with engine(store, 2, hang_seconds=1.0) as local:
        run_what_is_left(jobs, store, local)
    assert states(store, jobs) == [state] + ["done"] * 6
    run = store.run(jobs[0].run_id)
    assert run.attempts == attempts
    assert why in run.why
    assert [store.run(one.run_id).attempts for one in jobs[1:]] == [1] * 6


def test_a_worker_that_stands_still_is_found_and_one_that_works_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_WORK_SECONDS", "3")
    store = Store(tmp_path)
    jobs = [job(1)]
    with engine(store, 1, hang_seconds=1.0) as local:
        run_what_is_left(jobs, store, local)
    assert store.run(jobs[0].run_id).attempts == 1


def test_a_run_that_takes_too_much_memory_fails_alone(tmp_path):
    store = Store(tmp_path)
    jobs = [job(1, "eats"), job(2)]
    with engine(store, 1, memory_bytes=1 << 30) as local:
        run_what_is_left(jobs, store, local)
    assert states(store, jobs) == ["failed", "done"]
    assert "MemoryError" in store.run(jobs[0].run_id).why
    with engine(Store(tmp_path / "free"), 1) as local:  # without the limit there is memory for it
        run_what_is_left(jobs, Store(tmp_path / "free"), local)
    assert "there was memory" in Store(tmp_path / "free").run(jobs[0].run_id).why
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY  # of this process


def runners(store, count, cells, seconds):
    command = [sys.executable, str(STUB), str(store), "--cells", str(cells)]
    environment = os.environ | {"STUB_SECONDS": str(seconds)}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
        for _ in range(count)
    ]
    return [process.communicate()[0] for process in started]


def test_runners_on_one_folder_share_the_work_and_see_the_same_table(tmp_path):
    tables = runners(tmp_path, 3, 30, 0.05)
    assert len(set(tables)) == 1
    assert tables[0].count('"done"') == 30
    store = Store(tmp_path)
    assert [run.attempts for run in store.runs()] == [1] * 31
    workers = [(tmp_path / run.run_id / "attempt-1" / "worker").read_text() for run in store.runs()]
    assert len(set(workers)) == 3
    assert min(workers.count(name) for name in set(workers)) > 3


def test_a_run_of_another_process_is_waited_for_behind_all_others(tmp_path):
    store = Store(tmp_path)
    jobs = [job(1), job(2), job(3)]
    for one in jobs:
        store.register(one.run_id, one.spec.to_json())
    held = store.claim(jobs[0].run_id)
    ended = []

    def on_end(one):
        ended.append(one.spec.seed)
        if ended == [2, 3]:
            held.release()

    with engine(store) as local:
        run_jobs(jobs, store, local, on_end=on_end)
    assert ended == [2, 3, 1]
    assert states(store, jobs) == ["done"] * 3


def assert_gone(group, end):
    """Nobody of the group of processes is left at that time."""
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a process outlived its study")


def test_a_script_that_guards_nothing_is_not_run_again_by_its_workers(tmp_path):
    """The worker of a script without `if __name__ == "__main__"` would begin the study anew, and fail."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(STUB.parent)!r})
import stub
print("begun", flush=True)
store = stub.Store(Path({str(tmp_path / "runs")!r}))
with stub.closing(stub.LocalEngine(store, stub.Places(), 1, executor=stub.EXECUTOR)) as engine:
    stub.run(store, stub.make_jobs(4), engine)
print(sum(run.state == "done" for run in store.runs()))
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["begun", "5"], done.stderr


@pytest.mark.parametrize("interrupts", [1, 2])
def test_an_interrupt_ends_the_study_and_its_workers_within_five_seconds(tmp_path, interrupts):
    # What a shell starts with `&` ignores interrupts, and so do these tests then.
    command = ["env", "--default-signal=INT", sys.executable, str(STUB), str(tmp_path), "--workers", "2"]
    environment = os.environ | {"STUB_SECONDS": "60"}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment, start_new_session=True)
    while len(list(tmp_path.glob("*/attempt-1"))) < 2:
        time.sleep(0.02)
    began = time.monotonic()
    for _ in range(interrupts):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    process.wait(10)
    assert_gone(process.pid, began + 5)
    assert {run.state for run in Store(tmp_path).runs()} == {"pending"}


def test_a_study_that_is_killed_takes_its_workers_with_it(tmp_path):
    command = [sys.executable, str(STUB), str(tmp_path), "--workers", "2"]
    process = subprocess.Popen(command, env=os.environ | {"STUB_SECONDS": "60"}, start_new_session=True)
    while len(list(tmp_path.glob("*/attempt-1"))) < 2:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert_gone(process.pid, time.monotonic() + 5)


def test_a_worker_that_cannot_be_told_its_job_is_replaced(tmp_path, monkeypatch):
    """A write to a worker that fails once; without a look at it the study would wait for ever."""
    real, failed = Connection.send, []

    def send(connection, value):
        if not failed:
            failed.append(value)
            raise OSError(28, "No space left on device")
        real(connection, value)

    monkeypatch.setattr(Connection, "send", send)
    store = Store(tmp_path)
    with engine(store) as local:
        run_what_is_left([job(1)], store, local)
    assert states(store, [job(1)]) == ["done"]
    assert failed


def test_a_worker_that_hangs_is_found_while_others_are_busy(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "0.1")
    store = Store(tmp_path)
    jobs = [job(1, "hangs"), *(job(number) for number in range(2, 60))]
    ended = []
    with engine(store, 2, hang_seconds=1.0) as local:
        run_what_is_left(jobs, store, local, on_end=lambda run, done, total: ended.append(int(run.run_id, 16)))
    assert store.run(jobs[0].run_id).state == "failed"
    assert ended.index(1) < len(ended) - 5


def test_a_worker_that_hangs_is_found_while_a_run_is_elsewhere(tmp_path):
    store = Store(tmp_path)
    jobs = [job(1), job(2, "hangs")]
    for one in jobs:
        store.register(one.run_id, one.record)
    held = store.claim(jobs[0].run_id)
    with engine(store, 2, hang_seconds=1.0) as local:
        run_jobs(jobs, store, local, on_end=lambda one: held.release())
    assert states(store, jobs) == ["done", "failed"]


@pytest.mark.parametrize("state", ["diverged", "refused", "failed", "done"])
def test_what_another_runner_has_ended_meanwhile_is_not_run_again(tmp_path, state):
    store = Store(tmp_path)
    jobs = [job(1), job(2)]
    ended = []

    def on_begin(one):
        attempt = store.claim(jobs[1].run_id)
        if attempt is not None:
            settle(attempt, Outcome(state, "stub", retryable=state == "failed"))

    with engine(store) as local:
        run_what_is_left(jobs, store, local, on_begin=on_begin, on_end=lambda *found: ended.append(found[0].state))
    assert states(store, jobs) == ["done", state]
    assert store.run(jobs[1].run_id).attempts == 1
    assert ended == ["done", state]


def test_what_was_running_elsewhere_at_the_start_and_failed_there_is_not_run_again(tmp_path):
    store = Store(tmp_path)
    jobs = [job(1), job(2)]
    for one in jobs:
        store.register(one.run_id, one.record)
    elsewhere = store.claim(jobs[1].run_id)

    def on_begin(one):
        if one is jobs[0]:
            settle(elsewhere, Outcome("failed", "stub", retryable=True))

    with engine(store) as local:
        run_what_is_left(jobs, store, local, on_begin=on_begin)
    assert states(store, jobs) == ["done", "failed"]
    assert store.run(jobs[1].run_id).attempts == 1


def test_what_ended_between_a_look_and_a_claim_is_not_claimed(tmp_path):
    store = Store(tmp_path)
    store.register("0" * 12, job(0).record)
    seen = store.run("0" * 12).attempts
    settle(store.claim("0" * 12), Outcome("diverged", "stub"))
    assert store.claim("0" * 12, seen=seen) is None
    assert store.claim("0" * 12, seen=seen) is None  # the lock was given back
    attempt = store.claim("0" * 12, seen=store.run("0" * 12).attempts)
    settle(attempt, Outcome())
    assert state_of(str(attempt.folder)) == ("done", "", False)  # also for who looked before it was


def test_workers_share_the_memory_that_there_is(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(opening, "CONTAINER_LIMITS", (str(tmp_path / "none"), str(limit)))
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for text, expected in (("max", physical), (str(10**18), physical), ("3000000000\n", 3 * 10**9)):
        limit.write_text(text)
        assert opening._memory_here() == expected

    def of_each(memory, workers):
        monkeypatch.setattr(opening, "_memory_here", lambda: memory)
        with closing(open_engine("local", Store(tmp_path), Places(), workers)) as local:
            return local._setup[3]

    assert of_each(20 * 10**9, 2) == 9 * 10**9
    assert of_each(20 * 10**9, 16) == 4 * 10**9  # what a worker may need
    assert of_each(2 * 10**9, 4) == 1_800_000_000


def test_what_an_attempt_leaves_for_the_next_one_goes_with_the_commit(tmp_path):
    """Also what an attempt that was given up writes or removes late does no harm."""
    store = Store(tmp_path)
    store.register("0" * 12, job(0).record)
    first = store.claim("0" * 12)
    (scratch_of(first.folder) / "checkpoint").write_text("half")
    first.release()
    second = store.claim("0" * 12)
    assert (scratch_of(second.folder) / "checkpoint").read_text() == "half"
    settle(second, Outcome("failed", "stub", retryable=True))
    third = store.claim("0" * 12)
    assert (scratch_of(third.folder) / "checkpoint").is_file()
    settle(third, Outcome())
    assert not (tmp_path / ("0" * 12) / "scratch").exists()


def test_a_memory_limit_below_the_hard_one_of_this_computer_is_taken(tmp_path):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))\n"
        "import stub, sys; from contextlib import closing; from pathlib import Path\n"
        "from multipress.engines.job import Places; from multipress.engines.local import LocalEngine\n"
        "from multipress.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "with closing(LocalEngine(store, Places(), 1, executor=stub.EXECUTOR, memory_bytes=16 << 30)) as engine:\n"
        "    stub.run(store, stub.make_jobs(2), engine)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=STUB.parent, check=True)
    assert {run.state for run in Store(tmp_path).runs()} == {"done"}


@pytest.mark.parametrize(("memory", "message"), [(300e6, "to start"), (1e15, "this computer has")])
def test_a_memory_limit_that_cannot_be_is_refused(tmp_path, memory, message):
    with pytest.raises(SettingError, match=message):
        open_engine("local", Store(tmp_path), Places(), memory_bytes=int(memory))
