"""What a dissection found, in plain words and as a table for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from multipress.analysis.uncertainty import holm
from multipress.report.dissection_contrasts import LEVEL, clearly_changed, least

__all__ = [
    "PARTS",
    "artifacts_of",
    "at_same_depth",
    "dissection_table",
    "findings",
    "is_matrix",
    "lost_probes",
    "rows_of_part",
]

Row = Mapping[str, Any]
PARTS = ("decoder", "cross-attention")  # rows without a part are about what reads the text
_COLUMNS = (
    ("linear_cka", "CKA", 3),
    ("svcca", "SVCCA", 3),
    ("pwcca", "PWCCA", 3),
    ("maxcorr", "maxcorr", 3),
    ("regression", "regr.", 3),
    ("pca_components", "comp.", 0),
    ("intrinsic_dimension", "dim.", 1),
    ("attention_entropy", "entropy", 2),
    ("attention_maxcorr", "heads", 3),
)
_MOST_PROBES = 5
# What differs between rounds of pruning of one model: the share that is gone, and which round it is (the first: none).
_SHARE, _ROUND = re.compile(r"\bP[\d.]+"), re.compile(r"\[\d+ rounds\]")


def artifacts_of(rows: Sequence[Row]) -> list[str]:
    """The artifacts that rows are about, in order; not those of rows about several."""
    return list(dict.fromkeys(row["context"]["artifact"] for row in rows if row["name"] != "mincorr"))


def rows_of_part(rows: Sequence[Row], part: str = "") -> list[Row]:
    """The rows about one of `PARTS`; about what reads the text, the zeros and the probes if none is named."""
    return [row for row in rows if row["context"].get("part", "") == part]


def at_same_depth(rows: Sequence[Row], artifact: str, name: str) -> dict[int, Row]:
    """Rows of one measure with an interval, by layer: the layer of the reference is as deep as the artifact's."""
    own = [row for row in rows if row["name"] == name and row["context"]["artifact"] == artifact]
    return {row["context"]["layer"]: row for row in own if "low" in row["context"]}


def is_matrix(row: Row) -> bool:
    """Whether a row about zeros is about a matrix of a block, not a bias, norm, embedding or head."""
    context = row["context"]
    return bool(context["layer"]) and not context["is_bias"] and context["matrix"] != "norm"


def lost_probes(rows: Sequence[Row], artifact: str) -> list[Row]:
    """Of each probe the layer where the artifact's loss against the reference is surest; the largest loss first.

    Only losses that stand when all layers of all its probes are looked at: chances are corrected for their number.

    References:
        Holm (1979).
    """
    looked = [row for row in rows if row["name"] == "probe_accuracy" and row["context"]["artifact"] == artifact]
    looked.sort(key=_chance)
    lost: dict[str, Row] = {}
    for row, corrected in zip(looked, holm([_chance(row) for row in looked]), strict=True):
        if corrected < LEVEL and row["context"]["change"] < 0:
            lost.setdefault(row["context"]["probe"], row)
    return sorted(lost.values(), key=lambda row: float(row["context"]["change"]))


def _chance(row: Row) -> float:
    """The chance of as large a change, either way, where there is none; by the interval, a normal one of 95 %."""
    context = row["context"]
    error = (context["change_high"] - context["change"]) / NormalDist().inv_cdf(0.975)
    return 2 * NormalDist().cdf(-abs(context["change"]) / error) if error else float(context["change"] == 0)


def findings(rows: Sequence[Row]) -> list[str]:
    """Sentences on what differs, an artifact at a time; only what an interval supports is called a difference.

    Args:
        rows: Of one part.
    """
    said = []
    for artifact in artifacts_of(rows):
        parts = [
            *_similarity_words(_by_tenths(rows, artifact, "linear_cka")),
            *_component_words(_by_tenths(rows, artifact, "pca_components")),
            *_attention_words(_by_tenths(rows, artifact, "attention_maxcorr")),
            *_degenerate_words(_by_tenths(rows, artifact, "attention_degenerate")),
            *_zero_words(rows, artifact),
            *_probe_words(rows, artifact),
        ]
        if parts:
            said.append(f"{artifact}: {'; '.join(parts)}.")
    return [*said, *_first_lost(rows)]


def _first_lost(rows: Sequence[Row]) -> list[str]:
    """For artifacts that differ in how much was pruned alone: which probes lose beyond their interval first."""
    families: dict[str, list[tuple[float, str]]] = {}
    for artifact in artifacts_of(rows):
        zeros = pruned_shares(rows, artifact).values()
        if zeros:
            share = sum(pruned for pruned, _ in zeros) / sum(size for _, size in zeros)
            families.setdefault(_ROUND.sub("", _SHARE.sub("P", artifact)), []).append((share, artifact))
    return [sentence for rounds in families.values() for sentence in _lost_with_zeros(rows, sorted(rounds))]


