"""A dissection as HTML: what was found in words, heat maps, lines with intervals, which head matches which.

`dissection_parts` gives them for the page of a study, `dissection_page` is a page of its own: data, not code. Every
text from outside goes through `escaped`; colors are classes, because a page's policy lets no inline style run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from multipress.report.dissection_lines import Series, legend_html, lines_figure, lines_svg
from multipress.report.dissection_tables import note_html, shaded, shaded_table, table_line
from multipress.report.dissection_words import (
    PARTS,
    Row,
    artifacts_of,
    at_same_depth,
    findings,
    rows_of_part,
)
from multipress.report.dissection_zeros import zeros_section
from multipress.report.document import document
from multipress.report.text import NONE, escaped

__all__ = ["dissection_figure", "dissection_page", "dissection_parts", "dissection_sections"]

_STYLES = ("figure.css", "dissection.css")
_HEATS = (
    ("linear_cka", "Hidden states: linear CKA with the reference's layer of the same depth", 3),
    ("pwcca", "Hidden states: PWCCA", 3),
    ("attention_maxcorr", "Attention: mean best correlation of the reference's heads", 3),
    ("attention_same_index", "Attention: share of the heads whose match has the same number", 2),
)
_LINES = (
    ("linear_cka", "linear CKA"),
    ("regression", "variance of the reference that is predicted"),
    ("maxcorr", "mean best correlation of a neuron"),
)
_CHANGES = (
    ("pca_components", "components with 99 % of the variance"),
    ("participation_ratio", "participation ratio"),
    ("intrinsic_dimension", "intrinsic dimension"),
    ("neurons_same_index_in_last", "neurons that keep their number to the end"),
    ("attention_entropy", "entropy of attention, bits"),
    ("attention_distance", "distance of attention, words"),
    ("attention_degenerate", "degenerate heads"),
)
_FIRST_NOTE = (
    "What an interval over the text supports, and no more: other text, not other trainings. One model is one seed; "
    "what another seed would give is not known from this."
)
_PART_NOTES = {
    "decoder": "While it reads the translation word for word. What it gives in a place belongs to the word read there.",
    "cross-attention": "From each word of the translation to the words of the text.",
}
_HEAT_NOTE = "Darker is less like the reference. Layer 0 is the embeddings. Point at a cell for its 95 % interval."
_LINES_NOTE = "Bars are 95 % intervals, from leaving out a tenth of the text at a time."
_CHANGES_NOTE = "What each layer has more (above 0) or less than the reference's; bars are 95 % intervals."
_HEADS_NOTE = (
    "For each head of the reference, the head of the artifact whose maps correlate best, and how well; underlined "
    "where it has another number. Heads that look at the same whichever word looks are left out."
)
_FOUND_NOTE = (
    "MinCorr: how well each neuron of the reference is found in the artifact that has it least, mean over neurons. "
    "Darker is less."
)
_PROBES_NOTE = (
    "Accuracy of a linear classifier on each frozen layer; below it the change against the reference in points, bold "
    "where its 95 % interval, over test texts and trainings of the classifier, leaves out zero (of many looked at, one "
    "in twenty is bold by chance), then selectivity: how much less the classifier finds of labels drawn at random for "
    "each kind of word."
)


def dissection_sections(rows: Sequence[Row]) -> list[str]:
    """Parts of a page, in order; those without rows are left out.

    Args:
        rows: What `multipress dissect --json` printed.
    """
    read = rows_of_part(rows)
    parts = [_found(read, "What differs", _FIRST_NOTE), *_sections_of(read)]
    for part in PARTS:
        own = rows_of_part(rows, part)
        if own:
            parts += [_found(own, f"The {part}", _PART_NOTES[part]), *_sections_of(own, f": {part}")]
    return parts


def _found(rows: Sequence[Row], title: str, note: str) -> str:
    sentences = "".join(f'<p class="found">{escaped(sentence)}</p>' for sentence in findings(rows))
    return f"<section><h2>{escaped(title)}</h2>{sentences}{note_html(note)}</section>"


def _sections_of(rows: Sequence[Row], of: str = "") -> list[str]:
    """Sections about one part, which `of` names behind their titles."""
    artifacts, parts = artifacts_of(rows), []
    heats = "".join(_heat(rows, artifacts, *one) for one in _HEATS)
    if heats:
        parts.append(f"<section><h2>Layer by layer{escaped(of)}</h2>{note_html(_HEAT_NOTE)}{heats}</section>")
    parts.append(_lines(rows, artifacts, f"Likeness, with intervals{of}", _LINES, _LINES_NOTE, change=False))
    parts.append(_lines(rows, artifacts, f"How much each layer uses{of}", _CHANGES, _CHANGES_NOTE, change=True))
    parts += [
        _across(rows, artifacts, of),
        _found_in_all(rows, of),
        _heads(rows, artifacts, of),
        zeros_section(rows, artifacts),
        _probes(rows, artifacts),
    ]
    return [part for part in parts if part]


def dissection_parts(dissections: Mapping[str, Sequence[Row]]) -> list[str]:
    """Parts for the page of a study: for each artifact that others were compared with, a heading and its sections.

    Args:
        dissections: Rows by the name of that artifact (`read_dissections`).
    """
    parts = []
    for against, rows in dissections.items():
        title = f"<h2>Inside: what compression changed in {escaped(against)}</h2>"
        names = ", ".join(artifacts_of(rows))
        parts.append(f"<section>{title}{note_html(escaped(f'By multipress dissect, of {names}.'))}</section>")
        parts += dissection_sections(rows)
    return parts


def dissection_page(rows: Sequence[Row], command: str) -> str:
    """One self-contained page; the same rows give the same text.

    Args:
        rows: What `multipress dissect --json` printed.
        command: The command that made it.
    """
    against = next((row["context"]["against"] for row in rows if "against" in row["context"]), "")
    origin = f"<section><h2>How it was made</h2><pre>{escaped(command)}</pre></section>"
    body = (
        f"<header><h1>What compression changed inside</h1><p>Against {escaped(against)}.</p></header>\n"
        f"<main>{''.join(dissection_sections(rows))}{origin}</main>"
    )
    return document("multipress: dissection", body, _STYLES)


def _interval(context: Mapping[str, float], prefix: str = "", digits: int = 3) -> str:
    return f"{context[f'{prefix}low']:.{digits}f} to {context[f'{prefix}high']:.{digits}f}"


def _heat(rows: Sequence[Row], artifacts: Sequence[str], name: str, title: str, digits: int) -> str:
    """Layer by artifact."""
    found = {artifact: at_same_depth(rows, artifact, name) for artifact in artifacts}
    layers = sorted({layer for own in found.values() for layer in own})
    if not layers:
        return ""
    values = [row["value"] for own in found.values() for row in own.values()]
    lines = []
    for artifact, own in found.items():
        cells = [
            shaded(row["value"], max(values), min(values), digits, _interval(row["context"]))
            if (row := own.get(layer)) is not None
            else f"<td>{NONE}</td>"
            for layer in layers
        ]
        lines.append(table_line(artifact, cells))
    return f"<h3>{escaped(title)}</h3>{shaded_table(['layer', *map(str, layers)], lines)}"


def _lines(
    rows: Sequence[Row],
    artifacts: Sequence[str],
    title: str,
    measures: Sequence[tuple[str, str]],
    note: str,
    *,
    change: bool,
) -> str:
    """A panel of lines for each measure: its value, or its change against the reference."""
    drawn = _panels(rows, artifacts, measures, change=change)
    panels = [lines_svg(series, words) for words, series in drawn]
    if not panels:
        return ""
    return (
        f"<section><h2>{escaped(title)}</h2>{note_html(note)}{legend_html(artifacts)}"
        f'<div class="panels">{"".join(panels)}</div></section>'
    )


def _panels(
    rows: Sequence[Row], artifacts: Sequence[str], measures: Sequence[tuple[str, str]], *, change: bool
) -> list[tuple[str, list[Series]]]:
    """Title and lines of each measure that has rows."""
    key, prefix = ("change", "change_") if change else ("value", "")
    panels = []
    for name, words in measures:
        series = []
        for number, artifact in enumerate(artifacts):
            points = []
            for layer, row in at_same_depth(rows, artifact, name).items():
                context = row["context"]
                value = context[key] if change else row["value"]
                points.append((layer, value, context[f"{prefix}low"], context[f"{prefix}high"]))
            series.append(Series(artifact, number, points))
        if any(one.points for one in series):
            panels.append((f"{words}: change" if change else words, series))
    return panels


def dissection_figure(rows: Sequence[Row]) -> str:
    """The lines with intervals of what reads the text, as one SVG file.

    Args:
        rows: What `multipress dissect --json` printed.
    """
    rows = rows_of_part(rows)
    artifacts = artifacts_of(rows)
    likeness = _panels(rows, artifacts, (_LINES[0], _LINES[2]), change=False)
    changes = [one for one in _CHANGES if one[0] in ("pca_components", "attention_entropy")]
    return lines_figure([*likeness, *_panels(rows, artifacts, changes, change=True)])


def _across(rows: Sequence[Row], artifacts: Sequence[str], of: str) -> str:
    """For each artifact linear CKA of all its layers with all of the reference's."""
    parts = []
    for artifact in artifacts:
        found = {
            (row["context"]["layer"], row["context"]["against_layer"]): row["value"]
            for row in rows
            if row["name"] == "linear_cka" and row["context"]["artifact"] == artifact
        }
        if not found:
            continue
        layers, others = sorted({pair[0] for pair in found}), sorted({pair[1] for pair in found})
        low, high = min(found.values()), max(found.values())
        lines = []
        for layer in layers:
            values = [found.get((layer, other)) for other in others]
            cells = [f"<td>{NONE}</td>" if value is None else shaded(value, low, high, 2) for value in values]
            lines.append(table_line(f"layer {layer}", cells))
        parts.append(f"<h3>{escaped(artifact)}</h3>{shaded_table(['with layer', *map(str, others)], lines)}")
    if not parts:
        return ""
    note = note_html(
        "Linear CKA of every layer (down) with every layer of the reference (across). Darker is more alike."
    )
    return f"<section><h2>Across layers{escaped(of)}</h2>{note}{''.join(parts)}</section>"


