"""The folder itself: which runs there are, who works on them, what they say."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multipress.durable import Lock, json_text, make_folder, write_bytes, write_json
from multipress.errors import NoStoreError, SpecError, StoreError
from multipress.records import Run
from multipress.spec import check_study_name
from multipress.store.attempt import (
    Attempt,
    attempt_number,
    attempts_of,
    done_problem,
    read_object,
    state_of,
    verify_attempt,
)
from multipress.store.table import cell_row

__all__ = ["Store", "Verification"]

_RUN_ID = re.compile(r"[0-9a-f]{12}")
_MEASURE = re.compile(r"[a-z][a-z0-9_]{0,30}-[1-9][0-9]{0,3}")


@dataclass(frozen=True)
class Verification:
    """What `Store.verify` found out about one run.

    Args:
        run_id: The run.
        state: Its state, as `Store.runs` tells it.
        files: How many files were hashed.
        problems: What is wrong, one line each; empty: all is well.
        advice: What to do; empty where nothing is wrong.
    """

    run_id: str
    state: str
    files: int
    problems: tuple[str, ...] = ()
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)


class Store:
    """A folder of runs and studies, safe to share between processes of one computer.

    Args:
        folder: Where the runs lie; made by the first `register` or `check_writable`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def check_writable(self) -> None:
        """Write, lock and remove a small file, so that a bad folder fails before any training.

        Raises:
            StoreError: it cannot be written to, or its file system has no locks.
        """
        make_folder(self.folder)
        probe = self.folder / f".writable-{os.getpid()}"
        try:
            write_bytes(probe, b"")
            lock = Lock(probe)
            lock.acquire()
            lock.release()
        finally:
            probe.unlink(missing_ok=True)

    def register(self, run_id: str, spec: dict[str, Any]) -> None:
        """Make a run known. The first description stays; a damaged one is written anew.

        Args:
            run_id: 12 hex digits.
            spec: The run as plain JSON values (`RunSpec.to_json()`).
        """
        folder = Path(self._run_folder(run_id))
        try:
            read_object(folder / "spec.json")
        except (OSError, ValueError):
            make_folder(folder)
            # A power cut may take it: it is then written anew, and what was done lies in the attempt.
            write_bytes(folder / "spec.json", json_text(spec).encode(), sync=False)

    def claim(self, run_id: str, measure: str = "", *, seen: int | None = None) -> Attempt | None:
        """Begin a new attempt at a registered run, or at a later measurement of one that is done.

        Args:
            run_id: The run.
            measure: Name and version of what is measured, such as `speed-1`; empty: the run itself.
            seen: How many attempts there were when it was decided to begin another; None: never mind.

        Returns:
            The attempt; None if it is done, another process works on it, or has ended an attempt meanwhile.

        Raises:
            StoreError: the run is not registered, or the folder cannot be written to.
        """
        folder = Path(self._place(run_id, measure))
        if not Path(self._run_folder(run_id), "spec.json").is_file():
            raise StoreError(f"{folder} has no spec.json: the run was not registered. Run the study again.")
        if self.done(run_id, measure) is not None:
            return None
        if measure:
            make_folder(folder)
        lock = Lock(folder / "lock")
        if not lock.acquire():
            return None
        try:
            # Again, now that nobody else can commit: it may have been done between look and lock.
            if self.done(run_id, measure) is not None:
                lock.release()
                return None
            attempts = attempts_of(folder)
            if seen is not None and len(attempts) > seen and os.path.exists(f"{attempts[-1]}/FAILED"):
                lock.release()
                return None
            number = attempt_number(attempts[-1]) + 1 if attempts else 1
            attempt = Attempt(run_id, folder / f"attempt-{number}", lock)
            attempt.folder.mkdir()
            if not measure:
                write_bytes(attempt.folder / "spec.json", (folder / "spec.json").read_bytes(), sync=False)
        except OSError as error:
            lock.release()
            raise StoreError(f"Cannot begin an attempt in {folder}: {error.strerror}.") from error
        except BaseException:
            lock.release()
            raise
        return attempt

    def done(self, run_id: str, measure: str = "") -> Path | None:
        """The folder of the attempt that is done, at the run or at a later measurement of it, or None.

        Done means: DONE can be read and each file in it is there with its size. `verify` hashes them too.
        """
        found = _newest_done(attempts_of(self._place(run_id, measure)))
        return None if found is None else Path(found)

    def measured(self, run_id: str) -> list[str]:
        """Names of the later measurements of a run that are done, sorted."""
        names = [os.path.basename(place) for place in self._places(run_id)[1:]]
        return [name for name in names if self.done(run_id, name) is not None]

    def runs(self) -> list[Run]:
        """All runs, sorted by id; a damaged one is failed and says why, the others are unaffected.

        Raises:
            StoreError: there is no such folder.
        """
        return [self.run(run_id) for run_id in self._run_ids()]

    def run(self, run_id: str) -> Run:
        """One run, as its folder tells it."""
        return self._look(run_id)[0]

    def _look(self, run_id: str) -> tuple[Run, str | None]:
        """A run, and the folder of its attempt that is done."""
        folder = self._run_folder(run_id)
        attempts = attempts_of(folder)
        done = _newest_done(attempts)
        state, why, retryable = "pending", "", False
        if done is not None:
            state = "done"
        elif attempts:
            state, why, retryable = state_of(attempts[-1])
            done = attempts[-1] if state == "done" else None  # ended between the two looks
        try:
            spec = read_object(f"{folder}/spec.json")
        except (OSError, ValueError) as error:
            if not os.path.isdir(folder):
                return Run(run_id, {}, "pending", why="The run's folder is missing.", retryable=True), None
            spec = {}
            state, why, retryable = "failed", f"{folder}/spec.json is damaged: {error}.", True
        return Run(run_id, spec, state, len(attempts), why, retryable), done

    def save_study(self, name: str, document: dict[str, Any]) -> None:
        """Keep a study: which runs are its cells, in order (`cells`), and what was asked (`spec`).

        Raises:
            SpecError: the name cannot be a file name.
        """
        check_study_name(name)
        make_folder(self.folder / "studies")
        write_json(self.folder / "studies" / f"{name}.json", document)

    def studies(self) -> dict[str, dict[str, Any]]:
        """All studies by name, sorted.

        Raises:
            StoreError: there is no such folder, or a study's file is damaged.
        """
        self._check_there()
        found = {}
        for path in sorted((self.folder / "studies").glob("*.json")):
            try:
                found[path.stem] = read_object(path)
            except (OSError, ValueError) as error:
                raise StoreError(f"{path} is damaged: {error}. Run the study again to write it anew.") from error
        return found

    def cells(self, study: str = "") -> list[dict[str, Any]]:
        """One row for each cell of the studies, in the studies' order; a run in two studies gives one row.

        Args:
            study: Only the cells of this study.

        Returns:
            Rows with `run_id`, `studies`, `model`, `task`, `methods` (names), `settings` (name to settings; of several
            stages, each method's last), `stages` (names of methods by stage, where there are several), `rewound`,
            `seed`, `learning_rate`, `data`, `training`, `state`, `why`; and of a done run `score`, `metrics`
            (name to value), `ideal_bytes`, `weights_bytes`, `package_bytes`, `dense_bytes` and every other
            measured number that is not a share. Of a run that is not done these six are None (`metrics`:
            empty), never 0.

        Raises:
            SpecError: there is no such study.
            StoreError: there is no such folder, or a study's file is damaged.
        """
        studies = self.studies()
        if study and study not in studies:
            raise SpecError(f"No study {study!r} in {self.folder}; there are: {', '.join(studies) or 'none'}.")
        rows: dict[str, dict[str, Any]] = {}
        for name, document in studies.items():
            if study and name != study:
                continue
            for run_id in document.get("cells", []):
                if run_id not in rows:
                    rows[run_id] = cell_row(*self._look(run_id))
                rows[run_id]["studies"].append(name)
        return list(rows.values())

    def verify(self) -> list[Verification]:
        """Hash everything that claims to be done again; one verdict a run, sorted by id.

        Raises:
            StoreError: there is no such folder.
        """
        return [self._verify_run(run_id) for run_id in self._run_ids()]

    def _verify_run(self, run_id: str) -> Verification:
        run = self.run(run_id)
        problems, num_files, damaged = [], 0, []
        if not run.spec:
            problems.append(run.why)
        for attempt in [attempt for place in self._places(run_id) for attempt in attempts_of(place)]:
            if os.path.exists(f"{attempt}/DONE"):
                found, count = verify_attempt(attempt)
                problems += found
                num_files += count
                if found:
                    damaged.append(attempt)
        advice = ""
        if damaged:
            advice = f"Delete {' and '.join(damaged)} and run the study again; only this run is made anew."
        elif problems:
            advice = "Run the study again; it writes this file anew."
        return Verification(run_id, run.state, num_files, tuple(problems), advice)

    def _run_folder(self, run_id: str) -> str:
        if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
            raise StoreError(f"{run_id!r} is not a run's id, which has 12 hex digits.")
        return f"{self.folder}/{run_id}"

    def _place(self, run_id: str, measure: str) -> str:
        """The folder of a run's attempts, or of a later measurement's."""
        if measure and not _MEASURE.fullmatch(measure):
            raise StoreError(f"{measure!r} is not the name and version of a measurement, such as speed-1.")
        return self._run_folder(run_id) + (f"/measurements/{measure}" if measure else "")

    def _places(self, run_id: str) -> list[str]:
        """The folder of a run's attempts, then those of its later measurements."""
        folder = f"{self._run_folder(run_id)}/measurements"
        names = sorted(filter(_MEASURE.fullmatch, os.listdir(folder))) if os.path.isdir(folder) else []
        return [self._run_folder(run_id), *(f"{folder}/{name}" for name in names)]

    def _run_ids(self) -> list[str]:
        self._check_there()
        return sorted(entry.name for entry in os.scandir(self.folder) if _RUN_ID.fullmatch(entry.name))

    def _check_there(self) -> None:
        if not self.folder.is_dir():
            raise NoStoreError(f"There is no folder of runs {self.folder}. Name the one given to --runs.")


def _newest_done(attempts: Sequence[str]) -> str | None:
    for attempt in reversed(attempts):
        if not done_problem(attempt):
            return attempt
    return None
