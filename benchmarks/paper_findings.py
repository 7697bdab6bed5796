"""The findings of Movva and Zhao (2020) on a pruned translator, one by one, held against a dissection of ours.

    multipress dissect PRUNED ... --against DENSE --data test.tsv --text en --label de --probes all --json > rows.json
    python benchmarks/paper_findings.py rows.json -o results/paper-findings.json

For each artifact of the rows a line a finding: what the paper says with its number, the same number here with its 95 %
interval, and whether that agrees. A finding agrees when the whole interval lies on the side that the paper names,
disagrees when all of it lies on the other, and is open otherwise. Intervals are over text (a tenth left out at a time;
of probes over test examples and trainings), not over trainings of the translator. Shares of zeros are counts: they have
no interval, and agree when the order is the paper's. A line is missing where the rows say nothing of it. The paper's
model is Transformer-big (6 + 6 blocks of 1,024) on WMT16, 70 % of all weights gone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multipress.dissect.jackknife import intervals
from multipress.report.dissection_words import artifacts_of, at_same_depth, rows_of_part

Row = Mapping[str, Any]
SYNTAX = ("pos", "dependency_relation", "parent_relation", "grandparent_relation", "dependency_arc")
SEMANTICS = ("supersense_role", "supersense_function", "coreference_arc")
EARLY = 3  # the paper's third layer, of six


@dataclass(frozen=True)
class Finding:
    """One finding of the paper beside ours.

    Args:
        finding: What the paper says.
        paper: Its number.
        ours: Ours.
        low: Where our interval begins; None for a count.
        high: Where it ends.
        verdict: `agrees`, `disagrees` or `open`.
    """

    finding: str
    paper: str
    ours: float
    low: float | None
    high: float | None
    verdict: str


def judged(finding: str, paper: str, sign: int, number: tuple[float, float, float]) -> Finding:
    """A finding by its interval; `sign` is the side of zero that the paper names."""
    value, low, high = number
    side = 1 if low > 0 else -1 if high < 0 else 0
    verdict = "open" if side == 0 else "agrees" if side == sign else "disagrees"
    return Finding(finding, paper, value, low, high, verdict)


def counted(finding: str, paper: str, ours: float, agrees: bool) -> Finding:
    """A finding on shares of zeros, which are what they are."""
    return Finding(finding, paper, ours, None, None, "agrees" if agrees else "disagrees")


def difference(value: float, without: Sequence[float]) -> tuple[float, float, float]:
    """A number with its interval, from what it is without each tenth of the text."""
    ends = intervals({"it": value}, [{"it": one} for one in without], {})
    return value, *ends["it"]


def between(one: Row, others: Sequence[Row]) -> tuple[float, float, float]:
    """A layer's value less the mean of some others', with its interval: all on the same text."""
    columns = zip(*(row["context"]["without"] for row in others), strict=True)
    means = [sum(column) / len(column) for column in columns]
    mean = sum(row["value"] for row in others) / len(others)
    without = [a - b for a, b in zip(one["context"]["without"], means, strict=True)]
    return difference(one["value"] - mean, without)


def changed(row: Row, whole: float = 1.0) -> tuple[float, float, float]:
    """A number's change against the dense model's, as a share of `whole`."""
    context = row["context"]
    return tuple(context[key] / whole for key in ("change", "change_low", "change_high"))


def of_states(rows: Sequence[Row], artifact: str) -> Iterator[Finding]:
    """What hidden states of the encoder say."""
    alike = at_same_depth(rows, artifact, "linear_cka")
    if len(alike) > 2:
        last = max(alike)
        yield judged(
            "upper layers diverge most: linear CKA of the last layer less that of the first",
            ".831 to .855 less .936",
            -1,
            between(alike[last], [alike[1]]),
        )
    components = at_same_depth(rows, artifact, "pca_components")
    if components:
        row = components[max(components)]
        yield judged(
            "upper layers use fewer components: change in the last layer, share of the dense one's",
            "919 to 906: -.014",
            -1,
            changed(row, row["context"]["against_value"]),
        )
    kept = at_same_depth(rows, artifact, "neurons_same_index_in_last")
    if kept:
        yield judged(
            "more is done between the first layer and the last: change of the share of its neurons whose best match "
            "in the last has the same number",
            "859 to 765 of 1,024: -.092",
            -1,
            changed(kept[1]),
        )


def of_attention(rows: Sequence[Row], artifact: str) -> Iterator[Finding]:
    """What heads say: of the encoder, and of the decoder where it looks at the text."""
    heads = at_same_depth(rows_of_part(rows), artifact, "attention_maxcorr")
    if len(heads) > 1 and 1 in heads:
        others = [row for layer, row in heads.items() if layer != 1]
        yield judged(
            "attention is alike but in the first encoder layer: its heads' best correlation less the others' mean",
            ".721 less .886 to .945",
            -1,
            between(heads[1], others),
        )
    crossing = at_same_depth(rows_of_part(rows, "cross-attention"), artifact, "attention_same_index")
    if crossing:
        lowest = min(crossing.values(), key=lambda row: float(row["value"]))
        value, context = float(lowest["value"]), lowest["context"]
        yield Finding(
            "heads of cross-attention keep their number: the lowest share of a layer",
            "1 in each layer",
            value,
            context["low"],
            context["high"],
            "agrees" if value == 1 else "disagrees" if context["high"] < 1 else "open",
        )


def of_probes(rows: Sequence[Row], artifact: str) -> Iterator[Finding]:
    """What probes of the encoder say: of syntax in an early layer, of semantics where the dense model has most."""
    for probe in (*SYNTAX, *SEMANTICS):
        own = [row for row in rows if row["name"] == "probe_accuracy" and row["context"]["artifact"] == artifact]
        layers = {row["context"]["layer"]: row for row in own if row["context"]["probe"] == probe}
        if not layers:
            continue
        if probe in SYNTAX and EARLY in layers:
            yield judged(
                f"early layers encode more: {probe}, layer {EARLY}", "-.003 to +.015", 1, changed(layers[EARLY])
            )
        if probe in SEMANTICS:
            best = max(layers.values(), key=lambda row: float(row["context"]["against_value"]))
            name = f"{probe} falls, in layer {best['context']['layer']}, where the dense model has most"
            yield judged(name, "-.02 to -.03", -1, changed(best))


def pruned(rows: Sequence[Row], kinds: Sequence[str], layers: range, is_bias: bool = False) -> float | None:
    """Share that was pruned of some kinds of matrices or biases; None where there are none."""
    chosen = [
        row["context"]
        for row in rows
        if row["context"]["matrix"] in kinds
        and row["context"]["is_bias"] == is_bias
        and row["context"]["layer"] in layers
    ]
    size = sum(one["size"] for one in chosen)
    return sum(one["pruned"] for one in chosen) / size if size else None


def of_zeros(rows: Sequence[Row], artifact: str) -> Iterator[Finding]:
    """Where the pruned weights sit; the decoder's blocks are counted on after the encoder's."""
    own = [row for row in rows if row["name"] == "zero_share" and row["context"]["artifact"] == artifact]
    blocks = max((row["context"]["layer"] or 0 for row in own), default=0)
    if not any(row["context"]["pruned"] for row in own):
        return
    every, half = range(1, blocks + 1), blocks // 2
    keys = pruned(own, ("key", "cross key"), every, is_bias=True)
    crossing = pruned(own, ("cross query", "cross key", "cross value", "cross output"), every)
    itself = pruned(own, ("query", "key", "value", "attention output"), every)
    first = pruned(own, ("value", "attention output"), range(1, 2))
    further = pruned(own, ("value", "attention output"), range(2, blocks + 1))
    looking = pruned(own, ("query", "key"), every)
    if keys is not None:
        yield counted("biases of keys, which no softmax sees, go whole", "1", keys, keys == 1)
    if crossing is not None and itself is not None:
        yield counted(
            "cross-attention goes least: its share less self-attention's", "-.2", crossing - itself, crossing < itself
        )
    if first is not None and further is not None:
        yield counted(
            "value and output of the first encoder layer go most: their share less that of other layers",
            ".95 less .75 to .88",
            first - further,
            first > further,
        )
    if looking is not None and further is not None:
        yield counted(
            "query and key stay rather than value and output: their share less that",
            ".55 to .65 less .75 to .88",
            looking - further,
            looking < further,
        )
    bottom, top = (pruned(own, ("feed-forward out",), range(at, at + 1)) for at in (half + 1, blocks))
    if crossing is not None and bottom is not None and top is not None:
        yield counted(
            "the decoder's second feed-forward matrix: last layer less first",
            ".86 less .64",
            top - bottom,
            top > bottom,
        )


def findings(rows: Sequence[Row], artifact: str) -> list[Finding]:
    """All of the paper's findings that the rows say something of."""
    reading = rows_of_part(rows)
    return [
        *of_states(reading, artifact),
        *of_attention(rows, artifact),
        *of_probes(reading, artifact),
        *of_zeros(reading, artifact),
    ]


def cell(finding: Finding) -> str:
    """Our number with its interval."""
    if finding.low is None:
        return f"{finding.ours:.3f}"
    return f"{finding.ours:+.3f} ({finding.low:+.3f} to {finding.high:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="what `multipress dissect --json` printed")
    parser.add_argument("-o", "--out", type=Path)
    asked = parser.parse_args()
    rows = json.loads(asked.rows.read_text())
    found = {artifact: findings(rows, artifact) for artifact in artifacts_of(rows)}
    for artifact, lines in found.items():
        print(f"\n{artifact}\n\n| the paper found | its number | here (95 %) | |\n|---|---|---|---|")
        for one in lines:
            print(f"| {one.finding} | {one.paper} | {cell(one)} | {one.verdict} |")
    if asked.out:
        kept = {artifact: [asdict(one) for one in lines] for artifact, lines in found.items()}
        asked.out.write_text(json.dumps({"command": sys.argv[1:], "findings": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
