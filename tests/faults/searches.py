"""A search stopped with Ctrl-C at random moments says so, leaves what it says, and goes on.

    python tests/faults/searches.py --stops 20 --model minilm-l3

`multipress compress` by the command line, on the banking77 sample that the package ships. Each command is interrupted,
as a terminal does it, the whole process group at once, after a random time of at least one second (before that Python
itself starts); the same command is given again. After each stop: it ended within five seconds with exit code 130 and
one line, no process of it is left, the model at the place is there or not as the line says, keeps to the budget and
predicts, and no finished run is gone or was done twice. A search that ends before its stop is followed by one in
another folder. The last is let end.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import multipress
from multipress.spec import DataSpec
from multipress.tasks import load_task

MAX_MB = 3.0
PATIENCE = 5  # seconds


def write_rows(folder: Path, rows: int) -> list[str]:
    data = load_task(DataSpec(task="banking77", max_train_rows=rows, max_eval_rows=400))
    for name, split in (("train", data.train), ("dev", data.dev)):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            lines = ((text, data.task.labels[label]) for text, label in zip(split.texts, split.labels, strict=True))
            csv.writer(file).writerows([("text", "label"), *lines])
    return ["--train", str(folder / "train.csv"), "--dev", str(folder / "dev.csv")]


def left_of(group: int) -> str:
    """The processes of a group that run or wait, after a second at most; those that ended are init's to bury."""
    for _ in range(20):
        command = ["pgrep", "-a", "-g", str(group), "-r", "R,S,D,T"]
        left = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if not left:
            break
        time.sleep(0.05)
    return left


def faults_after(stop: subprocess.Popen[str], seconds: float, said: str, out: Path, before: set[Path]) -> list[str]:
    """What is not as promised after an interrupt that took `seconds`; empty if all is."""
    found = []
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if stop.returncode != 130 or "Traceback" in said or not last.startswith("multipress: Stopped."):
        found.append(f"exit code {stop.returncode}: {said[-300:]!r}")
    if seconds > PATIENCE:
        found.append(f"it took {seconds:.1f} s")
    if left := left_of(stop.pid):
        found.append(f"a process is left: {left[:300]}")
    if (str(out) in last) != out.exists():
        found.append(f"{out} is {'' if out.exists() else 'not '}there, and it said {last!r}")
    if out.exists():
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        label = multipress.open(out)(["My card was lost."])[0].label
        if size > 1e6 * MAX_MB or not label:
            found.append(f"the best so far has {size} bytes and says {label!r}")
    done = finished(out)
    if not before <= done or len({file.parents[1] for file in done}) < len(done):
        found.append("a finished run is gone, or was done twice")
    others = [file.name for file in out.parent.iterdir() if file.name not in (out.name, f"{out.name}.search")]
    return [*found, *([f"left over: {others}"] if others else [])]


def finished(out: Path) -> set[Path]:
    return set((out.parent / f"{out.name}.search" / "runs").glob("*/*/DONE"))


def start(model: str, rows: list[str], out: Path) -> subprocess.Popen[str]:
    out.parent.mkdir(exist_ok=True)
    limits = ["--max-mb", str(MAX_MB), "--time-limit", "2", "--max-length", "32", "-o", str(out)]
    command = [sys.executable, "-m", "multipress", "compress", model, *rows, *limits]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def stop_after(seconds: float | None, search: subprocess.Popen[str], out: Path) -> list[str] | None:
    """Interrupt a search after so many seconds: what is not as promised then; None if it ended before that."""
    before = finished(out)
    try:
        said = search.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        os.killpg(search.pid, signal.SIGINT)
        began = time.monotonic()
        said = search.communicate()[1]
        found = faults_after(search, time.monotonic() - began, said, out, before)
        print(f"after {seconds:.1f} s: {said.strip().splitlines()[-1:]} {found}", flush=True)
        return found
    if search.returncode or not out.exists():
        raise SystemExit(f"a search that nothing stopped ended with {search.returncode}: {said[-300:]!r}")
    return None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--model", default="minilm-l3")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--seconds", type=float, default=50, help="a stop comes at most so long after the start")
    arguments = parser.parse_args()
    # Where this runs in the background, the interrupt is ignored, and a search would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    draw = random.Random(0)
    stops = with_model = 0
    searches, faults = 1, []
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), arguments.rows)
        while True:
            out = Path(folder) / str(searches) / "small"
            wait = draw.uniform(1, arguments.seconds) if stops < arguments.stops else None
            found = stop_after(wait, start(arguments.model, rows, out), out)
            if found is not None:
                stops, with_model, faults = stops + 1, with_model + out.exists(), [*faults, *found]
            elif stops == arguments.stops:
                break
            else:
                searches += 1
    print(f"{stops} stops of {searches} searches, a model there after {with_model}: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
