"""Where the winner lies: always a whole model; after a kill between two renames, from the next start on."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from multipress.artifact import open_artifact
from multipress.budget.memo import key_of, read_values
from multipress.durable import copy_files, is_free, move_folder, write_json, write_text
from multipress.errors import ArtifactError

__all__ = ["Place", "uninterrupted"]

_CARD = """---
library_name: multipress
tags: [multipress, compressed]
---

# The best so far of a search that has not ended

{text}. It was chosen by the rows that it would be scored on, so that no score is given here. The same command goes
on and writes the model card in the end; `multipress evaluate FOLDER --data FILE` scores it on other rows.
"""


class Place:
    """The folder of the winner.

    A new winner is complete beside it before it takes the old one's place. Between the two renames Ctrl-C waits; after
    a kill there, `recover` puts the model back.

    Args:
        out: The folder.
        folder: Of the search, on the same file system.
    """

    def __init__(self, out: Path, folder: Path) -> None:
        self.out = out
        self._made, self._replaced = folder / "next", folder / "replaced"
        self._winners = folder / "winners.json"  # what each winner was chosen for, by its run

    def recover(self) -> None:
        """Put a model back that a kill left without its name."""
        if is_free(self.out) and _run_of(self._replaced):
            move_folder(self._replaced, self.out)
        shutil.rmtree(self._replaced, ignore_errors=True)

    def run_id(self) -> str:
        """The run whose artifact lies here; empty where none does."""
        return _run_of(self.out)

    def was_chosen_for(self, question: Sequence[Any]) -> bool:
        """Whether what lies here was put here as the best answer to a question so far.

        Raises:
            StoreError: the record of the winners is damaged.
        """
        return read_values(self._winners).get(self.run_id()) == key_of(question)

    def put(self, artifact: Path, run_id: str, question: Sequence[Any], text: str) -> None:
        """Put an artifact here, with a card that gives no score yet.

        Args:
            artifact: Its folder.
            run_id: Its run; where that one's artifact lies here already, nothing is done.
            question: What it is the best answer to so far, as plain JSON values.
            text: The recipe in words.
        """
        winners = read_values(self._winners)
        write_json(self._winners, winners | {run_id: key_of(question)})
        if self.run_id() == run_id:
            return
        for place in (self._replaced, self._made):
            shutil.rmtree(place, ignore_errors=True)
        copy_files(artifact, self._made)
        write_text(self._made / "README.md", _CARD.format(text=text[:1].upper() + text[1:]))
        with uninterrupted():
            if not is_free(self.out):
                move_folder(self.out, self._replaced)
            move_folder(self._made, self.out)
        shutil.rmtree(self._replaced, ignore_errors=True)


def _run_of(folder: Path) -> str:
    if is_free(folder):
        return ""
    try:
        return str(open_artifact(folder).facts.get("run_id", ""))
    except ArtifactError:
        return ""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of this block. In another thread than the main one it never comes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)
        if came:
            signal.raise_signal(signal.SIGINT)
