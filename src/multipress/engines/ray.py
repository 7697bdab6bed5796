"""Runs on a Ray cluster: the same runs as Ray tasks. Only this process claims and commits.

Folders of runs lie on a file system that all nodes see. A task fills the folder of an attempt; what it made comes back
by that folder, not by Ray. A task whose node is lost can write on into its old attempt, which nobody commits.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from multipress.engines.identity import LIBRARIES
from multipress.engines.job import EXECUTOR, Executes, Job, Outcome, Places, make_executor, settle
from multipress.engines.local import default_workers, one_thread
from multipress.engines.schedule import Answer
from multipress.errors import InputError, StoreError
from multipress.reproducibility import computer, library_versions
from multipress.spec import RunSpec
from multipress.store import Attempt, Store

__all__ = ["RayEngine"]

ANSWER_SECONDS = 5
PROBE_SECONDS = 240
MOUNT_ADVICE = (
    "All nodes need the folder of runs under one path, the same libraries and the same kind of processor; start Ray "
    "without those that differ."
)


class RayEngine:
    """Tasks of one processor each on a Ray cluster; an `Engine`.

    Args:
        store: Where this process claims and commits, on a file system that every node sees.
        places: Where models and data are found, on every node.
        num_workers: Most tasks at a time; 0: one a processor of the cluster, or a core where Ray is started here.
        address: A running cluster's; empty: Ray is started here, bound to this host, and ended with the engine.
        memory_bytes: Memory that Ray must find free for a task; 0: it is not asked for.
        num_gpus: GPUs a task needs.
        executor: What executes, as `make_executor` reads it.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """

    tries = 4  # a node may be lost under a run more than once

    def __init__(  # noqa: PLR0913 - what to run, where, and what a task needs
        self,
        store: Store,
        places: Places,
        num_workers: int = 0,
        *,
        address: str = "",
        memory_bytes: int = 0,
        num_gpus: float = 0.0,
        executor: str = EXECUTOR,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise InputError("--engine ray needs Ray: pip install 'multipress[ray]'.") from None
        self._ray = ray
        self._store = Store(store.folder.absolute())
        everywhere = Places(*(place and place.absolute() for place in (places.data_dir, places.models_dir)))
        self._setup = (self._store.folder, everywhere, executor)
        self._num_workers = num_workers
        self._busy: dict[Any, tuple[Job, Attempt]] = {}
        self._answers: deque[Answer] = deque()
        self._start(address, num_workers)
        wanted = {"CPU": 1.0, "GPU": num_gpus, "memory": float(memory_bytes)}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0.0) >= count for name, count in wanted.items()) for node in nodes):
            ray.shutdown()
            needs = ", ".join(f"{name} {count:g}" for name, count in wanted.items() if count)
            raise InputError(f"No node of the Ray cluster can run a task, which needs {needs}.")
        store.check_writable()
        self._check_nodes()
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": num_gpus, "max_retries": 0}
        self._task = ray.remote(_fill).options(**options | ({"memory": memory_bytes} if memory_bytes else {}))

    def _start(self, address: str, num_workers: int) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address:
            host, _, port = address.rpartition(":")
            try:
                if port.isdigit() and "/" not in host:  # Ray itself would try for half a minute
                    socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
                self._ray.init(address=address, **quiet)
            except (OSError, ValueError, RuntimeError) as error:
                raise InputError(f"No Ray cluster answers at {address}: {error}") from None
            return
        # Ray has no setting for it: a computer that it takes to be no part of a cluster listens to itself alone.
        self._ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            with one_thread():
                workers = num_workers or default_workers()
                self._ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        finally:
            self._ray._private.ray_constants.ENABLE_RAY_CLUSTER = True

    def _check_nodes(self) -> None:
        """Refuse a cluster with a node that does not see the store, or whose runs would have other names than ours.

        Such a node answers at once, so that it would be given, and fail, one run after another.
        """
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        options = {"num_cpus": 0, "max_retries": 0}
        asked = [
            self._probe_task()
            .options(**options, scheduling_strategy=strategy(node["NodeID"], soft=False))
            .remote(str(self._store.folder))
            for node in nodes
        ]
        here = _probe(str(self._store.folder))
        for node, reference in zip(nodes, asked, strict=True):
            name = node["NodeManagerHostname"]
            try:
                found = self._ray.get(reference, timeout=PROBE_SECONDS)
            except self._ray.exceptions.RayError as error:
                problem = f"does not answer ({type(error).__name__})"
            else:
                other = sorted(key for key in here if found.get(key) != here[key])
                problem = f"has other {' and '.join(other)} than this one" if other else ""
                problem = problem if found["folder"] == here["folder"] else f"does not see {self._store.folder}"
            if problem:
                self._ray.shutdown()
                raise InputError(f"The node {name} of the Ray cluster {problem}. {MOUNT_ADVICE}")

    def _probe_task(self) -> Any:
        return self._ray.remote(_probe)

    def has_room(self) -> bool:
        """Whether another task may begin; that Ray has no processor for it yet does no harm."""
        most = self._num_workers or int(self._ray.cluster_resources().get("CPU", 1))
        return len(self._busy) + len(self._answers) < max(1, most)

    def begin(self, job: Job) -> None:
        """Claim a run and give its attempt to a task."""
        attempt = self._store.claim(job.run_id)
        if attempt is None:
            state = "ended" if self._store.done(job.run_id) is not None else "elsewhere"
            self._answers.append(Answer(job, state))
            return
        reference = self._task.remote(self._setup, job.run_id, job.record, str(attempt.folder))
        self._busy[reference] = (job, attempt)

    def wait(self, seconds: float) -> list[Answer]:
        """As `Engine.wait`; commits what tasks have made."""
        if not self._answers:
            references = list(self._busy)
            if references:
                ready, _ = self._ray.wait(references, num_returns=1, timeout=seconds)
            else:
                ready = []
                time.sleep(seconds)
            for reference in ready:
                self._answers.append(self._settle(reference))
        answers, self._answers = list(self._answers), deque()
        return answers

    def _settle(self, reference: Any) -> Answer:
        job, attempt = self._busy.pop(reference)
        try:
            outcome = Outcome(**self._ray.get(reference))
            settle(attempt, outcome)
        except StoreError as error:
            return Answer(job, "lost", str(error))
        except self._ray.exceptions.RayError as error:
            return Answer(
                job, "lost", f"Ray lost its task ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            )
        finally:
            attempt.release()
        return Answer(job, "ended")

    def close(self) -> None:
        """End the tasks, and the Ray that was started here."""
        for reference, (_, attempt) in self._busy.items():
            self._ray.cancel(reference, force=True)
            attempt.release()
        self._busy = {}
        self._ray.shutdown()


def _probe(folder: str) -> dict[str, Any]:
    """What must be the same on every node."""
    return {
        "folder": Path(folder).is_dir(),
        "versions": library_versions("multipress", *LIBRARIES),
        "instruction sets": computer()["instruction_sets"],
    }


def _fill(setup: tuple[Path, Places, str], run_id: str, spec: dict[str, Any], folder: str) -> dict[str, Any]:
    """Body of a task: fills the folder of an attempt; returns the outcome as plain values."""
    if not Path(folder).is_dir():
        why = f"The node {os.uname().nodename} does not see {folder}. {MOUNT_ADVICE}"
        return asdict(Outcome("failed", why, retryable=True))
    return asdict(_executor(*setup).fill(run_id, RunSpec.from_json(spec), Path(folder)))


@lru_cache(maxsize=1)
def _executor(folder: Path, places: Places, name: str) -> Executes:
    """This process's executor; Ray gives the next task to the same process where it can."""
    return make_executor(name, Store(folder), places)
