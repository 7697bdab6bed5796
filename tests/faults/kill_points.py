"""Stop a stub study at every system call on its folder of runs, and see that the same command ends it.

    python tests/faults/kill_points.py --fault kill --cells 12 -o rows.jsonl
    python tests/faults/kill_points.py --fault full --cells 12 -o rows.jsonl
    python tests/faults/kill_points.py --fault recovery --points 300 -o rows.jsonl

Needs `strace`. Undisturbed studies, with the study's own process under `strace` and then its worker, say which system
calls of each touch the folder of runs. Then, for each of them, a new study is disturbed at that call of that process
(`kill`: SIGKILL in its place; `full` and `broken`: the call fails with ENOSPC or EIO; `recovery`: killed at one call,
and the next try at another), and run again undisturbed. Asked for: the same table byte for byte, every run done once,
nothing that was done touched, no problem found by hashing all, no other step than the same command. One row a point;
points that have a row are skipped, so that the script goes on where it was stopped. Ends with 1 if anything differed,
or if a point did not disturb its study.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from multipress.store import Store

STUB = Path(__file__).parents[1] / "stub.py"
# What changes the folder; stopping at a call that only looks leaves what stopping at the next of these leaves.
CHANGING = ("openat", "mkdir", "rename", "unlink", "write", "fsync", "flock")
ERRORS = {"full": "error=ENOSPC", "broken": "error=EIO", "kill": "signal=KILL", "recovery": "signal=KILL"}
LIMIT_SECONDS = 300


Point = tuple[str, str, int]  # the process, the system call, its number in that process


class Watched:
    """Runs the stub study with one process under `strace`: its own (`head`), or its first worker (`worker`)."""

    def __init__(self, work: Path, cells: int) -> None:
        self.runs, self.trace = work / "runs", work / "trace"
        self._cells = cells
        self._first = work / "first"
        self._wrapper = work / "python"

    def run(self, process: str = "", *options: str) -> subprocess.CompletedProcess[str]:
        self.trace.write_text("")
        shutil.rmtree(self._first, ignore_errors=True)
        strace = ["strace", "-y", "-qq", *options, "-o", str(self.trace)]
        command = [sys.executable, str(STUB), str(self.runs), "--cells", str(self._cells)]
        environment = dict(os.environ)
        if process == "head":
            command = [*strace, *command]
        elif process == "worker":
            # With -D the tracer is a grandchild, and the worker stays its study's child. Only the first one is traced.
            traced = shlex.join([strace[0], "-D", *strace[1:], sys.executable])
            plain = shlex.quote(sys.executable)
            self._wrapper.write_text(
                f'#!/bin/sh\ncase "$*" in *spawn_main*)\n'
                f'if mkdir {shlex.quote(str(self._first))} 2>/dev/null; then exec {traced} "$@"; fi;; esac\n'
                f'exec {plain} "$@"\n'
            )
            self._wrapper.chmod(0o755)
            environment["STUB_PYTHON"] = str(self._wrapper)
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS, env=environment
        )


def find_points(watched: Watched, every: bool) -> tuple[str, list[Point]]:
    """The table of an undisturbed study, and all system calls of its two processes that touch its folder."""
    points = set()
    watched.run()  # what Python compiles once is no part of it
    shutil.rmtree(watched.runs)
    for process in ("head", "worker"):
        done = watched.run(process, "-e", "trace=%file,%desc")
        assert done.returncode == 0, done.stderr
        counts: dict[str, int] = defaultdict(int)
        for line in watched.trace.read_text().splitlines():
            call, _, rest = line.partition("(")
            counts[call] += 1
            looks = call == "openat" and "O_CREAT" not in rest
            if str(watched.runs) in rest and (every or (call in CHANGING and not looks)):
                points.add((process, call, counts[call]))
        shutil.rmtree(watched.runs)
    return done.stdout, sorted(points)


def facts(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Of each result, when it was written and what its DONE says."""
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*/*/DONE")}


def disturb(watched: Watched, expected: str, fault: str, points: list[Point]) -> dict[str, object]:
    """Disturb a new study at these points, one after the other, then let it end; what was found."""
    disturbed = lost = 0
    known: dict[str, tuple[int, bytes]] = {}
    for process, call, number in points:
        watched.run(process, "-e", f"trace={call}", "-e", f"inject={call}:{ERRORS[fault]}:when={number}")
        trace = watched.trace.read_text()
        disturbed += "INJECTED" in trace or "killed by SIGKILL" in trace
        now = facts(watched.runs)
        lost += sum(now.get(name) != fact for name, fact in known.items())
        known |= now
    last = watched.run()
    after = facts(watched.runs)
    row = {
        "disturbed": disturbed,
        "ends": last.returncode == 0,
        "same_table": last.stdout == expected,
        "lost": lost + sum(after.get(name) != fact for name, fact in known.items()),
        "twice": len(after) - len({name.split("/")[-3] for name in after}),
        "problems": sum(len(found.problems) for found in Store(watched.runs).verify()),
        "done_before": len(known),
    }
    shutil.rmtree(watched.runs)
    return row


def is_good(row: dict[str, Any]) -> bool:
    wrong = row["lost"] or row["twice"] or row["problems"]
    return bool(was_reached(row) and row["ends"] and row["same_table"]) and not wrong


def was_reached(row: dict[str, Any]) -> bool:
    """Whether the study was disturbed at every point; a second one may lie beyond what was left to do."""
    return bool(row["disturbed"] == len(row["point"]))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", choices=sorted(ERRORS), default="kill")
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--every", action="store_true", help="calls that only look, too")
    parser.add_argument("--points", type=int, default=0, help="a random sample of so many; 0: all")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    seen = {}
    if arguments.output.exists():
        rows = [json.loads(line) for line in arguments.output.read_text().splitlines()]
        seen = {json.dumps(row["point"]): row for row in rows if row["fault"] == arguments.fault}
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(Path(folder), arguments.cells)
        expected, points = find_points(watched, arguments.every)
        chosen = [[point] for point in points]
        if arguments.fault == "recovery":
            draw = random.Random(0)
            wanted = arguments.points or 300
            chosen = [draw.sample(points, 2) for _ in range(4 * wanted)]
        elif arguments.points:
            chosen = random.Random(0).sample(chosen, min(arguments.points, len(chosen)))
        else:
            wanted = len(chosen)
        results: list[dict[str, Any]] = []
        missed = 0
        for point in chosen:
            if len(results) == wanted:
                break
            name = json.dumps([list(one) for one in point])
            row = seen.get(name)
            if row is None:
                row = {"fault": arguments.fault, "point": point}
                row |= disturb(watched, expected, arguments.fault, point)
                with arguments.output.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            if arguments.fault == "recovery" and not was_reached(row):
                missed += 1
                continue
            results.append(row)
    return tell(arguments.fault, results, f"{len(points)} calls ({missed} pairs not reached), {arguments.cells} cells")


def tell(fault: str, results: list[dict[str, Any]], of: str) -> int:
    """Print the counts and what was wrong; the exit code."""
    bad = [row for row in results if not is_good(row)]
    print(
        f"{fault}: {len(results)} points out of {of}; {sum(map(was_reached, results))} disturbed a study; "
        f"{sum(not r['same_table'] for r in results)} tables differ, {sum(r['lost'] for r in results)} finished runs "
        f"lost, {sum(r['twice'] for r in results)} run twice, {sum(not r['ends'] for r in results)} needed more than "
        "the same command"
    )
    for row in bad[:10]:
        print(row)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