def _found_in_all(rows: Sequence[Row], of: str) -> str:
    """MinCorr by layer, where several artifacts were compared."""
    own = [row for row in rows if row["name"] == "mincorr"]
    if not own:
        return ""
    values = [row["value"] for row in own]
    cells = [shaded(value, max(values), min(values), 3) for value in values]
    table = shaded_table(["layer", *(str(row["context"]["layer"]) for row in own)], [table_line("mincorr", cells)])
    note = note_html(escaped(f"{_FOUND_NOTE} Of {own[0]['context']['artifact']}."))
    return f"<section><h2>Neurons that all have{escaped(of)}</h2>{note}{table}</section>"


def _heads(rows: Sequence[Row], artifacts: Sequence[str], of: str) -> str:
    parts = []
    for artifact in artifacts:
        blocks: dict[int, dict[int, Row]] = {}
        for row in rows:
            if row["name"] == "attention_head_match" and row["context"]["artifact"] == artifact:
                blocks.setdefault(row["context"]["layer"], {})[row["context"]["head"]] = row
        if not blocks:
            continue
        heads = sorted({head for own in blocks.values() for head in own})
        lines = [
            table_line(f"layer {block}", [_head(own.get(head)) for head in heads]) for block, own in blocks.items()
        ]
        parts.append(f"<h3>{escaped(artifact)}</h3>{shaded_table(['head', *map(str, heads)], lines)}")
    if not parts:
        return ""
    return f"<section><h2>Which head matches which{escaped(of)}</h2>{note_html(_HEADS_NOTE)}{''.join(parts)}</section>"


