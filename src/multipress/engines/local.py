"""Runs on this computer: persistent workers, one process of one thread each, fed by the study's process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from multipress.errors import StoreError
from multipress.spec import RunSpec
from multipress.store import Store

__all__ = ["Job", "default_workers", "run_jobs"]

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A run and the runs that must be done before it."""

    run_id: str
    spec: RunSpec
    needs: tuple[str, ...] = ()


def default_workers() -> int:
    """One worker a core that this process may use."""
    return len(os.sched_getaffinity(0))


def run_jobs(
    jobs: list[Job],
    store: Store,
    *,
    num_workers: int,
    places: dict[str, str | None],
    on_end: Callable[[Job], None],
) -> None:
    """Execute jobs, each after those it needs; a job whose needs failed is failed too, the others go on.

    Jobs begin in the order given. A worker that dies (out of memory, killed) is replaced and its run tried once more;
    if that ends the same way, the run is failed.

    Args:
        jobs: Runs registered in the store, none done yet.
        store: Where workers claim and commit.
        num_workers: Processes.
        places: `data_dir` and `models_dir` as texts or None.
        on_end: Called in this process when a job has ended, however it did.
    """
    pool = _Pool(store, places, num_workers)
    waiting = list(jobs)
    died: set[str] = set()
    try:
        while waiting or pool.busy:
            unfinished = {job.run_id for job in [*waiting, *pool.busy.values()]}
            for job in [job for job in waiting if pool.has_room() and not unfinished.intersection(job.needs)]:
                missing = [run_id for run_id in job.needs if store.done(run_id) is None]
                if missing:
                    _fail(store, job, f"a run that it needs is not done ({', '.join(missing)})")
                    waiting.remove(job)
                    on_end(job)
                elif pool.has_room():
                    pool.begin(job)
                    waiting.remove(job)
            for job, problem in pool.wait():
                if problem and job.run_id not in died:
                    died.add(job.run_id)  # once more: what ended the worker may have been another's doing
                    waiting.insert(0, job)
                    continue
                if problem:
                    _fail(store, job, problem)
                on_end(job)
    finally:
        pool.stop()


def _fail(store: Store, job: Job, why: str) -> None:
    """Say in the store that a job failed, unless its worker had already committed it."""
    attempt = store.claim(job.run_id)
    if attempt is not None:
        attempt.fail("failed", f"The run did not end: {why}.", retryable=True)


class _Pool:
    """Workers, started when they are first needed.

    Attributes:
        busy: What each working worker is at.
    """

    def __init__(self, store: Store, places: dict[str, str | None], num_workers: int) -> None:
        self.busy: dict[_Worker, Job] = {}
        self._idle: list[_Worker] = []
        self._store = store
        self._places = places
        self._num_workers = num_workers

    def has_room(self) -> bool:
        return len(self.busy) < self._num_workers

    def begin(self, job: Job) -> None:
        worker = self._idle.pop() if self._idle else _Worker(self._store.folder, self._places)
        self.busy[worker] = job
        worker.begin(job)

    def wait(self) -> list[tuple[Job, str]]:
        """Jobs that ended, at least one if a worker is busy, each with what went wrong with its worker, or nothing."""
        ended = []
        ready = wait([worker.connection for worker in self.busy]) if self.busy else []
        for worker in [worker for worker in self.busy if worker.connection in ready]:
            problem = worker.finish()
            if worker.is_alive():
                self._idle.append(worker)
            ended.append((self.busy.pop(worker), problem))
        return ended

    def stop(self) -> None:
        for worker in [*self._idle, *self.busy]:
            worker.stop()


class _Worker:
    """A process that executes one job at a time."""

    def __init__(self, folder: Path, places: dict[str, str | None]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        saved = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
        try:
            self.process = context.Process(target=_serve, args=(theirs, str(folder), places, os.getpid()), daemon=True)
            self.process.start()
        finally:
            for name, value in saved.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def begin(self, job: Job) -> None:
        with suppress(OSError):  # a process that is gone shows in `finish`
            self.connection.send((job.run_id, job.spec.to_json()))

    def finish(self) -> str:
        """Take the answer: empty, or what kept the result from being written, or how the process ended."""
        try:
            return str(self.connection.recv())
        except (EOFError, OSError):
            self.process.join(5)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"its worker ended with {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
        return f"its worker ended with exit code {code}"

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join(3)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection: Connection, folder: str, places: dict[str, str | None], parent: int) -> None:
    """Body of a worker: executes what is sent until the connection closes or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops its workers
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a worker never outlives the study
    if os.getppid() != parent:
        return
    from multipress.engines.execute import Executor, Places

    executor = Executor(Store(Path(folder)), Places(**{k: Path(v) if v else None for k, v in places.items()}))
    while True:
        try:
            run_id, spec = connection.recv()
        except EOFError:
            return
        problem = ""
        try:
            executor.execute(run_id, RunSpec.from_json(spec))
        except StoreError as error:
            problem = str(error)
        connection.send(problem)
