"""Many runners on one folder: nothing is run twice, and all see the same table.

    python tests/faults/runners.py --rounds 50 --cells 100

Each round starts 2 to 8 runners of one stub study at the same time, one of them killed in the middle.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from multipress.store import Store

STUB = Path(__file__).parents[1] / "stub.py"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--cells", type=int, default=100)
    arguments = parser.parse_args()
    draw = random.Random(0)
    claims = twice = different = killed = 0
    with tempfile.TemporaryDirectory() as folder:
        alone = [sys.executable, str(STUB), str(Path(folder) / "runs"), "--cells", str(arguments.cells)]
        expected = subprocess.run(alone, capture_output=True, text=True, check=True).stdout
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            runs = Path(folder) / "runs"
            command = [sys.executable, str(STUB), str(runs), "--cells", str(arguments.cells)]
            processes = [
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                for _ in range(draw.randint(2, 8))
            ]
            time.sleep(draw.uniform(0.5, 1.5))
            processes[0].kill()
            tables = [process.communicate()[0] for process in processes]
            killed += processes[0].returncode != 0
            done = list(runs.glob("*/*/DONE"))
            claims += sum(run.attempts for run in Store(runs).runs())
            twice += len(done) - len({path.parents[1] for path in done})
            is_right = set(tables[1:]) == {expected} and not any(process.returncode for process in processes[1:])
            different += not is_right or len({path.parents[1] for path in done}) != arguments.cells + 1
    print(
        f"{arguments.rounds} rounds of 2 to 8 runners, {arguments.cells} cells, {killed} killed: {claims} claims, "
        f"{twice} runs done twice, {different} rounds with another table"
    )
    return 1 if twice or different else 0


if __name__ == "__main__":
    sys.exit(main())
