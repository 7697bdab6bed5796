"""Runs on this computer: persistent workers, one process of one thread each, fed by the study's process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

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

    Jobs begin in the order given. A worker that dies (out of memory, killed) fails its run and is replaced.

    Args:
        jobs: Runs registered in the store, none done yet.
        store: Where workers claim and commit.
        num_workers: Processes.
        places: `data_dir` and `models_dir` as texts or None.
        on_end: Called in this process when a job has ended, however it did.
    """
    waiting = list(jobs)
    unfinished = {job.run_id for job in jobs}
    workers: list[_Worker] = []
    idle: list[_Worker] = []
    try:
        while unfinished:
            for job in [job for job in waiting if _ready(job, unfinished)]:
                if not _needs_done(job, store):
                    _fail(store, job, "a run that it needs is not done: " + ", ".join(job.needs))
                elif not idle and len(workers) >= min(num_workers, len(unfinished)):
                    break
                else:
                    worker = idle.pop() if idle else _Worker(store.folder, places)
                    if worker not in workers:
                        workers.append(worker)
                    worker.begin(job)
                    waiting.remove(job)
                    continue
                waiting.remove(job)
                unfinished.discard(job.run_id)
                on_end(job)
            busy = [worker for worker in workers if worker.job is not None]
            if not busy:
                continue
            for connection in wait([worker.connection for worker in busy]):
                worker = next(worker for worker in busy if worker.connection is connection)
                ended = worker.job
                assert ended is not None
                if worker.finish():
                    idle.append(worker)
                else:
                    workers.remove(worker)
                    _fail(store, ended, f"its worker ended with {worker.ending()}")
                unfinished.discard(ended.run_id)
                on_end(ended)
    finally:
        for worker in workers:
            worker.stop()


def _ready(job: Job, unfinished: set[str]) -> bool:
    return not any(run_id in unfinished for run_id in job.needs)


def _needs_done(job: Job, store: Store) -> bool:
    return all(store.done(run_id) is not None for run_id in job.needs)


def _fail(store: Store, job: Job, why: str) -> None:
    """Say in the store that a job failed, unless its worker had already committed it."""
    attempt = store.claim(job.run_id)
    if attempt is not None:
        attempt.fail("failed", f"The run did not end: {why}.", retryable=True)


class _Worker:
    """A process that executes one job at a time."""

    def __init__(self, folder: Path, places: dict[str, str | None]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.job: Job | None = None
        saved = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
        try:
            self.process = context.Process(
                target=_serve, args=(theirs, str(folder), places, os.getpid()), daemon=True
            )
            self.process.start()
        finally:
            for name, value in saved.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def begin(self, job: Job) -> None:
        self.job = job
        self.connection.send((job.run_id, job.spec.to_json()))

    def finish(self) -> bool:
        """Take the answer; False if the process ended in place of one."""
        self.job = None
        try:
            self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return False
        return True

    def ending(self) -> str:
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"{name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
        return f"exit code {code}"

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
        executor.execute(run_id, RunSpec.from_json(spec))
        connection.send(run_id)

