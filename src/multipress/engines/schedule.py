"""Jobs in the order of their needs, given to an engine as it has room."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from multipress.engines.job import Job, Outcome, settle
from multipress.records import Run
from multipress.store import Store

__all__ = ["Answer", "Engine", "is_to_do", "run_jobs", "run_what_is_left"]

LOOK_AGAIN_SECONDS = 0.5
_NOT_ENDED = "The run did not end: "


@dataclass(frozen=True)
class Answer:
    """What an engine says of a job.

    Args:
        job: The job.
        state: `ended`: the store says how; `elsewhere`: another process works on the run; `lost`: what worked on it
            ended without a result.
        why: What was lost and how.
    """

    job: Job
    state: str
    why: str = ""


class Engine(Protocol):
    """Executes jobs whose needs are done.

    Attributes:
        tries: How often a job is begun whose worker is lost again and again.
    """

    tries: int

    def has_room(self) -> bool:
        """Whether another job can begin now."""
        ...

    def begin(self, job: Job) -> None:
        """Begin a job, registered in the store and not done."""
        ...

    def wait(self, seconds: float) -> list[Answer]:
        """Answers that came; waits for the first one, at most so long."""
        ...

    def close(self) -> None:
        """End everything that works, within seconds."""
        ...


def run_what_is_left(
    jobs: list[Job],
    store: Store,
    engine: Engine,
    *,
    on_begin: Callable[[Job], None] = lambda job: None,
    on_end: Callable[[Run, int, int], None] = lambda run, ended, total: None,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Execute those jobs that are not done or may succeed when tried again.

    Args:
        jobs: Jobs in an order in which they can run.
        store: Where they are registered, and what is done lies.
        engine: What executes them.
        on_begin: Called when a job begins.
        on_end: Called when a run has ended, with how many have ended and how many there are.
        is_over: As for `run_jobs`.
    """
    for job in jobs:
        store.register(job.run_id, job.record)
    left = [job for job in jobs if is_to_do(store.run(job.run_id))]
    ended = len(jobs) - len(left)

    def report(job: Job) -> None:
        nonlocal ended
        ended += 1
        on_end(store.run(job.run_id), ended, len(jobs))

    run_jobs(left, store, engine, on_begin=on_begin, on_end=report, is_over=is_over)


def is_to_do(run: Run) -> bool:
    """Whether a run has no result yet and may get one."""
    return run.state in ("pending", "running") or (run.state == "failed" and run.retryable)


def run_jobs(
    jobs: list[Job],
    store: Store,
    engine: Engine,
    *,
    on_begin: Callable[[Job], None] = lambda job: None,
    on_end: Callable[[Job], None] = lambda job: None,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Execute jobs, each after those it needs; a job whose needs failed is failed too, the others go on.

    Jobs begin in the order given. One whose worker is lost is begun again, and failed when its tries are used up. One
    that another process works on is looked at again when nothing else can begin.

    Args:
        jobs: Runs registered in the store, none done yet.
        store: Where they are claimed and committed.
        engine: What executes them.
        on_begin: Called when a job begins.
        on_end: Called when a job has ended, however it did.
        is_over: Asked every so often; once it says yes, what works is ended, as if the process had been stopped.
    """
    queue = _Queue(jobs)
    tried = {job.run_id: _ended_attempts(store.run(job.run_id)) for job in jobs}
    losses: dict[str, int] = defaultdict(int)

    def end(job: Job) -> None:
        queue.end(job)
        on_end(job)

    while queue.open:
        if is_over():
            engine.close()
            return
        while engine.has_room() and (job := queue.next()) is not None:
            run = store.run(job.run_id)
            is_ended = not is_to_do(run) or (run.state == "failed" and run.attempts > tried[job.run_id])
            if is_ended or _lacks(job, store):  # ended: another runner's work meanwhile
                end(job)
            else:
                on_begin(job)
                engine.begin(job)
        for answer in engine.wait(LOOK_AGAIN_SECONDS) if queue.open else []:
            if answer.state == "elsewhere":
                queue.elsewhere.append(answer.job)
                continue
            if answer.state == "lost":
                losses[answer.job.run_id] += 1
                if losses[answer.job.run_id] < engine.tries:
                    queue.add(answer.job)
                    continue
                _fail(store, answer.job, answer.why)
            end(answer.job)


def _lacks(job: Job, store: Store) -> bool:
    """Whether a run that a job needs is not done; then the job is failed, with the reason."""
    missing = [run_id for run_id in job.needs if store.done(run_id) is None]
    if missing:
        why = store.run(missing[0]).why.removeprefix(_NOT_ENDED).removesuffix(".") or "nobody ran it"
        _fail(store, job, f"{missing[0]}, a run that it needs, is not done: {why}")
    return bool(missing)


def _ended_attempts(run: Run) -> int:
    """Attempts that have ended: one that is running now may yet end in another way."""
    return run.attempts - (run.state == "running")


class _Queue:
    """Jobs that have not ended: those that can begin, in order, and those that wait for others."""

    def __init__(self, jobs: list[Job]) -> None:
        self.open = {job.run_id for job in jobs}
        self.elsewhere: list[Job] = []
        self._order = {job.run_id: number for number, job in enumerate(jobs)}
        self._waiting_for = {job.run_id: self.open.intersection(job.needs) for job in jobs}
        self._needed_by: dict[str, list[Job]] = defaultdict(list)
        self._ready: list[tuple[int, Job]] = []
        self._looked = 0.0
        for job in jobs:
            for run_id in self._waiting_for[job.run_id]:
                self._needed_by[run_id].append(job)
            if not self._waiting_for[job.run_id]:
                self.add(job)

    def add(self, job: Job) -> None:
        """A job that can begin."""
        heapq.heappush(self._ready, (self._order[job.run_id], job))

    def next(self) -> Job | None:
        """The next job to begin; where there is none, after a while those that were elsewhere."""
        now = time.monotonic()
        if not self._ready and self.elsewhere and now - self._looked >= LOOK_AGAIN_SECONDS:
            self._looked = now
            for job in self.elsewhere:
                self.add(job)
            self.elsewhere = []
        return heapq.heappop(self._ready)[1] if self._ready else None

    def end(self, job: Job) -> None:
        """A job has ended; what waited for it alone can begin."""
        self.open.discard(job.run_id)
        for other in self._needed_by.pop(job.run_id, []):
            self._waiting_for[other.run_id].discard(job.run_id)
            if not self._waiting_for[other.run_id]:
                self.add(other)


def _fail(store: Store, job: Job, why: str) -> None:
    """Say in the store that a job failed, unless its worker had already committed it."""
    attempt = store.claim(job.run_id)
    if attempt is not None:
        settle(attempt, Outcome("failed", f"{_NOT_ENDED}{why}.", retryable=True))
