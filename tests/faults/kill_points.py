"""Stop a stub study at every system call on its folder of runs, and see that the same command ends it.

    python tests/faults/kill_points.py --fault kill --cells 12 -o rows.jsonl
    python tests/faults/kill_points.py --fault full --cells 12 -o rows.jsonl
    python tests/faults/kill_points.py --fault recovery --points 300 -o rows.jsonl

Needs `strace`. One undisturbed study under `strace` says which system calls of the study's process and of its worker
touch the folder of runs. Then, for each of them, a new study is disturbed at that call (`kill`: SIGKILL in its place;
`full` and `broken`: the call fails with ENOSPC or EIO; `recovery`: killed at one call, and the next try at another),
and run again undisturbed. Asked for: the same table byte for byte, every run done once, nothing that was done touched,
no problem found by hashing all, no other step than the same command. One row a point; points that have a row are
skipped, so that the script goes on where it was stopped. Ends with 1 if anything differed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from multipress.store import Store

STUB = Path(__file__).parents[1] / "stub.py"
# What changes the folder; stopping at a call that only looks leaves what stopping at the next of these leaves.
CHANGING = ("openat", "mkdir", "rename", "unlink", "write", "fsync", "flock")
ERRORS = {"full": "error=ENOSPC", "broken": "error=EIO", "kill": "signal=KILL", "recovery": "signal=KILL"}
LINE = re.compile(r"(\d+)\s+(\w+)\((.*)")
LIMIT_SECONDS = 300


def study(folder: Path, cells: int, strace: list[str]) -> subprocess.CompletedProcess[str]:
    command = [*strace, sys.executable, str(STUB), str(folder), "--cells", str(cells)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)


def traced(output: Path, calls: str, *more: str) -> list[str]:
    return ["strace", "-f", "-y", "-qq", "-e", f"trace={calls}", *more, "-o", str(output)]


def find_points(work: Path, cells: int, every: bool) -> tuple[str, list[tuple[str, int]]]:
    """The table of an undisturbed study, and (system call, its number in its process) of all that touch the folder."""
    runs = work / "runs"
    done = study(runs, cells, traced(work / "trace", "%file,%desc"))
    assert done.returncode == 0, done.stderr
    counts: dict[tuple[str, str], int] = defaultdict(int)
    points = set()
    for line in (work / "trace").read_text().splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        process, call, rest = found.groups()
        counts[process, call] += 1
        looks = call == "openat" and "O_CREAT" not in rest
        if str(runs) in rest and (every or (call in CHANGING and not looks)):
            points.add((call, counts[process, call]))
    shutil.rmtree(runs)
    return done.stdout, sorted(points)


def facts(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Of each result, when it was written and what its DONE says."""
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*/*/DONE")}


def disturb(work: Path, cells: int, expected: str, fault: str, points: list[tuple[str, int]]) -> dict[str, object]:
    """Disturb a new study at these points, one after the other, then let it end; what was found."""
    runs = work / "runs"
    disturbed = 0
    for call, number in points:
        inject = ("-e", f"inject={call}:{ERRORS[fault]}:when={number}")
        done = study(runs, cells, traced(work / "trace", call, *inject))
        trace = (work / "trace").read_text()
        disturbed += done.returncode != 0 or "INJECTED" in trace or "killed by SIGKILL" in trace
    before = facts(runs)
    last = study(runs, cells, [])
    after = facts(runs)
    store = Store(runs)
    row = {
        "disturbed": disturbed,
        "ends": last.returncode == 0,
        "same_table": last.stdout == expected,
        "lost": sum(after.get(name) != fact for name, fact in before.items()),
        "twice": len(after) - len({name.split("/")[-3] for name in after}),
        "problems": sum(len(found.problems) for found in store.verify()),
        "done_before": len(before),
    }
    shutil.rmtree(runs)
    return row


def is_good(row: dict[str, object]) -> bool:
    return bool(row["ends"] and row["same_table"]) and not (row["lost"] or row["twice"] or row["problems"])


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
        work = Path(folder)
        expected, points = find_points(work, arguments.cells, arguments.every)
        chosen = [[point] for point in points]
        if arguments.fault == "recovery":
            draw = random.Random(0)
            chosen = [draw.sample(points, 2) for _ in range(arguments.points or 300)]
        elif arguments.points:
            chosen = random.Random(0).sample(chosen, min(arguments.points, len(chosen)))
        results = []
        for point in chosen:
            name = json.dumps([list(one) for one in point])
            row = seen.get(name)
            if row is None:
                row = {"fault": arguments.fault, "point": point}
                row |= disturb(work, arguments.cells, expected, arguments.fault, point)
                with arguments.output.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            results.append(row)
    bad = [row for row in results if not is_good(row)]
    print(
        f"{arguments.fault}: {len(results)} points of {len(points)} calls, {sum(r['disturbed'] > 0 for r in results)} "
        f"disturbed a study of {arguments.cells} cells; {sum(not r['same_table'] for r in results)} tables differ, "
        f"{sum(r['lost'] for r in results)} finished runs lost, {sum(r['twice'] for r in results)} run twice, "
        f"{sum(not r['ends'] for r in results)} needed more than the same command"
    )
    for row in bad[:10]:
        print(row)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
