"""One self-contained page: data, and a script of our own that draws it. It asks for nothing, and works from a file.

Texts reach the script as JSON and the page as text nodes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from multipress.analysis.verdict import verdict
from multipress.report.controls import explore_section
from multipress.report.dissection import dissection_parts
from multipress.report.document import document
from multipress.report.figure import MARKERS, keys_of
from multipress.report.page_data import data_json, page_data
from multipress.report.rounds import rounds_section
from multipress.report.sections import budgets_section, cells_section, failed_section, origin_section
from multipress.report.statistics import effects_section, products_section, shares_section
from multipress.report.table import cells_csv
from multipress.report.text import escaped

__all__ = ["report_page"]

_STYLES = ("figure.css", "page.css")
_DISSECTION_STYLE = "dissection.css"  # before the page's own, which has the last word
_SCRIPTS = ("page_toolkit.js", "page_frontier.js", "page_effects.js", "page_tables.js")


def report_page(
    analysis: Mapping[str, Any],
    studies: Mapping[str, Any],
    origin: Mapping[str, Sequence[Mapping[str, Any]]],
    command: str,
    made: Mapping[str, Mapping[str, Any]] | None = None,
    dissections: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The whole page as HTML; the same input gives the same text.

    Args:
        analysis: What `analyze_cells` gave.
        studies: Documents of the studies by name (`Store.studies`).
        origin: What `provenance` gave.
        command: The command that made the page.
        made: By run id, `command` (which makes its artifact again) and `parts` (rows of `measure.group_sizes`).
        dissections: What `read_dissections` gave: rows by the artifact that they were compared with.
    """
    styles = (_STYLES[0], *([_DISSECTION_STYLE] if dissections or analysis["rounds"] else []), *_STYLES[1:])
    title = f"multipress: {', '.join(studies) or 'runs'}"
    key = keys_of(analysis["groups"])
    data = page_data(analysis, key, made or {})
    sections = [
        budgets_section(data),
        explore_section(data, key),
        cells_section(analysis),
        rounds_section(analysis["rounds"]),
        effects_section(analysis),
        products_section(analysis),
        shares_section(analysis),
        *dissection_parts(dissections or {}),
        failed_section(analysis),
        origin_section(studies, origin, command),
    ]
    documents = {"data": data_json(data), "shapes": json.dumps(MARKERS), "csv": data_json(cells_csv(analysis["cells"]))}
    inside = "".join(
        f'<script type="application/json" id="{name}">{text}</script>\n' for name, text in documents.items()
    )
    body = (
        '<a class="skip" href="#cells">To the table of all cells</a>\n'
        f"<header><h1>{escaped(title)}</h1>{_summary(analysis)}</header><main>{''.join(sections)}</main>\n"
        f'<div id="live" class="unseen" aria-live="polite"></div>\n{inside}'
    )
    return document(title, body, styles, _SCRIPTS)


def _summary(analysis: Mapping[str, Any]) -> str:
    cells, groups = analysis["cells"], analysis["groups"]
    counts = {
        "model": len({group["model"] for group in groups}),
        "task": len({group["task"] for group in groups}),
        "combination": len({group["label"] for group in groups}),
        "seed": len({cell["seed"] for cell in cells}),
    }
    is_whole = math.prod(counts.values()) == len(cells)  # not all seeds everywhere, else
    grid = (" × " if is_whole else ", ").join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items())
    done = sum(cell["state"] == "done" for cell in cells)
    failed = len(analysis["failed"])
    waiting = len(cells) - done - failed
    state = f"{done} of {len(cells)} cells are done"
    state += f", <strong>{failed} failed</strong>" if failed else ""
    state += f", {waiting} waiting" if waiting else ""
    items = "".join(f"<li>{escaped(sentence)}</li>" for sentence in verdict(analysis))
    notes = "".join(f'<p class="note">{escaped(note)}</p>' for note in analysis["notes"])
    return f'<p class="grid-size">{grid}: {state}.</p><ul class="verdict">{items}</ul>{notes}'
