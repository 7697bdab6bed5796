"""The findings of Movva and Zhao (2020) on a pruned translator, one by one, held against a dissection of ours.

    multipress dissect PRUNED ... --against DENSE --data test.tsv --text en --label de --probes all --json > rows.json
    python benchmarks/paper_findings.py rows.json -o results/paper-findings.json

For each artifact of the rows a line a finding: what the paper says with its number, the same number here with its 95 %
interval, and whether that agrees. A finding agrees when the whole interval lies on the side that the paper names,
disagrees when all of it lies on the other, and is open otherwise; what is said to hold agrees when the interval lies
above a loss of `HOLDS`, and what is said of all heads or biases when it is so of all here. Intervals are over text (a
tenth left out at a time; of probes over test examples and trainings), not over trainings of the translator. Those of
shares of zeros say what chance would give that draws each weight by itself. Probes are compared in layers that are
named before (`MIDDLE`): the layer where one model has most is by chance one where the other has less. A line is missing
where the rows say nothing of it. The paper's model is Transformer-big (6 + 6 blocks of 1,024) on WMT16, 70 % of all
weights gone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multipress.dissect.jackknife import intervals
from multipress.report.dissection_words import artifacts_of, at_same_depth, rows_of_part

Row = Mapping[str, Any]
MORPHOLOGY = ("past_present", "subj_number", "obj_number")
SYNTAX = ("pos", "dependency_relation", "parent_relation", "grandparent_relation", "dependency_arc")
SEMANTICS = ("supersense_role", "supersense_function", "coreference_arc")
MIDDLE = 3  # the paper's third layer, of six
HOLDS = -0.02  # a smaller loss than those that the paper calls losses
_NORMAL = 1.96  # 95 %


@dataclass(frozen=True)
class Finding:
    """One finding of the paper beside ours.

    Args:
        finding: What the paper says.
        paper: Its number.
        ours: Ours.
        low: Where our interval begins; None where all is counted.
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


def holds(finding: str, paper: str, number: tuple[float, float, float]) -> Finding:
    """A finding that something does not fall."""
    value, low, high = number
    return Finding(finding, paper, value, low, high, "disagrees" if high < 0 else "agrees" if low > HOLDS else "open")


def difference(value: float, without: Sequence[float]) -> tuple[float, float, float]:
    """A number with its interval, from what it is without each tenth of the text."""
    ends = intervals({"it": value}, [{"it": one} for one in without], {})
    return value, *ends["it"]


def between(ones: Sequence[Row], others: Sequence[Row]) -> tuple[float, float, float]:
    """The mean of some layers' values less that of others', with its interval: all on the same text."""

    def mean(rows: Sequence[Row]) -> tuple[float, list[float]]:
        columns = zip(*(row["context"]["without"] for row in rows), strict=True)
        return sum(row["value"] for row in rows) / len(rows), [sum(column) / len(column) for column in columns]

    (value, without), (other, without_other) = mean(ones), mean(others)
    return difference(value - other, [a - b for a, b in zip(without, without_other, strict=True)])


def changed(row: Row, whole: float = 1.0) -> tuple[float, float, float]:
    """A number's change against the dense model's, as a share of `whole`."""
    context = row["context"]
    return tuple(context[key] / whole for key in ("change", "change_low", "change_high"))


def of_states(rows: Sequence[Row], artifact: str) -> Iterator[Finding]:
    """What hidden states of the encoder say."""
    alike = at_same_depth(rows, artifact, "linear_cka")
    blocks = [alike[layer] for layer in sorted(alike) if layer]
    half = len(blocks) // 2
    if half:
        yield judged(
            "upper layers diverge most: mean linear CKA of the upper half of the layers less that of the lower half",
            "first .936, last two .831 to .855",
            -1,
            between(blocks[-half:], blocks[:half]),
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
            between([heads[1]], others),
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
    """What probes of the encoder say, in its middle layer."""
    for row in rows:
        context = row["context"]
        if row["name"] != "probe_accuracy" or context["artifact"] != artifact or context["layer"] != MIDDLE:
            continue
        name = f"{context['probe']}, layer {MIDDLE}"
        if context["probe"] in MORPHOLOGY:
            yield judged(f"early layers encode more: {name}", "-.003 to +.015", 1, changed(row))
        if context["probe"] in SYNTAX:
            yield holds(f"syntax holds: {name}", "no number", changed(row))
        if context["probe"] in SEMANTICS:
            yield judged(f"senses and coreference fall: {name}", "-.02 to -.03", -1, changed(row))


def pruned(rows: Sequence[Row], kinds: Sequence[str], layers: range, is_bias: bool = False) -> tuple[int, int] | None:
    """How many weights of some kinds of matrices or biases were pruned, of how many; None if there are none."""
    chosen = [
        row["context"]
        for row in rows
        if row["context"]["matrix"] in kinds
        and row["context"]["is_bias"] == is_bias
        and row["context"]["layer"] in layers
    ]
    size = sum(one["size"] for one in chosen)
    return (sum(one["pruned"] for one in chosen), size) if size else None


def more_pruned(one: tuple[int, int], other: tuple[int, int]) -> tuple[float, float, float]:
    """The share that was pruned of some weights less that of others, with its interval."""
    shares = [count / size for count, size in (one, other)]
    variance = sum(share * (1 - share) / size for share, (_, size) in zip(shares, (one, other), strict=True))
    value, reach = shares[0] - shares[1], _NORMAL * math.sqrt(variance)
    return value, value - reach, value + reach


def of_zeros(rows: Sequence[Row], artifact: str) -> Iterator[Finding]:
    """Where the pruned weights sit; the decoder's blocks are counted on after the encoder's."""
    own = [row for row in rows if row["name"] == "zero_share" and row["context"]["artifact"] == artifact]
    blocks = max((row["context"]["layer"] or 0 for row in own), default=0)
    if not any(row["context"]["pruned"] for row in own):
        return
    every, half = range(1, blocks + 1), blocks // 2
    keys = pruned(own, ("key", "cross key"), every, is_bias=True)
    if keys is not None:
        share = keys[0] / keys[1]
        name = "biases of keys, which no softmax sees, go whole"
        yield Finding(name, "1", share, None, None, "agrees" if share == 1 else "disagrees")
    crossing = pruned(own, ("cross query", "cross key", "cross value", "cross output"), every)
    itself = pruned(own, ("query", "key", "value", "attention output"), every)
    first = pruned(own, ("value", "attention output"), range(1, 2))
    further = pruned(own, ("value", "attention output"), range(2, blocks + 1))
    looking = pruned(own, ("query", "key"), every)
    # What follows the encoder's blocks has a second feed-forward matrix whose share may rise with depth.
    bottom, top = (pruned(own, ("feed-forward out",), range(at, at + 1)) for at in (half + 1, blocks))
    compared = (
        (
            "cross-attention goes least: its share less self-attention's",
            ".48 to .56 less .55 to .95",
            -1,
            crossing,
            itself,
        ),
        (
            "value and output of the first encoder layer go most: their share less other layers'",
            ".95 less .75 to .88",
            1,
            first,
            further,
        ),
        (
            "query and key stay rather than value and output: their share less that",
            ".55 to .65 less .75 to .88",
            -1,
            looking,
            further,
        ),
        (
            "the decoder's second feed-forward matrix: last layer less first",
            ".86 less .64",
            1,
            top if crossing else None,
            bottom,
        ),
    )
    for name, paper, sign, one, other in compared:
        if one is not None and other is not None:
            yield judged(name, paper, sign, more_pruned(one, other))


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
