"""Whether methods of compression damage different things inside a model, over several trainings.

    multipress dissect RUNS/<id>/attempt-1/artifact ... --against DENSE_OF_SEED_0 --json > seed-0.json
    python benchmarks/damage.py seed-0.json seed-1.json seed-2.json --control dense.json -o damage.json --table

Each file holds the rows of one seed: its compressed artifacts against the dense model of that seed. The control is
dense models against dense models of other seeds: what training once more changes where nothing is compressed. Out come

- each combination's change by measure and layer, the mean over seeds with a 95 % interval (Student's t; of three seeds
  it is wide, 2.5 times their standard deviation to each side); of the control none, as its pairs share models
  (where they go round, 1 against 0, 2 against 1, 0 against 2, changes of a measure sum to zero: look at their range);
- the same of one combination less another, seed by seed (`--less KD+P60:P60`): what distilling changes beside pruning;
- how alike two combinations' damage is, whatever its size: an artifact's profile is its change in each of `LIKENESS`
  (1 less the value) and `OWN` (the change against dense) by layer, each in units of its root mean square over all
  compressed ones, and two profiles are compared by their cosine. No pair is made of artifacts that share a seed or a
  reference, because one model's chance would be in both; a combination beside itself says how well the seeds agree;
- which combination the most alike artifact is of, among those that it can be paired with.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from multipress.report.dissection_lines import Series, lines_figure
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
PANELS = {
    "linear_cka": "1 less linear CKA",
    "attention_maxcorr": "1 less best correlation of heads",
    "intrinsic_dimension": "intrinsic dimension, change",
    "attention_entropy": "entropy of attention, change in bits",
}
_LABEL = re.compile(r"(?P<of>\S+ \S+) (?P<combination>.*) seed (?P<seed>\d+)(?: \(.*\))?")


@dataclass(frozen=True)
class Compared:
    """A compressed model, or another dense one, and the dense one that it was compared with.

    Args:
        combination: Its methods, such as `Q8+P60`, or `dense`.
        seeds: Its seed and that of its reference, which may be the same.
    """

    combination: str
    seeds: frozenset[int]

    def shares_none(self, other: Compared) -> bool:
        """Whether nothing that was trained from one seed is in both."""
        return not self.seeds & other.seeds


Changes = Mapping[Compared, Mapping[tuple[str, int], float]]


def changes(rows: Sequence[Row]) -> Changes:
    """Of each artifact the change by measure and layer; of a probe, the change of its accuracy."""
    found: dict[Compared, dict[tuple[str, int], float]] = {}
    places = set()
    for label in artifacts_of(rows):
        of_label = [row for row in rows if row["context"]["artifact"] == label]
        for against in dict.fromkeys(row["context"]["against"] for row in of_label):
            mine = [row for row in of_label if row["context"]["against"] == against]
            here, there = (_LABEL.fullmatch(text) for text in (label, against))
            if here is None or there is None:
                raise SystemExit(f"{label!r} or {against!r} is no run of a study with a seed.")
            one = Compared(here["combination"], frozenset({int(here["seed"]), int(there["seed"])}))
            places |= {here["of"], there["of"]}
            if one in found or len(places) > 1:
                raise SystemExit(f"{label} is there twice, or is of another model or task than others.")
            found[one] = _changes_of(mine, label)
    return found


def _changes_of(rows: Sequence[Row], label: str) -> dict[tuple[str, int], float]:
    own = {}
    for measure in (*LIKENESS, *OWN):
        for layer, row in at_same_depth(rows_of_part(rows), label, measure).items():
            own[measure, layer] = 1 - row["value"] if measure in LIKENESS else row["context"]["change"]
    probes = [row for row in rows if row["name"] == "probe_accuracy"]
    return own | {(row["context"]["probe"], row["context"]["layer"]): row["context"]["change"] for row in probes}


def over_seeds(values: Sequence[float], seeds: Sequence[frozenset[int]]) -> dict[str, Any]:
    """Mean of some trainings, with its 95 % interval (none for one training, or where two share a model)."""
    line: dict[str, Any] = {"mean": float(np.mean(values)), "low": None, "high": None, "seeds": list(values)}
    if len(values) > 1 and sum(map(len, seeds)) == len(frozenset.union(*seeds)):
        reach = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
        line |= {"low": line["mean"] - reach, "high": line["mean"] + reach}
    return line


def by_layer(found: Changes) -> list[dict[str, Any]]:
    """A line for each combination, measure and layer."""
    lines = []
    for name in dict.fromkeys(one.combination for one in found):
        own = {one.seeds: values for one, values in found.items() if one.combination == name}
        first, *others = own.values()
        for measure, layer in [key for key in first if all(key in other for other in others)]:
            values = over_seeds([one[measure, layer] for one in own.values()], list(own))
            lines.append({"combination": name, "measure": measure, "layer": layer, **values})
    return lines


def less(found: Changes, one: str, other: str) -> Changes:
    """What one combination changes less what another does, of each seed that both have."""
    return {
        Compared(f"{one} less {other}", its.seeds): {key: value - there[key] for key, value in here.items()}
        for its, here in found.items()
        for that, there in found.items()
        if (its.combination, that.combination) == (one, other) and its.seeds == that.seeds
    }


def profiles(found: Changes) -> dict[Compared, np.ndarray]:
    """Each artifact's damage as a vector of length 1; what no artifact changes is left out, and so are probes."""
    first, *others = found.values()
    keys = [key for key in first if key[0] in (*LIKENESS, *OWN) and all(key in other for other in others)]
    table = np.array([[own[key] for key in keys] for own in found.values()])
    # The controls hold models that other rows hold too, so that a scale with them in it would favor likeness.
    compressed = [len(one.seeds) == 1 for one in found]
    sizes = np.sqrt((table[compressed] ** 2).mean(axis=0))
    table = table[:, sizes > 0] / sizes[sizes > 0]
    return dict(zip(found, table / np.linalg.norm(table, axis=1, keepdims=True), strict=True))


