"""The first prediction of a new process: ours against transformers' pipeline, and against the libraries' own start.

    python benchmarks/cold_start.py DENSE OURS -o results/cold-start.json

DENSE is an artifact of the dense model, of which the pipeline loads the dense twin; OURS is what a user ships. Each
turn starts one process of each kind; wall and processor seconds are medians, with the lowest beside them, because other
programs only make them longer. Python finds all modules compiled, as after any first start. The last rows are the least
that any such program takes: Python with numpy, ONNX Runtime and tokenizers imported, and Python alone. Goals: 0.6 s
wall with decoded weights kept, 1.5 s with nothing kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from multipress.artifact import open_artifact
from multipress.export import Export, export_artifact
from multipress.export.write import Rows
from multipress.reproducibility import computer, library_versions

_COUNT = "; import sys; print(len(sys.modules))"
PIPELINE = (
    "import sys; from transformers import pipeline; "
    "print(pipeline('text-classification', model=sys.argv[1])(['a great film']))" + _COUNT
)
OURS = (
    "import sys; from multipress.cli.main import main; "
    "assert not main(['predict', sys.argv[1], 'a great film', *sys.argv[2:]])" + _COUNT
)


def surroundings(bytecode: Path) -> dict[str, str]:
    """Of the processes: as this one's, but that Python keeps what it compiled, here, whatever it was told."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(bytecode), "OMP_NUM_THREADS": "1"}


def one(code: str, arguments: list[str], environment: dict[str, str]) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and modules of one new process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, spent, int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense", type=Path)
    parser.add_argument("ours", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float, int]]] = {}
    with tempfile.TemporaryDirectory() as beside:
        twin, cache = str(Path(beside) / "twin"), str(Path(beside) / "cache")
        rows = Rows("one row", ["a great film"])
        export_artifact(open_artifact(arguments.dense), Export("safetensors", "fp32"), Path(twin), rows)
        mine = str(arguments.ours)
        kinds = {
            "transformers pipeline": (PIPELINE, [twin], ""),
            "ours, nothing kept": (OURS, [mine], ""),
            "ours, decoded weights kept": (OURS, [mine], cache),
            "ours, int8, decoded weights kept": (OURS, [mine, "--precision", "int8"], cache),
            "imports alone": (f"import numpy, onnxruntime, tokenizers{_COUNT}", [], ""),
            "Python alone": (f"pass{_COUNT}", [], ""),
        }
        around = surroundings(Path(beside) / "bytecode")
        for turn in range(arguments.repeats + 1):  # the first one fills caches
            for name, (code, given, kept) in kinds.items():
                row = one(code, given, {**around, "MULTIPRESS_CACHE": kept})
                if turn:
                    found.setdefault(name, []).append(row)
    table = {
        name: {
            "wall_s": statistics.median(row[0] for row in rows),
            "least_wall_s": min(row[0] for row in rows),
            "cpu_s": statistics.median(row[1] for row in rows),
            "least_cpu_s": min(row[1] for row in rows),
            "modules": rows[0][2],
        }
        for name, rows in found.items()
    }
    print("| | wall, s | least | processor, s | least | modules |\n|---|---|---|---|---|---|")
    for name, row in table.items():
        print(
            f"| {name} | {row['wall_s']:.2f} | {row['least_wall_s']:.2f} | {row['cpu_s']:.2f} "
            f"| {row['least_cpu_s']:.2f} | {row['modules']} |"
        )
    if arguments.out:
        versions = library_versions("torch", "transformers", "onnxruntime", "tokenizers", "numpy", "multipress")
        head = {"repeats": arguments.repeats, "computer": computer(), "load": os.getloadavg()[0], "versions": versions}
        arguments.out.write_text(json.dumps({**head, "cold_start": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
