"""One try at a run: the files it leaves, DONE or FAILED written last, and how they are read back.

Folders are texts where they are only looked at: a table looks at thousands, and making a Path takes longer
than asking for a file's size.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from multipress.durable import Lock, file_fact, sync_folder, write_json
from multipress.errors import StoreError

__all__ = [
    "Attempt",
    "attempt_number",
    "attempts_of",
    "done_problem",
    "read_object",
    "read_text",
    "state_of",
    "verify_attempt",
]

_ATTEMPT = re.compile(r"attempt-([1-9][0-9]*)")
_CHUNK_BYTES = 1 << 16
_FAILED_STATES = ("failed", "diverged", "refused")


class Attempt:
    """One try at a run, and the right to write its result. Made by `Store.claim`.

    Attributes:
        run_id: The run.
        folder: Where everything the run makes belongs.
    """

    def __init__(self, run_id: str, folder: Path, lock: Lock) -> None:
        self.run_id = run_id
        self.folder = folder
        self._lock = lock

    def commit(self) -> None:
        """Make the attempt's files the run's result: hash and fsync all, write DONE last, release the lock.

        Raises:
            StoreError: the attempt is no longer the newest or was already closed, a file is a link, or the
                disk failed. The run is then not done.
        """
        self._check_open()
        paths, folders = _entries_below(str(self.folder))
        start = len(str(self.folder)) + 1
        files = {path[start:]: file_fact(path, sync=True) for path in paths}
        # All above it too, up to the store: nothing there is brought to the disk before this.
        above = [folder for folder in self.folder.parents if self.run_id in folder.parts]
        for below in folders:
            sync_folder(below)
        for folder in [self.folder, *above, above[-1].parent]:
            sync_folder(folder)
        self._check_open()
        write_json(self.folder / "DONE", {"files": files})
        self.release()

    def fail(self, state: str, why: str, retryable: bool) -> None:
        """Write that the attempt failed, and release the lock.

        Args:
            state: `failed`, `diverged` or `refused`.
            why: One line for the user.
            retryable: Whether the same run may succeed when tried again.

        Raises:
            StoreError: the attempt is no longer the newest or was already closed, or the disk failed.
        """
        assert state in _FAILED_STATES, state
        self._check_open()
        write_json(self.folder / "FAILED", {"state": state, "why": why, "retryable": retryable})
        self.release()

    def release(self) -> None:
        """Give the run back without a result: it is pending again. Does nothing after `commit` or `fail`."""
        self._lock.release()

    def _check_open(self) -> None:
        # The second condition: somebody deleted the run's folder, so that another may hold a new lock file.
        if not self._lock.held or attempts_of(self.folder.parent)[-1:] != [str(self.folder)]:
            raise StoreError(
                f"{self.folder} is closed: it was committed, failed or released, or a newer attempt took its "
                "place. Its result is not used; run the same command again."
            )


def read_text(path: Path | str) -> str:
    """A UTF-8 file; OSError or ValueError if there is none. A third of the calls of `Path.read_text`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(descriptor, _CHUNK_BYTES)]
        while len(parts[-1]) == _CHUNK_BYTES:
            parts.append(os.read(descriptor, _CHUNK_BYTES))
    finally:
        os.close(descriptor)
    return b"".join(parts).decode()


def read_object(path: Path | str) -> dict[str, Any]:
    """The object in a JSON file; OSError or ValueError if there is none."""
    value = json.loads(read_text(path))
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__} in place of an object")
    return value


def attempt_number(folder: str) -> int:
    """The number in the name of a folder that `attempts_of` gave."""
    return int(folder.rpartition("-")[2])


def attempts_of(run_folder: Path | str) -> list[str]:
    """Attempt folders, oldest first."""
    try:
        names = os.listdir(run_folder)
    except OSError:
        return []
    return [f"{run_folder}/{name}" for name in sorted(filter(_ATTEMPT.fullmatch, names), key=attempt_number)]


def _entries_below(folder: str) -> tuple[list[str], list[str]]:
    """All plain files and all folders below a folder, each sorted; a link or another thing is an error."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                files.append(entry.path)
            else:
                raise StoreError(f"{entry.path} is not a plain file. A run's folder holds files only; remove it.")
    for below in list(folders):
        more_files, more_folders = _entries_below(below)
        files += more_files
        folders += more_folders
    return sorted(files), sorted(folders)


def _read_done(attempt: str) -> dict[str, dict[str, Any]]:
    """The files that DONE lists, name to size and hash; ValueError if it is damaged."""
    files = read_object(f"{attempt}/DONE").get("files")
    if not isinstance(files, dict):
        raise ValueError("it lists no files")
    for name, fact in files.items():
        if not isinstance(fact, dict) or fact.keys() != {"size", "sha256"}:
            raise ValueError(f"its entry {name!r} is not a size and a hash")
    return files


def done_problem(attempt: str) -> str:
    """Why DONE cannot be believed, found without reading the files; empty if nothing is wrong."""
    try:
        files = _read_done(attempt)
    except (OSError, ValueError) as error:
        return f"{attempt}/DONE is damaged: {error}."
    for name, fact in files.items():
        try:
            size = os.stat(f"{attempt}/{name}").st_size
        except OSError:
            return f"{attempt}/{name} is missing, but DONE lists it."
        if size != fact["size"]:
            return f"{attempt}/{name} has {size} bytes, but DONE says {fact['size']}."
    return ""


def verify_attempt(attempt: str) -> tuple[list[str], int]:
    """All problems of an attempt that has DONE, and how many files were hashed."""
    try:
        listed = _read_done(attempt)
        there = {path[len(attempt) + 1 :]: path for path in _entries_below(attempt)[0]}
    except (OSError, ValueError) as error:
        return [f"{attempt}/DONE is damaged: {error}."], 0
    except StoreError as error:
        return [str(error)], 0
    del there["DONE"]
    problems = [f"{attempt}/{name} is missing, but DONE lists it." for name in listed if name not in there]
    problems += [f"{attempt}/{name} is not listed in DONE." for name in there if name not in listed]
    for name, path in there.items():
        try:
            if name in listed and file_fact(path) != listed[name]:
                problems.append(f"{path} has other content than DONE says.")
        except StoreError as error:
            problems.append(str(error))
    return problems, len(there)


def state_of(attempt: str) -> tuple[str, str, bool]:
    """State, reason and whether to retry, as the last attempt of a run tells them."""
    is_taken = Lock.is_taken(Path(attempt).parent / "lock")  # before the files: what ends meanwhile has written them
    if os.path.exists(f"{attempt}/DONE"):
        problem = done_problem(attempt)
        return ("failed", problem, True) if problem else ("done", "", False)
    if os.path.exists(f"{attempt}/FAILED"):
        try:
            record = read_object(f"{attempt}/FAILED")
            state, why, retryable = record["state"], record["why"], record["retryable"]
            if state not in _FAILED_STATES:
                raise ValueError(f"unknown state {state!r}")
            return state, str(why), bool(retryable)
        except (OSError, ValueError, KeyError) as error:
            return "failed", f"{attempt}/FAILED is damaged: {error}.", True
    if is_taken:
        return "running", "", False
    return "pending", f"{os.path.basename(attempt)} was interrupted.", True