def cosines(vectors: Mapping[Compared, np.ndarray]) -> list[dict[str, Any]]:
    """How alike combinations damage: the mean, least and largest cosine of artifacts that share no seed."""
    names = list(dict.fromkeys(one.combination for one in vectors))
    lines = []
    for name, its_name in combinations_with_replacement(names, 2):
        values = [
            float(vector @ its)
            for one, vector in vectors.items()
            for other, its in vectors.items()
            if (one.combination, other.combination) == (name, its_name) and one.shares_none(other)
        ]
        if values:
            line = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}
            lines.append({"one": name, "other": its_name, **line})
    return lines


def recognized(vectors: Mapping[Compared, np.ndarray]) -> list[dict[str, Any]]:
    """For each artifact the combination of the most alike one that shares no seed with it."""
    lines = []
    for one, vector in vectors.items():
        others = {other: float(vector @ its) for other, its in vectors.items() if one.shares_none(other)}
        if others:
            nearest = max(others, key=others.__getitem__).combination
            lines.append({"combination": one.combination, "seeds": sorted(one.seeds), "nearest": nearest})
    return lines


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


def figure(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines over layers of four measures, the bars 95 % intervals over seeds: one SVG file."""
    names = [name for name in dict.fromkeys(line["combination"] for line in lines) if " less " not in name]
    panels = []
    for measure, title in PANELS.items():
        series = []
        for number, name in enumerate(names):
            own = [line for line in lines if (line["combination"], line["measure"]) == (name, measure)]
            series.append(Series(name, number, [(line["layer"], *_drawn(line)) for line in own]))
        panels.append((title, series))
    return lines_figure(panels)


def _drawn(line: Mapping[str, Any]) -> tuple[float, float, float]:
    """Where a line and the ends of its bar are; of the control's own changes, whose sign is by chance, the largest."""
    if line["low"] is not None:
        return line["mean"], line["low"], line["high"]
    if line["measure"] in OWN and len(line["seeds"]) > 1:
        most = max(map(abs, line["seeds"]))
        return 0.0, -most, most
    return line["mean"], min(line["seeds"]), max(line["seeds"])


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
    parser.add_argument("--figure", type=Path, help="write lines over layers as SVG")
    parser.add_argument("--less", nargs="*", default=[], metavar="ONE:OTHER", help="differences of combinations")
    parser.add_argument("--table", action="store_true", help="print Markdown tables; bold: the interval leaves out 0")
    args = parser.parse_args()
    rows = [row for path in (*args.rows, *args.control) for row in json.loads(path.read_text())]
    found = changes(rows)
    lines, vectors = by_layer(found), profiles(found)
    for asked in args.less:
        one, _, other = asked.partition(":")
        between = less(found, one, other)
        if not between:
            names = ", ".join(dict.fromkeys(compared.combination for compared in found))
            raise SystemExit(f"--less {asked}: write ONE:OTHER, of {names}.")
        lines += by_layer(between)
    result = {"changes": lines, "cosines": cosines(vectors), "nearest": recognized(vectors)}
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")
    if args.figure:
        args.figure.write_text(figure(lines))
    if args.table:
        for measure in dict.fromkeys(line["measure"] for line in lines):
            digits = 1 if measure in ("pca_components", "participation_ratio", "intrinsic_dimension") else 3
            print(table(lines, measure, digits), end="\n\n")
        for line in result["cosines"]:
            print(f"{line['one']} and {line['other']}: {line['mean']:.2f} ({line['low']:.2f} to {line['high']:.2f})")
        for line in result["nearest"]:
            print(f"{line['combination']} seed {line['seeds']}: most like {line['nearest']}")


if __name__ == "__main__":
    main()
