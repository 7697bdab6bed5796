"""The training log: a line every so many steps, whole after an interruption too."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["TrainingLog"]

EVERY_STEPS = 10


class TrainingLog:
    """Keeps step, loss and seconds in a file while a training runs; call it after each step.

    Args:
        path: The file; lines of an interrupted training are there already and are kept.
        on_step: Called after each step as well.
    """

    def __init__(self, path: Path, on_step: Callable[[int, int, float], None] | None = None) -> None:
        self.path = path
        self._on_step = on_step
        self._since = time.perf_counter()
        self._began = False
        if path.exists():
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")  # a line that a crash cut off ends here, and takes no other along

    def __call__(self, done: int, total: int, loss: float) -> None:
        """Note that `done` of `total` steps are done; the first time, where the training goes on from."""
        if not self._began:
            self._began = True
            if done > 1:
                self._write({"resumed_after": done - 1})
        if done % EVERY_STEPS == 0 or done == total:
            now = time.perf_counter()
            line = {"step": done, "loss": loss, "seconds": round(now - self._since, 3)}
            self._since = now
            self._write(line)
        if self._on_step is not None:
            self._on_step(done, total, loss)

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def text(self) -> str:
        """The log: one line a step noted, the last word on each; last the seconds of all, and where it was resumed."""
        lines: dict[int, dict[str, Any]] = {}
        resumed: list[int] = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # cut off by a crash; the step was done again
                continue
            if "resumed_after" in line:
                resumed.append(line["resumed_after"])
            else:
                lines[line["step"]] = line
        ordered = [lines[step] for step in sorted(lines)]
        total: dict[str, Any] = {"training_seconds": round(sum(line["seconds"] for line in ordered), 1)}
        total |= {"resumed_after": resumed} if resumed else {}
        return "".join(json.dumps(line) + "\n" for line in [*ordered, total])
