"""Which of two combinations of methods gives the better score at equal bytes, with intervals: the cells of a study.

    python benchmarks/equal_bytes.py RUNS -o results/equal-bytes.json

A combination is named by its methods, in any order, `rate` in place of `quantization` for bits that are learned:
`rate+distillation` against `quantization+pruning+distillation` unless told otherwise. Each is as good, at so many
bytes, as the best of its cells that has no more of them. They are compared at the size of each of their cells, from
where both have one, and in the mean over that range, sizes on a logarithmic scale. Intervals (95 %) are over 10,000
drawings of the validation rows, all cells on the same; in each the best cell is chosen anew. With one seed they say
nothing of what another training would give. Sizes are those of the artifacts stored again by this version.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from multipress.analysis.cells import Cell, read_cells
from multipress.analysis.resampling import draw_rows
from multipress.artifact import open_artifact
from multipress.measure import read_outcome
from multipress.packing.weights import write_weights
from multipress.reproducibility import library_versions
from multipress.store import Store

RESAMPLES = 10_000
OURS, PAPERS = "rate+distillation", "quantization+pruning+distillation"


def family(cell: Cell) -> frozenset[str]:
    """Names of the methods of a cell; `rate` stands for a quantization that learns its bits."""
    settings = cell.row["settings"]
    learned = settings.get("quantization", {}).get("rate") is not None
    names = {"rate" if name == "quantization" and learned else name for name in settings}
    return frozenset(names)


def stored_again(cell: Cell, store: Store) -> Cell:
    """The cell with the sizes that its artifact has when this version stores its tensors."""
    attempt = store.done(cell.run_id)
    assert attempt is not None
    artifact = open_artifact(attempt / "artifact")
    weights = len(write_weights(artifact.tensors(), artifact.aliases)[0])
    package = artifact.package_bytes - artifact.weights_bytes + weights
    return replace(cell, sizes={**cell.sizes, "weights_bytes": weights, "package_bytes": package})


def best_within(sizes: np.ndarray, scores: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The best score (L, R) of the cells that are within each limit.

    Args:
        sizes: Bytes (P,).
        scores: (P, R).
        limits: Bytes (L,); each at least the smallest size.
    """
    return np.stack([scores[sizes <= limit].max(axis=0) for limit in limits])


def compare(ours: Sequence[Cell], rivals: Sequence[Cell], draws: dict[str, np.ndarray], size: str) -> dict:
    """The score of ours less that of the rivals, in points, at every size from where both have a cell."""

    def curve(cells: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
        scores = np.stack([np.concatenate([[cell.score], draws[cell.run_id]]) for cell in cells])
        return np.array([cell.sizes[size] for cell in cells], dtype=float), scores

    own, other = curve(ours), curve(rivals)
    every = np.unique(np.concatenate([own[0], other[0]]))
    limits = every[every >= max(own[0].min(), other[0].min())]
    gains = 100 * (best_within(*own, limits) - best_within(*other, limits))  # (L, 1 + R)
    widths = np.diff(np.log(limits))
    mean = widths @ gains[:-1] / widths.sum()

    def told(values: np.ndarray) -> dict[str, float]:
        low, high = np.quantile(values[1:], [0.025, 0.975])
        return {"points": float(values[0]), "low": float(low), "high": float(high)}

    at = [{"bytes": int(limit), **told(values)} for limit, values in zip(limits, gains, strict=True)]
    smallest = {"ours": int(own[0].min()), "rivals": int(other[0].min())}
    return {"size": size, "smallest": smallest, "mean": told(mean), "at": at}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("compared", nargs="*", default=[OURS, PAPERS], help="two combinations")
    parser.add_argument("--besides", default="vocabulary", help="a method that all compared cells have; '' for none")
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    store = Store(arguments.runs)
    cells = [cell for cell in read_cells(store.cells("")) if cell.is_done]
    outcomes = {cell.run_id: read_outcome(attempt) for cell in cells if (attempt := store.done(cell.run_id))}
    draws = draw_rows(cells, outcomes, RESAMPLES)
    common = {arguments.besides} - {""}
    cells = [stored_again(cell, store) for cell in cells]
    ours, rivals = ([c for c in cells if family(c) == common | set(n.split("+"))] for n in arguments.compared)
    if not (ours and rivals) or len({(cell.model, cell.task, cell.seed) for cell in [*ours, *rivals]}) != 1:
        sys.exit(f"Cells of one model, task and seed are needed; there are {len(ours)} and {len(rivals)} of both.")
    found = [compare(ours, rivals, draws, size) for size in ("weights_bytes", "package_bytes")]
    for one in found:
        show(one, " less ".join(arguments.compared))
    if arguments.out:
        told = [{"run_id": c.run_id, "label": c.label, "score": c.score, **c.sizes} for c in [*ours, *rivals]]
        versions = library_versions("multipress", "torch", "numpy")
        head = {"compared": arguments.compared, "resamples": RESAMPLES, "versions": versions, "cells": told}
        arguments.out.write_text(json.dumps({**head, "differences": found}, indent=1) + "\n", encoding="utf-8")


def show(found: dict, names: str) -> None:
    print(f"\n{names}, {found['size']}\n| MB | points | low | high |\n|---|---|---|---|")
    for row in found["at"]:
        print(f"| {row['bytes'] / 1e6:.2f} | {row['points']:+.2f} | {row['low']:+.2f} | {row['high']:+.2f} |")
    mean = found["mean"]
    print(f"| mean | {mean['points']:+.2f} | {mean['low']:+.2f} | {mean['high']:+.2f} |")


if __name__ == "__main__":
    main()
