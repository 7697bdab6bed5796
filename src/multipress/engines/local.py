"""Runs on this computer: persistent workers, one process of one thread each, fed by the study's process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType

from multipress.engines.job import EXECUTOR, Job, Places, make_executor, settle
from multipress.engines.schedule import Answer
from multipress.errors import StoreError
from multipress.spec import RunSpec
from multipress.store import Store

__all__ = ["LocalEngine", "default_workers", "one_thread"]

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
WATCH_SECONDS = 5.0
STOP_SECONDS = 3.0
OOM_SCORE = "500"


def default_workers() -> int:
    """One worker a core that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def one_thread() -> Iterator[None]:
    """What is started within uses one thread: libraries read their number of threads when they are loaded."""
    saved = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class LocalEngine:
    """Workers of one thread each, started when they are first needed; an `Engine`.

    A worker that dies (out of memory, killed) is replaced, and so is one that hangs: a process that has used no
    processor time at all for so long waits for what does not come.

    Args:
        store: Where workers claim and commit.
        places: Where models and data are found.
        num_workers: Processes; 0: one a core.
        memory_bytes: Most memory of its own that a worker may take; 0: no limit. Beyond it its run fails.
        hang_seconds: How long a worker may do nothing before it is killed.
        executor: What executes, as `make_executor` reads it.
    """

    tries = 2  # what ended the worker may have been another's doing

    def __init__(
        self,
        store: Store,
        places: Places,
        num_workers: int = 0,
        *,
        memory_bytes: int = 0,
        hang_seconds: float = 600.0,
        executor: str = EXECUTOR,
    ) -> None:
        self._store = store
        self._setup = (store.folder, places, executor, memory_bytes)
        self._num_workers = num_workers or default_workers()
        self._hang_seconds = hang_seconds
        self._watch_seconds = min(WATCH_SECONDS, hang_seconds / 2)
        self._watched = time.monotonic()
        self._busy: dict[_Worker, Job] = {}
        self._idle: list[_Worker] = []

    def has_room(self) -> bool:
        """Whether a worker has nothing to do."""
        return len(self._busy) < self._num_workers

    def begin(self, job: Job) -> None:
        """Give a job to a worker."""
        worker = self._idle.pop() if self._idle else _Worker(self._setup)
        self._busy[worker] = job
        worker.begin(job, self._store.run(job.run_id).attempts)

    def wait(self, seconds: float) -> list[Answer]:
        """As `Engine.wait`; watches the workers meanwhile."""
        end = time.monotonic() + seconds
        while True:
            self._watch()
            left = min(self._watch_seconds, end - time.monotonic())
            ready = wait([worker.connection for worker in self._busy], max(0.0, left))
            if ready or time.monotonic() >= end:
                return [self._answer(worker) for worker in list(self._busy) if worker.connection in ready]

    def _watch(self) -> None:
        """Every so often, kill the workers that have done nothing for too long."""
        now = time.monotonic()
        if now - self._watched < self._watch_seconds:
            return
        self._watched = now
        for worker in self._busy:
            if worker.idle_seconds() >= self._hang_seconds:
                worker.kill(f"its worker did nothing for {self._hang_seconds:.0f} seconds and was stopped")

    def _answer(self, worker: _Worker) -> Answer:
        job = self._busy.pop(worker)
        state, why = worker.answer()
        if state != "lost":
            self._idle.append(worker)
        return Answer(job, state, why)

    def close(self) -> None:
        """End all workers."""
        workers = [*self._idle, *self._busy]
        for worker in workers:
            worker.process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
        self._idle, self._busy = [], {}


class _Worker:
    """A process that executes one job at a time."""

    def __init__(self, setup: tuple[Path, Places, str, int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._why = ""
        self._used = -1.0
        self._looked = 0.0
        self._idle_seconds = 0.0
        with one_thread(), _without_main():
            self.process = context.Process(target=_serve, args=(theirs, *setup, os.getpid()), daemon=True)
            self.process.start()
        theirs.close()

    def begin(self, job: Job, seen: int) -> None:
        self._used, self._idle_seconds, self._looked = -1.0, 0.0, time.monotonic()
        try:
            self.connection.send((job.run_id, job.record, seen))
        except OSError as error:
            if self.process.is_alive():  # one that is gone shows in `answer`, and says how it went
                self.kill(f"its worker could not be reached ({error.strerror})")

    def answer(self) -> tuple[str, str]:
        """`Answer.state` and `Answer.why` of the job."""
        try:
            state, why = self.connection.recv()
            return str(state), str(why)
        except (EOFError, OSError):
            self.process.join(STOP_SECONDS)
        code = self.process.exitcode
        if self._why:
            return "lost", self._why
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return "lost", f"its worker ended with {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
        return "lost", f"its worker ended with exit code {code}"

    def idle_seconds(self) -> float:
        """For how long the process has used no processor time, as far as it was watched."""
        now = time.monotonic()
        watched, self._looked = min(now - self._looked, 2 * WATCH_SECONDS), now  # not while all stood still
        used = _processor_seconds(self.process.pid)
        self._idle_seconds = self._idle_seconds + watched if used == self._used else 0.0
        self._used = used
        return self._idle_seconds

    def kill(self, why: str) -> None:
        self._why = why
        self.process.kill()


@contextmanager
def _without_main() -> Iterator[None]:
    """A worker needs nothing of the script that started all this; `spawn` would run it once more in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _processor_seconds(process: int | None) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return float(fields[11]) + float(fields[12])  # user and system time, in ticks


def _serve(
    connection: Connection,
    folder: Path,
    places: Places,
    executor_name: str,
    memory_bytes: int,
    parent: int,
) -> None:
    """Body of a worker: executes what is sent until the connection closes or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops its workers
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a worker never outlives the study
    if os.getppid() != parent:
        return
    Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)  # where memory is short, a worker goes before the study
    if memory_bytes:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        allowed = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    store = Store(folder)
    executor = make_executor(executor_name, store, places)
    while True:
        try:
            run_id, spec, seen = connection.recv()
        except EOFError:
            return
        try:
            attempt = store.claim(run_id, seen=seen)
            if attempt is None:
                answer = ("elsewhere" if store.run(run_id).state in ("pending", "running") else "ended", "")
            else:
                try:
                    settle(attempt, executor.fill(run_id, RunSpec.from_json(spec), attempt.folder))
                finally:
                    attempt.release()
                answer = ("ended", "")
        except StoreError as error:
            answer = ("lost", str(error))
        connection.send(answer)
