"""How much of the dense model's score an artifact keeps, over several seeds, with intervals.

    python benchmarks/kept.py "2 MB=DENSE0:SMALL0,DENSE1:SMALL1" "0.9 MB=DENSE0:TINY0,DENSE1:TINY1" -o results/kept.json

Each pair is a dense artifact and one made from it, of one seed. All are opened from disk and predict the task's whole
validation set. The difference is that of the means over seeds, in points; its interval (95 %) is for other rows
(10,000 drawings, the same for all) and other trainings. Sizes are those on disk; `times` is the dense model's weights
as 32-bit floats over the size of the weights file and of the whole package.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from multipress.analysis.uncertainty import mean_ends
from multipress.artifact import Artifact, open_artifact
from multipress.reproducibility import computer, library_versions
from multipress.runtime import Predictor
from multipress.spec import DataSpec
from multipress.tasks import Split, Task, load_task, load_validation
from multipress.tasks.metrics import score_logits

RESAMPLES = 10_000


class Scores:
    """Scores on the rows of a task, and on drawings of them."""

    def __init__(self, task: Task, rows: Split) -> None:
        self._task, self._rows = task, rows
        self._drawn = np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows)))
        self._known: dict[Path, np.ndarray] = {}

    def of(self, artifact: Artifact) -> np.ndarray:
        """The score, then on each drawing (1 + R,)."""
        if artifact.folder not in self._known:
            task = replace(self._task, labels=tuple(artifact.facts["task"]["labels"]))
            rows = load_validation(self._task.name, task=task).split
            logits = Predictor(artifact).logits(rows.texts, rows.pairs)
            drawn = [score_logits(task, logits[chosen], rows.labels[chosen]) for chosen in self._drawn]
            self._known[artifact.folder] = np.array([score_logits(task, logits, rows.labels), *drawn])
        return self._known[artifact.folder]


def weights_of(artifact: Artifact) -> int:
    """Bytes of the weights as 32-bit floats."""
    return 4 * sum(math.prod(tensor.values.shape) for tensor in artifact.tensors().values())


def compared(name: str, pairs: list[tuple[Artifact, Artifact]], scores: Scores) -> dict:
    """One line: what is kept, at which size."""
    seeds = [(scores.of(dense), scores.of(small)) for dense, small in pairs]
    points = {("", "", seed): 100 * (small - dense) for seed, (dense, small) in enumerate(seeds)}
    low, high = mean_ends(points)
    dense, small = (float(np.mean([pair[which][0] for pair in seeds])) for which in (0, 1))
    each = [
        {
            "dense": float(pair[0][0]),
            "score": float(pair[1][0]),
            "dense_run": whole.facts["run_id"],
            "run": artifact.facts["run_id"],
            "weights_bytes": artifact.weights_bytes,
            "package_bytes": artifact.package_bytes,
            "times_weights": weights_of(whole) / artifact.weights_bytes,
            "times_package": weights_of(whole) / artifact.package_bytes,
        }
        for (whole, artifact), pair in zip(pairs, seeds, strict=True)
    ]
    told = {"points": 100 * (small - dense), "low": low, "high": high, "kept": small / dense}
    return {"name": name, "dense": dense, "score": small, **told, "seeds": each}


def show(found: list[dict]) -> None:
    print(
        "| | seeds | package MB | smaller | dense | score | points (95 %) | kept |\n|---|---|---|---|---|---|---|---|"
    )
    for row in found:
        package = np.mean([one["package_bytes"] for one in row["seeds"]]) / 1e6
        times = np.mean([one["times_package"] for one in row["seeds"]])
        cells = [row["name"], str(len(row["seeds"])), f"{package:.2f}", f"{times:.0f} times"]
        cells += [f"{row['dense']:.4f}", f"{row['score']:.4f}"]
        cells += [f"{row['points']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})", f"{row['kept']:.1%}"]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compared", nargs="+", metavar="NAME=DENSE:SMALL,...")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("-o", "--out", type=Path)
    asked = parser.parse_args()
    task = load_task(DataSpec(task=asked.task)).task
    scores = Scores(task, load_validation(asked.task, task=task).split)
    found = []
    for text in asked.compared:
        name, folders = text.split("=", 1)
        pairs = (pair.split(":") for pair in folders.split(","))
        opened = [(open_artifact(Path(dense)), open_artifact(Path(small))) for dense, small in pairs]
        found.append(compared(name, opened, scores))
    show(found)
    if asked.out:
        versions = library_versions("multipress", "torch", "onnxruntime", "numpy")
        head = {"task": asked.task, "resamples": RESAMPLES, "computer": computer(), "versions": versions}
        asked.out.write_text(json.dumps({**head, "compared": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