def _lost_with_zeros(rows: Sequence[Row], rounds: Sequence[tuple[float, str]]) -> list[str]:
    """From which share of zeros on each probe's loss is sure; `rounds` are shares and artifacts, fewest zeros first.

    That is no order of the losses: a probe of few test examples may lose more, unseen.
    """
    names = {artifact for _, artifact in rounds}
    of_rounds = [r["context"] for r in rows if r["name"] == "probe_accuracy" and r["context"]["artifact"] in names]
    probes = list(dict.fromkeys(context["probe"] for context in of_rounds))
    if len(rounds) < 2 or not probes:
        return []
    lost = [{row["context"]["probe"] for row in lost_probes(rows, artifact)} for _, artifact in rounds]
    since = {
        probe: next((n for n in range(len(rounds)) if all(probe in one for one in lost[n:])), None) for probe in probes
    }
    groups = [
        f"{', '.join(probe for probe in probes if since[probe] == n)} from {share:.0%} on"
        for n, (share, _) in enumerate(rounds)
        if n in since.values()
    ]
    kept = [probe for probe in probes if since[probe] is None]
    parts = [f"losses beyond their interval, with more zeros too: {', then '.join(groups)}"] if groups else []
    parts += [f"no lasting loss beyond its interval: {', '.join(kept)}"] if kept else []
    shares = ", ".join(f"{share:.0%}" for share, _ in rounds)
    return [f"As zeros grow ({shares} of the blocks): {'; '.join(parts)}. More test examples show smaller losses."]


def _by_tenths(rows: Sequence[Row], artifact: str, name: str) -> list[Row]:
    """Rows of one measure that say what the number is without each tenth of the text; older ones did not."""
    return [row for row in at_same_depth(rows, artifact, name).values() if "without" in row["context"]]


def _similarity_words(layers: Sequence[Row]) -> list[str]:
    if not layers:
        return []
    lowest, *others = least(layers)
    if len(layers) > 1 and len(others) == len(layers) - 1:
        return [f"all layers are about as much like the reference's (lowest linear CKA {lowest['value']:.3f})"]
    return [f"least like the reference in {_alike(lowest, others)}: linear CKA {_value(lowest)}"]


def _alike(lowest: Row, others: Sequence[Row]) -> str:
    """The layer that has the lowest value, and those that may."""
    name = _layer_name(lowest["context"]["layer"])
    more = ", ".join(str(row["context"]["layer"]) for row in others)
    return f"{name} (or {more}: not told apart)" if more else name


def _value(row: Row) -> str:
    return f"{row['value']:.3f} ({row['context']['low']:.3f} to {row['context']['high']:.3f})"


def _layer_name(layer: int) -> str:
    return f"layer {layer}" if layer else "the embeddings"


def _component_words(layers: Sequence[Row]) -> list[str]:
    changed = clearly_changed(layers)
    if not changed:
        return ["no layer uses clearly more or fewer components"] if layers else []
    row = max(changed, key=lambda one: abs(one["context"]["change"]))
    layer, change = row["context"]["layer"], row["context"]["change"]
    return [
        (
            f"{_layer_name(layer)} {'uses' if layer else 'use'} {abs(change):.0f} {'fewer' if change < 0 else 'more'} "
            f"components for 99 % of the variance ({row['value']:.0f} of {row['context']['against_value']:.0f})"
        )
    ]


def _attention_words(blocks: Sequence[Row]) -> list[str]:
    if not blocks:
        return []
    if len(blocks) == 1:
        return [
            f"heads can be compared in {_layer_name(blocks[0]['context']['layer'])} alone: maxcorr {_value(blocks[0])}"
        ]
    lowest, *others = least(blocks)
    if len(others) == len(blocks) - 1:
        return [f"attention changed about as much in every layer (heads' lowest maxcorr {lowest['value']:.3f})"]
    return [f"attention changed most in {_alike(lowest, others)}: heads' maxcorr {_value(lowest)}"]


def _degenerate_words(blocks: Sequence[Row]) -> list[str]:
    """Where more heads than before look at the same whichever word looks, or fewer."""
    changed = [row for row in blocks if row["value"] != row["context"]["against_value"]]
    parts = [
        f"{row['value']:.0f} in layer {row['context']['layer']} (of the reference's "
        f"{row['context']['against_value']:.0f})"
        for row in changed
    ]
    return [f"heads that look at the same whichever word looks: {', '.join(parts)}"] if parts else []


def pruned_shares(rows: Sequence[Row], artifact: str) -> dict[tuple[int, str], tuple[int, int]]:
    """Of each block's matrices by layer and kind how many weights were pruned, of how many; empty if none was."""
    return _pruned([row["context"] for row in _zeros_of(rows, artifact) if is_matrix(row)], "layer", "matrix")


