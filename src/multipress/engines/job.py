"""What an engine is given and gives back: jobs, where their inputs are found, how they ended."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from multipress.spec import RunSpec
from multipress.store import Attempt, Store

__all__ = ["ANYWHERE", "EXECUTOR", "Executes", "Job", "Outcome", "Places", "make_executor", "scratch_of", "settle"]

SCRATCH = "scratch"
EXECUTOR = "multipress.engines.execute:Executor"


@dataclass(frozen=True)
class Job:
    """A run and the runs that must be done before it."""

    run_id: str
    spec: RunSpec
    needs: tuple[str, ...] = ()

    @cached_property
    def record(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return self.spec.to_json()


@dataclass(frozen=True)
class Places:
    """Where models and data are found; no part of a run's identity.

    Args:
        data_dir: Folder with `glue/<task>/<split>.parquet`; None: `MULTIPRESS_DATA`, then the hub.
        models_dir: Folder of model folders; None: `MULTIPRESS_MODELS`, then the hub.
    """

    data_dir: Path | None = None
    models_dir: Path | None = None


ANYWHERE = Places()  # what the environment names, and the hub


@dataclass(frozen=True)
class Outcome:
    """How the work of an attempt ended.

    Args:
        state: `done`, `failed`, `diverged` or `refused`.
        why: One line for the user; empty if done.
        retryable: Whether the same run may succeed when tried again.
    """

    state: str = "done"
    why: str = ""
    retryable: bool = False


class Executes(Protocol):
    """Does the work of runs, one after the other, in one process; it keeps what they have in common."""

    def fill(self, run_id: str, spec: RunSpec, folder: Path) -> Outcome:
        """Put a run's result into the folder of an attempt."""
        ...


def make_executor(name: str, store: Store, places: Places) -> Executes:
    """The executor that a name such as `package.module:Class` stands for; other processes are told the name."""
    module, _, attribute = name.partition(":")
    executor: Executes = getattr(importlib.import_module(module), attribute)(store, places)
    return executor


def scratch_of(attempt: Path) -> Path:
    """The folder, made, for what a run goes on from after an interruption; beside the attempt's, gone with the commit.

    All attempts at a run share it, and a run writes nothing there that depends on when it runs: an attempt that was
    given up but works on does no harm.
    """
    folder = attempt.parent / SCRATCH
    folder.mkdir(exist_ok=True)
    return folder


def settle(attempt: Attempt, outcome: Outcome) -> None:
    """Commit an attempt whose work is done, or write why it failed.

    Raises:
        StoreError: neither can be written.
    """
    if outcome.state == "done":
        attempt.commit()
        shutil.rmtree(attempt.folder.parent / SCRATCH, ignore_errors=True)
    else:
        attempt.fail(outcome.state, outcome.why, outcome.retryable)
