"""Progress of long work, on standard error: a bar on a terminal, a line every so often elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType

from multipress.plain_text import plain
from multipress.records import Run

__all__ = ["Runs", "Steps", "recipe_name"]

LINES = 10  # lines of a training where there is no terminal


class Steps:
    """Shows the steps of one training; call it with the steps done, all steps, and the loss."""

    def __init__(self) -> None:
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("loss {task.fields[loss]}"), console=Console(stderr=True))
            self._task = self._bar.add_task("", total=None, loss="")

    def __enter__(self) -> Steps:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is KeyboardInterrupt:
            print("The same command goes on from the last checkpoint.", file=sys.stderr)

    def note(self, text: str) -> None:
        """Show a line of text."""
        if self._bar is not None:
            self._bar.console.print(plain(text), markup=False)
        else:
            print(plain(text), file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int, loss: float) -> None:
        """Show that `done` of `total` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, loss=f"{loss:.3f}")
        elif done == total or done % max(1, total // LINES) == 0:
            print(f"step {done} of {total}, loss {loss:.3f}", file=sys.stderr, flush=True)


class Runs:
    """Shows the runs of a study as they end: a line a run, with the time left."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._ended_here = 0

    def __call__(self, run: Run, ended: int, total: int, score: float | None) -> None:
        """Show a run that has ended; `ended` of `total` have."""
        self._ended_here += 1
        left = (time.monotonic() - self._started) / self._ended_here * (total - ended)
        spec = run.spec
        methods = recipe_name(spec.get("methods", []))
        result = f"score {score:.4f}" if score is not None else (run.why or "")
        task = spec["data"]["task"] or Path(spec["data"]["train"]).name
        what = f"{spec['kind']} {spec['model']} {task} {methods} seed {spec['seed']} {result}".rstrip()
        print(f"[{ended}/{total}] {run.state} {plain(what)} ({_minutes(left)} left)", file=sys.stderr, flush=True)


def recipe_name(methods: list[dict[str, object]]) -> str:
    """A recipe in few letters: method names joined by `+`, or `dense`."""
    return "+".join(str(method["name"]) for method in methods) or "dense"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
