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

    def __call__(self, done: int, total: int, loss: float) -> None:
        """Note that `done` of `total` steps are done."""
        if done % EVERY_STEPS == 0 or done == total:
            now = time.perf_counter()
            line = {"step": done, "loss": loss, "seconds": round(now - self._since, 3)}
            self._since = now
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self._on_step is not None:
            self._on_step(done, total, loss)

    def text(self) -> str:
        """The log: one line a step noted, the last word on each, and last the seconds of all together."""
        lines: dict[int, dict[str, Any]] = {}
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # cut off by a crash; the step was done again
                continue
            lines[line["step"]] = line
        ordered = [lines[step] for step in sorted(lines)]
        seconds = sum(line["seconds"] for line in ordered)
        return "".join(json.dumps(line) + "\n" for line in [*ordered, {"training_seconds": round(seconds, 1)}])
