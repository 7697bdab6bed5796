"""Progress of long work, on standard error: a bar on a terminal, a line every so often elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from multipress.plain_text import duration, plain
from multipress.records import Run

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Parts", "Rounds", "Runs", "Steps", "recipe_name", "stages_name"]

LINES = 10  # lines of a training where there is no terminal
SECONDS_A_LINE = 2.0  # between two lines of a study there
SECONDS_A_PART_LINE = 15.0  # between two lines of one part of a work
SHOWN = 4  # runs that are named while they run


class _Shown:
    """A bar on standard error while a terminal shows it, or None; lines go beside it."""

    _bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Show a line of text."""
        if self._bar is not None:
            self._bar.console.print(plain(text), markup=False, highlight=False)
        else:
            print(plain(text), file=sys.stderr, flush=True)


class Steps(_Shown):
    """Shows the steps of one training; call it with the steps done, all steps, and the loss."""

    def __init__(self) -> None:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("loss {task.fields[loss]}"), console=Console(stderr=True))
            self._task = self._bar.add_task("", total=None, loss="")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is KeyboardInterrupt:
            print("The same command goes on from the last checkpoint.", file=sys.stderr)

    def __call__(self, done: int, total: int, loss: float) -> None:
        """Show that `done` of `total` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, loss=f"{loss:.3f}")
        elif done == total or done % max(1, total // LINES) == 0:
            print(f"step {done} of {total}, loss {loss:.3f}", file=sys.stderr, flush=True)


class Parts(_Shown):
    """Shows work in parts, one after the other; call it with a part's name, what is done of it, and all of it."""

    def __init__(self) -> None:
        self._name = ""
        self._said = float("-inf")
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=None)

    def __call__(self, name: str, done: int = 0, total: int | None = None) -> None:
        """Show that `done` of `total` of a part are done; a name that was not the last begins another part."""
        is_new, self._name = name != self._name, name
        now = time.monotonic()
        if self._bar is not None:
            if is_new:
                self._bar.reset(self._task, total=total, description=_escape(plain(name)))
            self._bar.update(self._task, completed=done, total=total)
        elif is_new or now - self._said > SECONDS_A_PART_LINE:
            self.note(f"{name}, {done} of {total}" if done else name)
            self._said = now


class Runs(_Shown):
    """Shows the runs of a study: on a terminal a bar and what is running, elsewhere lines of those that ended."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._ended_here = 0
        self._failed = 0
        self._left = ""
        self._unsaid = 0
        self._said = float("-inf")
        self._running: dict[str, str] = {}
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=None, state="")

    def begin(self, run_id: str, spec: dict[str, Any]) -> None:
        """Show that a run has begun; `spec` is its description."""
        self._running[run_id] = _what(spec)
        self._show_state()

    def end(self, run: Run, ended: int, total: int, score: float | None) -> None:
        """Show that a run has ended; `ended` of `total` have."""
        self._running.pop(run.run_id, None)
        self._ended_here += 1
        self._failed += run.state != "done"
        left = self._left = duration((time.monotonic() - self._started) / self._ended_here * (total - ended))
        result = f"score {score:.4f}" if score is not None else plain(run.why)
        line = f"[{ended}/{total}] {run.state} {_what(run.spec)} {result}".rstrip()
        if self._bar is not None:
            self._bar.update(self._task, completed=ended, total=total)
            self._show_state()
            self.note(line)
            return
        now = time.monotonic()
        if run.state == "done" and ended < total and now - self._said < SECONDS_A_LINE:
            self._unsaid += 1
            return
        more = f", {self._unsaid} more before it" if self._unsaid else ""
        self.note(f"{line} ({left} left{more})")
        self._said, self._unsaid = now, 0

    def _show_state(self) -> None:
        if self._bar is not None:
            names = list(self._running.values())[:SHOWN] + (["..."] if len(self._running) > SHOWN else [])
            parts = [f"{self._left} left"] if self._left else []
            parts += [f"{self._failed} failed"] if self._failed else []
            parts += [f"{len(self._running)} running: {'; '.join(names)}"] if names else []
            self._bar.update(self._task, state=_escape(", ".join(parts)))


class Rounds(_Shown):
    """Shows the rounds of a search: on a terminal the time so far and what is tried now, elsewhere a line a round."""

    def __init__(self) -> None:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=None)

    def begin(self, what: str) -> None:
        """Show what is tried now."""
        if self._bar is not None:
            self._bar.update(self._task, description=_escape(plain(what)))
        else:
            self.note(what)


def _escape(text: str) -> str:
    """A text that rich shows as it is."""
    from rich.markup import escape

    return escape(text)


def _what(spec: dict[str, Any]) -> str:
    """A run in few words: kind, model, task, methods, seed."""
    if spec["kind"] == "recover":
        return plain(f"recover {spec['model']}")
    task = spec["data"]["task"] or Path(spec["data"]["train"]).name
    return plain(f"{spec['kind']} {spec['model']} {task} {stages_name(spec)} seed {spec['seed']}")


def recipe_name(methods: list[dict[str, object]]) -> str:
    """A recipe in few letters: method names joined by `+`, or `dense`."""
    return "+".join(str(method["name"]) for method in methods) or "dense"


def stages_name(spec: dict[str, Any]) -> str:
    """The recipes of a run's stages, one after another; of a round of pruning, what it prunes to and how."""
    stages = [*spec.get("before", []), spec.get("methods", [])]
    if spec.get("mask_from"):
        return _round_name(spec, stages[-1][0]["settings"], len(stages))
    if spec.get("rewound"):
        return "the beginning of dense"
    if spec.get("shared") and spec.get("part", [0])[0] == 0:
        return "the shared beginning"
    return " > ".join(recipe_name(stage) for stage in stages)


def _round_name(spec: dict[str, Any], settings: dict[str, Any], number: int) -> str:
    """A round of pruning in few words; `number` is its own only where the rate is rewound."""
    weights = spec["mask_from"] != spec.get("start", "")
    parts = [f"tickets pruned to {settings['sparsity']:.3g}"]
    if not settings["sparsity"]:
        parts = ["tickets", "nothing pruned", *([] if weights else [f"round {number}"])]
    parts += ["at random"] if settings.get("importance") == "random" else []
    return ", ".join(parts + (["weights rewound"] if weights else []))