def _zeros_of(rows: Sequence[Row], artifact: str) -> list[Row]:
    return [row for row in rows if row["name"] == "zero_share" and row["context"]["artifact"] == artifact]


def _pruned(tensors: Sequence[Row], *by: str) -> dict[Any, tuple[int, int]]:
    """How many weights of tensors were pruned, of how many, by what these have under some names; empty if none was."""
    zeros: dict[Any, tuple[int, int]] = {}
    for one in tensors:
        place = tuple(one[name] for name in by)
        pruned, size = zeros.get(place, (0, 0))
        zeros[place] = (pruned + one["pruned"], size + one["size"])
    return zeros if any(pruned for pruned, _ in zeros.values()) else {}


def _zero_words(rows: Sequence[Row], artifact: str) -> list[str]:
    shares = {place: pruned / size for place, (pruned, size) in pruned_shares(rows, artifact).items()}
    if not shares:
        return []
    most, least = max(shares, key=lambda place: shares[place]), min(shares, key=lambda place: shares[place])
    return [
        (
            f"of matrices most was pruned in {most[1]} of layer {most[0]} ({shares[most]:.0%}), "
            f"least in {least[1]} of layer {least[0]} ({shares[least]:.0%})"
        ),
        *_bias_words(rows, artifact),
    ]


def _bias_words(rows: Sequence[Row], artifact: str) -> list[str]:
    """Of which kind most biases of the blocks were pruned, if any were."""
    tensors = [row["context"] for row in _zeros_of(rows, artifact)]
    biases = [one for one in tensors if one["is_bias"] and one["layer"] and one["matrix"] != "norm"]
    shares = {kind: pruned / size for (kind,), (pruned, size) in _pruned(biases, "matrix").items()}
    if not shares:
        return []
    most, least = max(shares, key=lambda kind: shares[kind]), min(shares, key=lambda kind: shares[kind])
    return [f"of biases most in {most} ({shares[most]:.0%}), least in {least} ({shares[least]:.0%})"]


def _probe_words(rows: Sequence[Row], artifact: str) -> list[str]:
    if not any(row["name"] == "probe_accuracy" and row["context"]["artifact"] == artifact for row in rows):
        return []
    lost = lost_probes(rows, artifact)
    if not lost:
        return ["no probe finds clearly less than in the reference"]
    shown = [
        f"{row['context']['probe']} {100 * row['context']['change']:+.1f} points in "
        f"{_layer_name(row['context']['layer'])} ({100 * row['context']['change_low']:+.1f} to "
        f"{100 * row['context']['change_high']:+.1f})"
        for row in lost[:_MOST_PROBES]
    ]
    return [f"probes find less, corrected for the number of looks: {', '.join(shown)}"]


def dissection_table(rows: Sequence[Row]) -> list[str]:
    """Lines for a terminal: of each artifact a line a layer, then what was found."""
    lines = []
    for part in ("", *PARTS):
        own = rows_of_part(rows, part)
        lines += [*([f"The {part}:"] if part and own else []), *_table_of(own)]
    return lines


def _table_of(rows: Sequence[Row]) -> list[str]:
    """The lines about one part; of cross-attention, which has no hidden states, only what was found."""
    lines = []
    for artifact in artifacts_of(rows):
        measures = {name: at_same_depth(rows, artifact, name) for name, _, _ in _COLUMNS}
        if not measures["linear_cka"]:
            continue
        context = next(iter(measures["linear_cka"].values()))["context"]
        lines.append(f"{artifact} against {context['against']}, {context['words']:,} words of {context['text']}")
        lines.append("layer " + " ".join(f"{short:>8}" for _, short, _ in _COLUMNS))
        for layer in measures["linear_cka"]:
            cells = [
                f"{found[layer]['value']:8.{digits}f}" if layer in (found := measures[name]) else " " * 8
                for name, _, digits in _COLUMNS
            ]
            lines.append(f"{layer:5} {' '.join(cells)}".rstrip())
        lines += [*_probe_lines(rows, artifact), ""]
    return [*lines, *findings(rows)]


def _probe_lines(rows: Sequence[Row], artifact: str) -> list[str]:
    """A line for each probe: accuracy of each layer, and its change against the reference in points."""
    probes: dict[str, list[Row]] = {}
    for row in rows:
        if row["name"] == "probe_accuracy" and row["context"]["artifact"] == artifact:
            probes.setdefault(row["context"]["probe"], []).append(row)
    return [
        f"{name:22} " + " ".join(f"{row['value']:.3f}({100 * row['context']['change']:+.1f})" for row in own)
        for name, own in probes.items()
    ]
