"""Whether methods of compression damage different things inside a model, over several trainings.

    multipress dissect RUNS/<id>/attempt-1/artifact ... --against DENSE_OF_SEED_0 --json > seed-0.json
    python benchmarks/damage.py seed-0.json seed-1.json seed-2.json --control dense.json -o damage.json --table

Each file holds the rows of one seed: its compressed artifacts against the dense model of that seed. The control is
dense models against dense models of other seeds: what training once more changes where nothing is compressed. Out come

- each combination's change by measure and layer, the mean over seeds with a 95 % interval (Student's t; of three seeds
  it is wide, 2.5 times their standard deviation to each side);
- how alike two combinations' damage is, whatever its size: an artifact's profile is its change in each of `LIKENESS`
  (1 less the value) and `OWN` (the change against dense) by layer, each in units of its root mean square over all
  artifacts, and two profiles are compared by their cosine. Only artifacts of different seeds are paired, so that no
  pair shares a reference; a combination beside itself says how well the seeds agree;
- for how many artifacts the most alike one of another seed is of the same combination.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from multipress.report.dissection_words import artifacts_of, at_same_depth, rows_of_part

Row = Mapping[str, Any]
LIKENESS = ("linear_cka", "maxcorr", "regression", "attention_maxcorr")
OWN = (
    "pca_components",
    "participation_ratio",
    "intrinsic_dimension",
    "attention_entropy",
    "attention_distance",
    "attention_to_special",
)
Artifact = tuple[str, int]  # its combination and its seed


def changes(rows: Sequence[Row]) -> dict[Artifact, dict[tuple[str, int], float]]:
    """Of each artifact the change by measure and layer; of a probe, the change of its accuracy."""
    found: dict[Artifact, dict[tuple[str, int], float]] = {}
    for label in artifacts_of(rows):
        name, seed = re.fullmatch(r"\S+ \S+ (.*) seed (\d+)", label).groups()
        own = found.setdefault((name, int(seed)), {})
        for measure in (*LIKENESS, *OWN):
            for layer, row in at_same_depth(rows_of_part(rows), label, measure).items():
                own[measure, layer] = 1 - row["value"] if measure in LIKENESS else row["context"]["change"]
        for row in rows:
            if row["name"] == "probe_accuracy" and row["context"]["artifact"] == label:
                own[row["context"]["probe"], row["context"]["layer"]] = row["context"]["change"]
    return found


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean of some trainings, with its 95 % interval (none for one training)."""
    line: dict[str, Any] = {"mean": float(np.mean(values)), "low": None, "high": None, "seeds": list(values)}
    if len(values) > 1:
        reach = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
        line |= {"low": line["mean"] - reach, "high": line["mean"] + reach}
    return line


def by_layer(found: Mapping[Artifact, Mapping[tuple[str, int], float]]) -> list[dict[str, Any]]:
    """A line for each combination, measure and layer."""
    lines = []
    for name in dict.fromkeys(name for name, _ in found):
        of_seeds = [own for (other, _), own in found.items() if other == name]
        for measure, layer in of_seeds[0]:
            values = [own[measure, layer] for own in of_seeds]
            lines.append({"combination": name, "measure": measure, "layer": layer, **over_seeds(values)})
    return lines


def profiles(found: Mapping[Artifact, Mapping[tuple[str, int], float]]) -> dict[Artifact, np.ndarray]:
    """Each artifact's damage as a vector of length 1; what no artifact changes is left out, and so are probes."""
    keys = [key for key in next(iter(found.values())) if key[0] in (*LIKENESS, *OWN)]
    table = np.array([[own[key] for key in keys] for own in found.values()])
    sizes = np.sqrt((table**2).mean(axis=0))
    table = table[:, sizes > 0] / sizes[sizes > 0]
    return dict(zip(found, table / np.linalg.norm(table, axis=1, keepdims=True), strict=True))


def cosines(vectors: Mapping[Artifact, np.ndarray]) -> list[dict[str, Any]]:
    """How alike combinations damage: the mean, least and largest cosine of artifacts of different seeds."""
    names = list(dict.fromkeys(name for name, _ in vectors))
    lines = []
    for one, other in combinations_with_replacement(names, 2):
        values = [
            float(a @ b)
            for (name, seed), a in vectors.items()
            for (its_name, its_seed), b in vectors.items()
            if (name, its_name) == (one, other) and (seed < its_seed if one == other else seed != its_seed)
        ]
        if values:
            lines.append(
                {"one": one, "other": other, "mean": float(np.mean(values)), "low": min(values), "high": max(values)}
            )
    return lines


def recognized(vectors: Mapping[Artifact, np.ndarray]) -> dict[str, str]:
    """For each artifact the combination whose artifact of another seed is the most alike."""
    nearest = {}
    for (name, seed), vector in vectors.items():
        others = {other: float(vector @ its) for other, its in vectors.items() if other[1] != seed}
        nearest[f"{name} seed {seed}"] = max(others, key=others.__getitem__)[0]
    return nearest


def table(lines: Sequence[Mapping[str, Any]], measure: str, digits: int) -> str:
    """One measure, a combination a row and a layer a column: Markdown."""
    own = [line for line in lines if line["measure"] == measure]
    layers = sorted({line["layer"] for line in own})
    rows = [f"| {measure} | {' | '.join(map(str, layers))} |", "|---" * (len(layers) + 1) + "|"]
    for name in dict.fromkeys(line["combination"] for line in own):
        cells = [line for line in own if line["combination"] == name]
        cells.sort(key=lambda line: line["layer"])
        rows.append(f"| {name} | {' | '.join(_cell(line, digits) for line in cells)} |")
    return "\n".join(rows)


def _cell(line: Mapping[str, Any], digits: int) -> str:
    text = f"{line['mean']:.{digits}f}"
    if line["low"] is None:
        return text
    text += f" ± {line['high'] - line['mean']:.{digits}f}"
    return f"**{text}**" if line["low"] > 0 or line["high"] < 0 else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", type=Path, help="rows of `dissect --json`, a file for each seed")
    parser.add_argument("--control", type=Path, nargs="*", default=[], help="the same of dense against dense")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--table", action="store_true", help="print Markdown tables; bold: the interval leaves out 0")
    args = parser.parse_args()
    rows = [row for path in (*args.rows, *args.control) for row in json.loads(path.read_text())]
    found = changes(rows)
    lines, vectors = by_layer(found), profiles(found)
    result = {"changes": lines, "cosines": cosines(vectors), "nearest": recognized(vectors)}
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")
    if args.table:
        for measure in dict.fromkeys(line["measure"] for line in lines):
            digits = 1 if measure in ("pca_components", "participation_ratio", "intrinsic_dimension") else 3
            print(table(lines, measure, digits), end="\n\n")
        for line in result["cosines"]:
            print(f"{line['one']} and {line['other']}: {line['mean']:.2f} ({line['low']:.2f} to {line['high']:.2f})")
        print(json.dumps(result["nearest"], indent=1))


if __name__ == "__main__":
    main()
