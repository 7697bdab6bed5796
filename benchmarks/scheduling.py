r"""What the engine of studies costs beside the work: cells that only sleep, against a plain pool of processes.

    python benchmarks/scheduling.py --cells 10000 --folder /dev/shm -o results/scheduling.json

Cells of 0.1 s without torch (`tests/stub.py`), by one worker and by several, then the same sleeps in
`multiprocessing.Pool.imap_unordered`, which keeps nothing and survives nothing. The limit of both is cells x 0.1 s /
workers. *Overhead* is the time of a worker above that, per cell: claiming, writing, hashing, fsync and committing
included. A cell asks for a dozen fsyncs; on a folder in memory they cost nothing, on a disk what the disk takes for
each, so the time of one is printed for the folder used. Then how long listing all runs and hashing files take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from multipress.reproducibility import computer
from multipress.store import Store

SECONDS = 0.1
VERIFY_MEGABYTES = 256


def our_seconds(folder: Path, cells: int, workers: int) -> tuple[float, float]:
    """Wall seconds of a whole study in a process of its own, and that process's largest memory in MB."""
    shutil.rmtree(folder, ignore_errors=True)
    code = (
        "import resource, stub, sys; from contextlib import closing; from pathlib import Path\n"
        "from multipress.engines.job import Places; from multipress.engines.local import LocalEngine\n"
        "from multipress.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "with closing(LocalEngine(store, Places(), int(sys.argv[3]), executor=stub.EXECUTOR)) as engine:\n"
        "    stub.run(store, stub.make_jobs(int(sys.argv[2]) - 1), engine)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    environment = os.environ | {"STUB_SECONDS": str(SECONDS)}
    command = [sys.executable, "-c", code, str(folder), str(cells), str(workers)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, float(done.stdout)


def pool_seconds(cells: int, workers: int) -> float:
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        assert sum(1 for _ in pool.imap_unordered(time.sleep, [SECONDS] * cells)) == cells
    return time.perf_counter() - began


def fsync_seconds(folder: Path) -> float:
    """The best of 20 for a small file."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = []
    for _ in range(20):
        with (folder / "probe").open("wb") as file:
            file.write(b"x" * 500)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - began)
    (folder / "probe").unlink()
    return min(seconds)


def verify_rate(folder: Path) -> float:
    """MB a second of `Store.verify` on one run with a large file, which was just written."""
    shutil.rmtree(folder, ignore_errors=True)
    store = Store(folder)
    store.register("0" * 12, {"model": "stub", "data": {"task": "t"}, "methods": []})
    attempt = store.claim("0" * 12)
    assert attempt is not None
    (attempt.folder / "large").write_bytes(os.urandom(1 << 20) * VERIFY_MEGABYTES)
    attempt.commit()
    began = time.perf_counter()
    (found,) = store.verify()
    seconds = time.perf_counter() - began
    assert not found.problems
    return VERIFY_MEGABYTES * 1.048576 / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work, in a new folder")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    arguments.folder = Path(tempfile.mkdtemp(prefix="multipress-scheduling-", dir=arguments.folder)) / "runs"
    rows = []
    for workers in arguments.workers:
        limit = arguments.cells * SECONDS / workers
        ours, megabytes = our_seconds(arguments.folder, arguments.cells, workers)
        pool = pool_seconds(arguments.cells, workers)
        overheads = [1000 * (seconds - limit) * workers / arguments.cells for seconds in (ours, pool)]
        rows.append({"workers": workers, "cells": arguments.cells, "limit_s": limit, "ours_s": ours, "pool_s": pool})
        rows[-1] |= {"overhead_ms": overheads[0], "pool_overhead_ms": overheads[1], "head_mb": megabytes}
        print(
            f"{workers} workers, {arguments.cells} cells: {ours:.1f} s ours, {pool:.1f} s the pool, limit {limit:.1f}; "
            f"{overheads[0]:.2f} and {overheads[1]:.2f} ms above it a cell; the study's process: {megabytes:.0f} MB"
        )
    began = time.perf_counter()
    runs = Store(arguments.folder).runs()
    listed = time.perf_counter() - began
    began = time.perf_counter()
    cells = Store(arguments.folder).cells()
    tabled = time.perf_counter() - began
    rate, fsync = verify_rate(arguments.folder), fsync_seconds(arguments.folder)
    print(f"{len(runs)} runs listed in {listed:.2f} s, {len(cells)} cells as a table in {tabled:.2f} s")
    print(f"verify: {rate:.0f} MB/s; one fsync: {1000 * fsync:.2f} ms in {arguments.folder}")
    shutil.rmtree(arguments.folder.parent)
    if arguments.output:
        facts = {"list_s": listed, "table_s": tabled, "verify_mb_s": rate, "fsync_ms": 1000 * fsync}
        facts["benchmark_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        document = {"command": " ".join(sys.argv), "computer": computer(), "rows": rows, **facts}
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
