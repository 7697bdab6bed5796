"""A study without torch, whose cells take no time or as long as they are told to, and fail as their model's name says.

As a program it runs such a study to its end and prints the final table: `python tests/stub.py RUNS --cells 12`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

from multipress.engines.job import Job, Outcome, Places
from multipress.engines.local import LocalEngine
from multipress.engines.schedule import run_what_is_left
from multipress.spec import DataSpec, MethodSpec, RunSpec
from multipress.store import Store

EXECUTOR = "stub:Executor"


class Executor:
    """Fills an attempt with numbers that follow from the run's id and from its teacher's result.

    A model named `hangs`, `dies`, `eats`, `diverges`, `refused` or `breaks` does so; with `-once` behind it, in the
    run's first attempt alone. STUB_SECONDS says how long a run takes (it sleeps), STUB_WORK_SECONDS how long
    it computes.
    """

    def __init__(self, store: Store, places: Places) -> None:
        self._store = store

    def fill(self, run_id: str, spec: RunSpec, folder: Path) -> Outcome:
        end = time.monotonic() + float(os.environ.get("STUB_SECONDS", "0"))
        (folder / "worker").write_text(str(os.getpid()))
        until = time.monotonic() + float(os.environ.get("STUB_WORK_SECONDS", "0"))
        while time.monotonic() < until:
            pass
        fault, _, once = spec.model.partition("-")
        if not once or folder.name == "attempt-1":
            outcome = FAULTS.get(fault, lambda: None)()
            if outcome is not None:
                return outcome
        digest = hashlib.sha256(run_id.encode())
        if spec.teacher:
            done = self._store.done(spec.teacher)
            if done is None:
                return Outcome("failed", "The teacher is not done.", retryable=True)
            digest.update((done / "measurements.jsonl").read_bytes())
        number = int.from_bytes(digest.digest()[:4]) / 2**32
        rows = [
            {"run_id": run_id, "name": "score", "value": number, "unit": "share", "context": {}},
            {"run_id": run_id, "name": "weights_bytes", "value": round(1e6 * number), "unit": "bytes", "context": {}},
        ]
        (folder / "measurements.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "artifact").mkdir()
        (folder / "artifact" / "model.safetensors").write_bytes(digest.digest())
        time.sleep(max(0.0, end - time.monotonic()))
        return Outcome()


def _hang():
    time.sleep(10**6)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _eat():
    try:
        bytearray(2 << 30)
    except MemoryError as error:
        return Outcome("failed", f"MemoryError: {error}", retryable=True)
    return Outcome("failed", "there was memory for it")


def _break():
    raise ValueError("stub")


FAULTS = {
    "hangs": _hang,
    "dies": _die,
    "eats": _eat,
    "diverges": lambda: Outcome("diverged", "The loss is not a number."),
    "refused": lambda: Outcome("refused", "stub"),
    "breaks": _break,
}


def make_jobs(num_cells: int, model: str = "stub") -> list[Job]:
    """A teacher, its logits, and cells of which every other one learns from them; the teacher is the first cell."""
    data = DataSpec(task="t")
    teacher = RunSpec("train", model, data)
    label = RunSpec("label", model, data, teacher=_id(teacher))
    jobs = [Job(_id(teacher), teacher), Job(_id(label), label, (_id(teacher),))]
    for number in range(1, num_cells):
        learns = number % 2 == 0
        methods = (MethodSpec("distillation", {}),) if learns else (MethodSpec("quantization", {"bits": 8}),)
        spec = RunSpec("train", model, data, methods=methods, seed=number, teacher=_id(label) if learns else "")
        jobs.append(Job(_id(spec), spec, (_id(label),) if learns else ()))
    return jobs


def _id(spec: RunSpec) -> str:
    return hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True).encode()).hexdigest()[:12]


def run(store: Store, jobs: list[Job], engine) -> None:
    """The study of these jobs, to its end."""
    store.check_writable()
    cells = [job.run_id for job in jobs if job.spec.kind == "train"]
    store.save_study("stub", {"cells": cells, "spec": {}})
    run_what_is_left(jobs, store, engine)


def table(store: Store) -> str:
    """What a user sees at the end."""
    return json.dumps(store.cells(), sort_keys=True, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    if "STUB_PYTHON" in os.environ:  # what workers are started with
        multiprocessing.set_executable(os.environ["STUB_PYTHON"])
    store = Store(arguments.runs)
    with closing(LocalEngine(store, Places(), arguments.workers, executor=EXECUTOR)) as engine:
        run(store, make_jobs(arguments.cells), engine)
    sys.stdout.write(table(store) + "\n")


if __name__ == "__main__":
    main()
