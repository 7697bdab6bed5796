"""A real grid, killed with SIGKILL at random moments, ends with the weights of an undisturbed one.

    python tests/faults/training_kills.py --kills 20 --model minilm-l3

All eight subsets on the banking77 sample that the package ships, by the command line, two workers, trainings of several
hundred steps, so that they are saved on the way. First an undisturbed run; then the same study is started and its
process killed after a random time, again and again, until so many kills have hit it; then it is let end. Every
artifact's weights must be the same, byte for byte, and some trainings must have gone on from a checkpoint, which their
logs tell.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from multipress.store import Store

STUDY = """
[study]
name = "kills"
[models]
names = ["{model}"]
[tasks]
names = ["banking77"]
max_train_rows = {rows}
max_eval_rows = 200
[training]
epochs = 2
learning_rates = [1e-3]
batch_size = 4
max_length = 32
[methods]
subsets = "all"
[methods.pruning]
sparsity = [0.6]
"""


def weights(runs: Path) -> dict[str, str]:
    """By run, the hash of its stored weights."""
    store, found = Store(runs), {}
    for run in store.runs():
        done = store.done(run.run_id)
        assert done is not None, (run.run_id, run.state, run.why)
        path = done / "artifact" / "model.safetensors"
        if path.is_file():
            found[run.run_id] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def resumptions(store: Store, run_id: str) -> int:
    """How often a training went on from a checkpoint, as its log says."""
    done = store.done(run_id)
    assert done is not None
    return len(json.loads((done / "log.jsonl").read_text().splitlines()[-1]).get("resumed_after", []))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--model", default="minilm-l3")
    parser.add_argument("--rows", type=int, default=800)
    arguments = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "study.toml"
        spec.write_text(STUDY.format(model=arguments.model, rows=arguments.rows))

        def command(runs: str) -> list[str]:
            return [sys.executable, "-m", "multipress", "study", "run", str(spec), "--runs", f"{folder}/{runs}"]

        began = time.monotonic()
        subprocess.run(command("whole"), check=True, capture_output=True)
        seconds = time.monotonic() - began
        kills = tries = 0
        while kills < arguments.kills:
            process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(draw.uniform(5, max(10, 3 * seconds / arguments.kills)))
                break  # it has ended: there is nothing left to kill
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
            tries += 1
        subprocess.run(command("killed"), check=True, capture_output=True)
        whole, after = weights(Path(folder) / "whole"), weights(Path(folder) / "killed")
        store = Store(Path(folder) / "killed")
        attempts = sum(run.attempts for run in store.runs())
        resumed = sum(resumptions(store, run_id) for run_id in after)
    differ = sum(after.get(run_id) != digest for run_id, digest in whole.items()) + len(after.keys() - whole.keys())
    print(
        f"{kills} kills of a grid of {len(whole)} trainings ({seconds:.0f} s undisturbed), {attempts} attempts, "
        f"{resumed} gone on from a checkpoint: "
        f"{differ} of {len(whole)} weights differ"
    )
    return 1 if differ or kills < arguments.kills or not resumed else 0


if __name__ == "__main__":
    sys.exit(main())
