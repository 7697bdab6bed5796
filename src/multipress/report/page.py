"""One self-contained static page: data, not code. It asks for nothing, and works from a file.

The content security policy lets only the page's own style and its one script run, by their hashes: a text
that got past the escaping would still do nothing. CSS alone switches charts; the script sorts tables.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from multipress.analysis.verdict import verdict
from multipress.report.figure import (
    HEIGHT,
    NUM_CLASSES,
    WIDTH,
    Key,
    keys_of,
    marker,
    panel_svg,
    points_of,
)
from multipress.report.sections import (
    cells_section,
    effects_section,
    failed_section,
    origin_section,
    products_section,
)
from multipress.report.text import escaped

__all__ = ["report_page"]

_CHART_NOTE = (
    "Up and to the left is better. The dashed line joins cells that nothing beats in both. A fainter "
    "fill is a weaker level of the same methods; a thin bar runs from the worst to the best seed. Point "
    "at a mark for its numbers; select a name above to hide or show it."
)
_SIZES = (("weights_bytes", "real", "Real bytes"), ("ideal_bytes", "ideal", "Ideal MB"))


def report_page(
    analysis: Mapping[str, Any],
    studies: Mapping[str, Any],
    origin: Mapping[str, Sequence[Mapping[str, Any]]],
    command: str,
) -> str:
    """The whole page as HTML; the same input gives the same text.

    Args:
        analysis: What `analyze_cells` gave.
        studies: Documents of the studies by name (`Store.studies`).
        origin: What `provenance` gave.
        command: The command that made the page.
    """
    style, script = _read("figure.css") + _read("page.css") + _filters(), _read("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    title = escaped(f"multipress: {', '.join(studies) or 'runs'}")
    body = [
        f"<header><h1>{title}</h1>{_summary(analysis)}</header><main>",
        _charts(analysis),
        cells_section(analysis),
        effects_section(analysis),
        products_section(analysis),
        failed_section(analysis),
        origin_section(studies, origin, command),
        "</main>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n'
        f"{''.join(body)}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _read(name: str) -> str:
    return resources.files("multipress.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _filters() -> str:
    """Rules that hide a method set or a model whose box in the legend is not checked."""
    rules = [
        f"main:has(#{kind}{i}:not(:checked)) .figure .{kind}{i} {{ display: none; }}\n"
        for kind in "sm"
        for i in range(NUM_CLASSES)
    ]
    return "".join(rules)


def _summary(analysis: Mapping[str, Any]) -> str:
    cells, groups = analysis["cells"], analysis["groups"]
    counts = {
        "model": len({group["model"] for group in groups}),
        "task": len({group["task"] for group in groups}),
        "combination": len({group["label"] for group in groups}),
        "seed": len({cell["seed"] for cell in cells}),
    }
    grid = " × ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items())
    done = sum(cell["state"] == "done" for cell in cells)
    failed = len(analysis["failed"])
    waiting = len(cells) - done - failed
    state = f"{done} of {len(cells)} cells are done"
    state += f", <strong>{failed} failed</strong>" if failed else ""
    state += f", {waiting} waiting" if waiting else ""
    sentences = "".join(f"<p>{escaped(sentence)}</p>" for sentence in verdict(analysis))
    return f'<p class="grid-size">{grid}: {state}.</p><div class="verdict">{sentences}</div>'


def _charts(analysis: Mapping[str, Any]) -> str:
    key = keys_of(analysis["groups"])
    tasks = dict.fromkeys(group["task"] for group in analysis["groups"])
    switches = "".join(
        f'<label><input type="radio" name="size" id="show-{short}"{checked}> {name}</label>'
        for checked, (_, short, name) in zip((" checked", ""), _SIZES, strict=True)
    )
    panels = []
    for size, short, _ in _SIZES:
        points = points_of(analysis, key, size)
        for task in tasks:
            own = [point for point in points if point.task == task]
            label = escaped(f"{task}: score against size")
            panels.append(
                f'<svg class="figure by-{short}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
                f'aria-label="{label}">{panel_svg(own, task, size)}</svg>'
            )
    return (
        '<section><h2>Score against size</h2><div class="controls">'
        f'<fieldset class="switch">{switches}</fieldset>{_legend(key)}</div>'
        f'<div class="panels">{"".join(panels)}</div><p class="note">{_CHART_NOTE}</p></section>'
    )


def _legend(key: Key) -> str:
    """Boxes that show or hide a method set or a model; two that share a class share the box."""
    methods: dict[int, list[str]] = {}
    for subset, name in key.names.items():
        methods.setdefault(key.colors[subset], []).append(name)
    models: dict[int, list[str]] = {}
    for i, name in enumerate(key.models):
        models.setdefault(i % NUM_CLASSES, []).append(name)
    marks = {f"m{i}": (marker(i, 0), names) for i, names in models.items()}
    boxes = [_box(box, *one) for box, one in marks.items()]
    sets = [_box(f"s{i}", marker(0, i), names) for i, names in methods.items()]
    return (
        f'<fieldset class="legend"><legend>Models</legend>{"".join(boxes)}</fieldset>'
        f'<fieldset class="legend"><legend>Methods</legend>{"".join(sets)}</fieldset>'
    )


def _box(box: str, mark: str, names: Sequence[str]) -> str:
    return (
        f'<label><input type="checkbox" id="{box}" checked>'
        f'<svg class="figure" viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true">{mark}</svg>'
        f"{escaped(', '.join(names))}</label>"
    )
