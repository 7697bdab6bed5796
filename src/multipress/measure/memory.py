"""How much memory it takes to open an artifact and predict: the peak of a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from multipress.artifact import Artifact
from multipress.errors import RunError
from multipress.records import Measurement
from multipress.reproducibility import computer

__all__ = ["measure_memory", "peak_bytes"]

_CHILD = """
import json, sys
import multipress.measure.memory as memory
before = memory.peak_bytes()
from multipress.runtime import open_predictor
folder, precision, threads, num_texts = sys.argv[1:]
open_predictor(folder, int(threads), precision=precision)(*[[" ".join(["word"] * 1000)]] * int(num_texts))
print(json.dumps([before, memory.peak_bytes()]))
"""
_TIME_LIMIT_SECONDS = 600


def measure_memory(artifact: Artifact, precision: str = "fp32", threads: int = 1) -> list[Measurement]:
    """Peak resident memory of a new process that opens the artifact and predicts one row of full length.

    Args:
        artifact: The artifact.
        precision: `fp32` or `int8`; see `Predictor`.
        threads: Threads to compute with.

    Returns:
        `peak_memory_bytes` (all of it) and `peak_memory_added_bytes` (above the interpreter with numpy).

    Raises:
        RunError: the process failed; the message has the last line that it wrote.
    """
    num_texts = 2 if artifact.facts["task"].get("is_pair") else 1
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(artifact.folder), precision, str(threads), str(num_texts)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=_TIME_LIMIT_SECONDS,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was written"])[-1]
        raise RunError(f"Measuring memory failed with exit code {done.returncode}: {last}")
    before, peak = json.loads(done.stdout)
    run_id = str(artifact.facts.get("run_id", ""))
    context = {"rows": 1, "threads": threads, "precision": precision, "computer": computer()}
    return [
        Measurement(run_id, "peak_memory_bytes", peak, "bytes", context),
        Measurement(run_id, "peak_memory_added_bytes", peak - before, "bytes", context),
    ]


def peak_bytes() -> int:
    """The most resident memory that this process has had."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    # Only where the system has no /proc: on Linux this number also holds the peak of the parent.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
