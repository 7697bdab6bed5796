"""Trackers: a copy of what runs have logged and measured, for those who look at it elsewhere. Never the truth.

A tracker reads a run's folder after the run has ended, in the study's process. Whatever it raises is a note to the user
and nothing more; the run is done.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from multipress.errors import SpecError
from multipress.records import Run
from multipress.store import Store, read_text

__all__ = ["TRACKERS", "TensorBoard", "Tracker", "Tracking"]


class Tracker(Protocol):
    """A place that copies of finished runs go to."""

    def log(self, run: Run, steps: Sequence[dict[str, Any]], values: dict[str, float]) -> None:
        """Take a run that is done.

        Args:
            run: The run.
            steps: Lines of its training log: `step`, `loss`; none for a run that trains nothing.
            values: What was measured, by name.
        """
        ...


class TensorBoard:
    """Event files below `<runs>/tensorboard/<run_id>`, to be opened by `tensorboard --logdir <runs>/tensorboard`.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, store: Store) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter
        self._folder = store.folder / "tensorboard"

    def log(self, run: Run, steps: Sequence[dict[str, Any]], values: dict[str, float]) -> None:
        """As `Tracker.log`; a run that has its folder is left alone."""
        folder = self._folder / run.run_id
        if folder.exists():
            return
        partial = self._folder / f"{run.run_id}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with self._writer(str(partial)) as writer:
            writer.add_text("spec", f"```json\n{json.dumps(run.spec, indent=1, sort_keys=True)}\n```")
            for line in steps:
                writer.add_scalar("loss", line["loss"], line["step"])
            for name, value in values.items():
                writer.add_scalar(name, value)
        partial.rename(folder)


TRACKERS: dict[str, Callable[[Store], Tracker]] = {"tensorboard": TensorBoard}


class Tracking:
    """All trackers of a study, none of which can stop it.

    Args:
        names: Keys of `TRACKERS`.
        store: The study's store.
        on_note: Called with what went wrong, once for each tracker.

    Raises:
        SpecError: there is no such tracker.
    """

    def __init__(self, names: Sequence[str], store: Store, on_note: Callable[[str], None]) -> None:
        unknown = sorted(set(names) - set(TRACKERS))
        if unknown:
            raise SpecError(f"study.report_to names {unknown[0]!r}; choose from: {', '.join(TRACKERS)}.")
        self._store = store
        self._on_note = on_note
        self._trackers: dict[str, Tracker] = {}
        self._said: set[str] = set()
        for name in names:
            with self._guard(name):
                self._trackers[name] = TRACKERS[name](store)

    def log(self, run: Run) -> None:
        """Give a run that has ended to the trackers; one that is not done is left out."""
        done = self._store.done(run.run_id)
        if done is None:
            return
        for name, tracker in self._trackers.items():
            with self._guard(name):
                tracker.log(run, *_read(done))

    @contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the study goes on
            if name not in self._said:
                self._said.add(name)
                self._on_note(f"{name} does not take the runs: {type(error).__name__}: {error}. The study goes on.")


def _read(done: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The training log's steps and the measured numbers of an attempt."""
    steps: list[dict[str, Any]] = []
    values: dict[str, float] = {}
    if (done / "log.jsonl").is_file():
        steps = [line for line in map(json.loads, read_text(done / "log.jsonl").splitlines()) if "step" in line]
    if (done / "measurements.jsonl").is_file():
        for row in map(json.loads, read_text(done / "measurements.jsonl").splitlines()):
            values.setdefault(row["name"], float(row["value"]))
    return steps, values
