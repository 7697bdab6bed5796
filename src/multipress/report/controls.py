"""The chart's frame: what can be switched and asked for, and the place where the answer stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multipress.report.figure import NUM_CLASSES, Key, marker
from multipress.report.text import escaped

__all__ = ["explore_section", "option", "radios"]

_COSTS = {"weights": "Real bytes", "ideal": "Ideal size", "package": "Package", "ms": "Latency"}
_WISHES = {"score": "best score", "size": "fewest bytes", "ms": "fastest"}
_NOTE = (
    "Up and to the left is better. The stepped line joins what nothing beats in both; bars are {level:g} % intervals "
    "of the score over rows and seeds. Point at a mark, or reach the chart with the Tab key and move with the arrow "
    "keys; Enter or a click chooses a mark. The table of all cells below has the numbers of every run;"
    " means over tasks are made of them. A command makes the first seed's model."
)


def explore_section(data: Mapping[str, Any], key: Key) -> str:
    """Filters, budgets, the chart, and the winner.

    Args:
        data: What `page_data` gave.
        key: The models and method sets of the figure.
    """
    timed = any(point["ms"] for point in data["points"])
    tasks = "".join(option(task, task) for task in data["tasks"])
    costs = radios("cost", {name: text for name, text in _COSTS.items() if name != "ms" or timed})
    wishes = radios("wish", {name: text for name, text in _WISHES.items() if name != "ms" or timed})
    sliders = [
        _slider("mb", "Size", 1000),
        _slider("ms", "Latency", 1000) if timed else "",
        _slider("score", "Score", 0),
    ]
    timing = f" Latency: {escaped(data['timing'])}." if timed else ""
    return (
        '<section id="explore"><h2>Score against size</h2><div class="controls">'
        f'<label class="field">Task <select id="task">{tasks}</select></label>'
        f'<fieldset class="switch"><legend>Horizontal</legend>{costs}</fieldset>'
        '<label class="switch"><input type="checkbox" id="log" checked> Log axis</label></div>'
        f'{_legend(data, key)}<div class="explore"><div class="frame">'
        '<div id="chart" class="chart" tabindex="0" role="img" aria-label="Score against size"></div>'
        '<div id="tip" class="tip" hidden></div>'
        f'<p class="note">{_NOTE.format(level=100 * data["level"])}{timing}</p></div>'
        '<aside><fieldset class="budgets"><legend>What must it fit?</legend>'
        f'{"".join(sliders)}<div class="wishes">Prefer {wishes}</div><p id="fitting" class="note"></p></fieldset>'
        '<div id="chosen" class="chosen-box"></div>'
        '<button type="button" id="back" class="small" hidden>Back to the winner</button></aside></div>'
        '<noscript><p class="note">The chart needs the script of this page; the tables below do not.</p></noscript>'
        "</section>"
    )


def option(value: str, text: str) -> str:
    """One choice of a select."""
    return f'<option value="{escaped(value)}">{escaped(text)}</option>'


def radios(name: str, choices: Mapping[str, str]) -> str:
    """Radio buttons, the first one chosen."""
    return "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{"" if i else " checked"}> {text}</label>'
        for i, (value, text) in enumerate(choices.items())
    )


def _slider(name: str, title: str, start: int) -> str:
    return (
        f'<label class="slider" for="max-{name}"><span>{title} '
        f'<output id="said-{name}" for="max-{name}"></output></span>'
        f'<input type="range" id="max-{name}" min="0" max="1000" value="{start}"></label>'
    )


def _legend(data: Mapping[str, Any], key: Key) -> str:
    """Boxes that show or hide a model or a set of methods."""
    models = [_box("model", i, marker(i % NUM_CLASSES, 0), name) for i, name in enumerate(key.models)]
    sets = [_box("set", i, marker(0, one["color"]), one["name"]) for i, one in enumerate(data["sets"])]
    every = '<button type="button" class="small" data-all>all / none</button>'
    return (
        f'<fieldset class="legend"><legend>Models</legend>{"".join(models)}{every}</fieldset>'
        f'<fieldset class="legend"><legend>Methods</legend>{"".join(sets)}{every}</fieldset>'
    )


def _box(kind: str, number: int, mark: str, name: str) -> str:
    return (
        f'<label><input type="checkbox" data-{kind}="{number}" checked>'
        f'<svg class="figure" viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true">{mark}</svg>'
        f"{escaped(name)}</label>"
    )
