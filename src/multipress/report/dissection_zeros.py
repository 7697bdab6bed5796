"""Where pruned weights sat: by kind of matrix or bias, and by layer."""

from __future__ import annotations

from collections.abc import Sequence

from multipress.report.dissection_tables import note_html, shaded, shaded_table, table_line
from multipress.report.dissection_words import Row, is_matrix
from multipress.report.text import NONE, escaped

__all__ = ["zeros_by_kind", "zeros_section"]

_NOTE = "Share of the weights that are zero as stored: pruned, or rounded to zero. Darker is more."
_KIND_NOTE = "All layers together. The softmax does not see a bias of keys, so that it can go without any loss."


def zeros_section(rows: Sequence[Row], artifacts: Sequence[str]) -> str:
    """By kind for all artifacts, then by layer and matrix for each that has zeros; empty where none has."""
    parts = [part for artifact in artifacts if (part := _by_layer(rows, artifact))]
    found = {artifact: zeros_by_kind(rows, artifact) for artifact in artifacts}
    if not any(share for own in found.values() for share in own.values()):
        return ""
    kinds = list(dict.fromkeys(kind for own in found.values() for kind in own))
    lines = [table_line(kind, [_cell(own.get(kind)) for own in found.values()]) for kind in kinds]
    by_kind = f"<h3>By kind</h3>{note_html(_KIND_NOTE)}{shaded_table(['kind', *artifacts], lines)}"
    return f"<section><h2>Where the zeros are</h2>{note_html(_NOTE)}{by_kind}{''.join(parts)}</section>"


def zeros_by_kind(rows: Sequence[Row], artifact: str) -> dict[str, float]:
    """Of each kind of matrix or bias in the blocks the share that is zero; a translator's encoder and decoder apart."""
    own = [r["context"] for r in rows if r["name"] == "zero_share" and r["context"]["artifact"] == artifact]
    inside = [one for one in own if one["layer"] and one["matrix"] != "norm"]
    has_decoder = any(".decoder." in one["tensor"] for one in inside)
    sums: dict[str, tuple[int, int]] = {}
    for one in sorted(inside, key=lambda one: one["is_bias"]):
        kind = f"{one['matrix']}{' bias' if one['is_bias'] else ''}"
        if has_decoder and not kind.startswith("cross"):
            kind = f"{'decoder' if '.decoder.' in one['tensor'] else 'encoder'} {kind}"
        zeros, size = sums.get(kind, (0, 0))
        sums[kind] = (zeros + one["zeros"], size + one["size"])
    return {kind: zeros / size for kind, (zeros, size) in sums.items() if size}


def _by_layer(rows: Sequence[Row], artifact: str) -> str:
    shares: dict[tuple[int, str], float] = {}
    for row in rows:
        context = row["context"]
        if row["name"] == "zero_share" and context["artifact"] == artifact and is_matrix(row):
            shares[context["layer"], context["matrix"]] = row["value"]
    if not any(shares.values()):
        return ""
    layers, matrices = sorted({place[0] for place in shares}), list(dict.fromkeys(place[1] for place in shares))
    lines = [table_line(matrix, [_cell(shares.get((layer, matrix))) for layer in layers]) for matrix in matrices]
    return f"<h3>{escaped(artifact)}</h3>{shaded_table(['layer', *map(str, layers)], lines)}"


def _cell(share: float | None) -> str:
    return f"<td>{NONE}</td>" if share is None else shaded(share, 0, 1, 2)