def _head(row: Row | None) -> str:
    if row is None:
        return f"<td>{NONE}</td>"
    context = row["context"]
    kind = "" if context["match"] == context["head"] else ' class="other"'
    return f"<td{kind}>{context['match']} <small>{row['value']:.2f}</small></td>"


def _probes(rows: Sequence[Row], artifacts: Sequence[str]) -> str:
    by_artifact: dict[str, dict[str, dict[int, Row]]] = {}
    selective: dict[tuple[str, str, int], float] = {}
    for row in rows:
        context = row["context"]
        if row["name"] == "probe_accuracy":
            own = by_artifact.setdefault(context["artifact"], {}).setdefault(context["probe"], {})
            own[context["layer"]] = row
        elif row["name"] == "probe_selectivity":
            selective[context["artifact"], context["probe"], context["layer"]] = row["value"]
    parts = []
    for artifact in filter(by_artifact.__contains__, artifacts):
        tasks = by_artifact[artifact]
        layers = sorted({layer for own in tasks.values() for layer in own})
        own_selective = {place[1:]: value for place, value in selective.items() if place[0] == artifact}
        lines = list(_probe_lines(tasks, layers, own_selective))
        parts.append(f"<h3>{escaped(artifact)}</h3>{shaded_table(['probe', *map(str, layers)], lines)}")
    if not parts:
        return ""
    return f"<section><h2>What probes find</h2>{note_html(_PROBES_NOTE)}{''.join(parts)}</section>"


def _probe_lines(
    tasks: Mapping[str, Mapping[int, Row]], layers: Sequence[int], selective: Mapping[tuple[str, int], float]
) -> Iterator[str]:
    show: Callable[[Row], str] = lambda row: f"{row['value']:.3f}"
    for name, own in tasks.items():
        cells = []
        for layer in layers:
            context = own[layer]["context"]
            sure = context["change_low"] > 0 or context["change_high"] < 0
            kind = ' class="sure"' if sure else ""
            title = escaped(f"change {_interval(context, 'change_', 4)}; accuracy {_interval(context)}")
            change = f"{100 * context['change']:+.1f}"
            if (name, layer) in selective:
                change += f", {selective[name, layer]:.2f}"
            cells.append(f'<td{kind} title="{title}">{show(own[layer])}<br><small>{change}</small></td>')
        yield table_line(name, cells)
