"""Score against size as SVG: color says which methods, shape which model; a line joins the frontier.

Colors are classes (`c0` to `c7`; `m0` to `m7` for models), styled by figure.css, so that a page in the dark
looks right. The palette is Okabe and Ito's for color-blind readers, its yellow darkened on white.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from multipress.analysis.cells import DENSE, short_name
from multipress.report.axes import Scale, linear_scale, log_scale
from multipress.report.text import escaped, megabytes, score_text

__all__ = ["Key", "MARKERS", "Point", "figure_svg", "keys_of", "marker", "panel_svg", "points_of"]

WIDTH, HEIGHT = 440, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 30, 44
_SIZE_NAMES = {"weights_bytes": "weights file, MB (log)", "ideal_bytes": "ideal size, MB (log)"}

# The color of each set of the paper's methods; another set takes the next color in turn.
_COLORS = {
    (): 0,
    ("quantization",): 1,
    ("distillation",): 2,
    ("pruning",): 3,
    ("quantization", "distillation"): 4,
    ("quantization", "pruning"): 5,
    ("distillation", "pruning"): 6,
    ("quantization", "distillation", "pruning"): 7,
}
NUM_CLASSES = 8

# Paths around (0, 0), all of about the same area.
MARKERS = (
    "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
    "M-4,-4h8v8h-8z",
    "M0,-5.6L5.2,3.6H-5.2z",
    "M0,-5.8L5.8,0L0,5.8L-5.8,0z",
    "M0,5.6L5.2,-3.6H-5.2z",
    "M-1.8,-5.4h3.6v3.6h3.6v3.6h-3.6v3.6h-3.6v-3.6h-3.6v-3.6h3.6z",
    "M0,-5.4L5.1,-1.7L3.2,4.4H-3.2L-5.1,-1.7z",
    "M-5,-2.6L-2.6,-5L0,-2.4L2.6,-5L5,-2.6L2.4,0L5,2.6L2.6,5L0,2.4L-2.6,5L-5,2.6L-2.4,0z",
)


@dataclass(frozen=True)
class Key:
    """What classes and names a figure's models and method sets have, the same in all panels.

    Args:
        models: Names, largest first; the position is the marker and the class.
        colors: Method sets and their color class.
        names: Method sets and their names, such as `Q8+KD+P`.
    """

    models: tuple[str, ...]
    colors: dict[tuple[str, ...], int]
    names: dict[tuple[str, ...], str]


@dataclass(frozen=True)
class Point:
    """One group over seeds, ready to draw.

    Args:
        task: Name of the task.
        model: Position of the model in the key.
        color: Color class.
        strength: From 0 to 1, how strong the fill is: more of a method's level is stronger.
        label: Methods and levels.
        size: Bytes.
        score: Mean, lowest and highest score.
        is_best: Whether it is on the frontier.
        title: What a reader sees on hovering.
    """

    task: str
    model: int
    color: int
    strength: float
    label: str
    size: float
    score: tuple[float, float, float]
    is_best: bool
    title: str


def keys_of(groups: Sequence[Mapping[str, Any]]) -> Key:
    """Markers for the models and colors for the method sets of the groups of an analysis."""
    largest: dict[str, float] = {}
    for group in groups:
        size = group["sizes"]["dense_bytes"] or group["sizes"]["weights_bytes"] or 0
        largest[group["model"]] = max(size, largest.get(group["model"], 0))
    names: dict[tuple[str, ...], str] = {}
    for group in groups:
        names[tuple(group["methods"])] = "+".join(map(short_name, group["methods"])) or DENSE
    order = sorted(names, key=lambda s: (_COLORS.get(s, NUM_CLASSES), len(s), s))
    taken = {_COLORS[methods] for methods in order if methods in _COLORS}
    free = [i for i in range(1, NUM_CLASSES) if i not in taken] or list(range(1, NUM_CLASSES))
    unknown = [methods for methods in order if methods not in _COLORS]
    extra = {methods: free[i % len(free)] for i, methods in enumerate(unknown)}
    return Key(
        models=tuple(sorted(largest, key=lambda name: (-largest[name], name))),
        colors={methods: _COLORS.get(methods, extra.get(methods, 0)) for methods in order},
        names={methods: names[methods] for methods in order},
    )


def points_of(analysis: Mapping[str, Any], key: Key, size: str) -> list[Point]:
    """The groups that have a score and a size, in the order of the analysis."""
    best = {(row["task"], row["model"], row["label"]) for row in analysis["frontier"][size]}
    drawn = [g for g in analysis["groups"] if g["score"]["mean"] is not None and g["sizes"].get(size)]
    points = []
    for group in drawn:
        same = sorted(
            other["sizes"][size]
            for other in drawn
            if all(other[name] == group[name] for name in ("task", "model", "methods"))
        )
        score, model = group["score"], key.models.index(group["model"])
        title = f"{group['model']}, {group['label']}: {score_text(score)} ({score['n']} seeds), "
        points.append(
            Point(
                task=group["task"],
                model=model % NUM_CLASSES,
                color=key.colors[tuple(group["methods"])],
                strength=1 - same.index(group["sizes"][size]) / len(same),
                label=group["label"],
                size=group["sizes"][size],
                score=(score["mean"], score["low"], score["high"]),
                is_best=(group["task"], group["model"], group["label"]) in best,
                title=f"{title}{megabytes(group['sizes'][size])} MB",
            )
        )
    return points


def marker(shape: int, color: int, strength: float = 1.0) -> str:
    """One marker around (0, 0)."""
    under = f'<path class="paper" d="{MARKERS[shape]}"/>' if strength < 1 else ""
    return f'{under}<path class="mark c{color}" fill-opacity="{strength:.2f}" d="{MARKERS[shape]}"/>'


def panel_svg(points: Sequence[Point], title: str, size: str) -> str:
    """One chart, `WIDTH` by `HEIGHT`, as the inside of an `<svg>`.

    Args:
        points: What to draw; none gives a note in place of a chart.
        title: Stands above the chart.
        size: Which bytes the points have.
    """
    head = f'<text class="head" x="{_LEFT}" y="16">{escaped(title)}</text>'
    if not points:
        return f'{head}<text x="{_LEFT}" y="{HEIGHT / 2}">no run of this task is done</text>'
    x = log_scale([point.size for point in points], _LEFT, WIDTH - _RIGHT)
    y = linear_scale([s for point in points for s in point.score], HEIGHT - _BOTTOM, _TOP)
    best = sorted((p for p in points if p.is_best), key=lambda p: p.size)
    path = " ".join(f"{x(p.size):.1f},{y(p.score[0]):.1f}" for p in best)
    return "".join(
        [
            head,
            _axes_svg(x, y, _SIZE_NAMES[size]),
            f'<polyline class="frontier" points="{path}"/>',
            *(_point_svg(point, x, y) for point in points),
            *_labels_svg(points, x, y),
        ]
    )


def _axes_svg(x: Scale, y: Scale, name: str) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    digits = 2 if len(y.ticks) > 1 and y.ticks[1] - y.ticks[0] > 0.0099 else 3
    parts = []
    for tick in y.ticks:
        at = f"{y(tick):.1f}"
        parts.append(f'<path class="grid" d="M{_LEFT},{at}H{right}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 6}" y="{at}" dy="4">{tick:.{digits}f}</text>')
    for tick in x.ticks:
        at = f"{x(tick):.1f}"
        parts.append(f'<path class="grid" d="M{at},{_TOP}V{bottom}"/>')
        parts.append(f'<text class="tick mid" x="{at}" y="{bottom + 15}">{tick / 1e6:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>')
    parts.append(f'<text class="tick end" x="{_LEFT - 6}" y="{_TOP - 8}">score</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text class="tick mid" x="{middle}" y="{bottom + 33}">{escaped(name)}</text>')
    return "".join(parts)


def _point_svg(point: Point, x: Scale, y: Scale) -> str:
    mean, low, high = point.score
    at = f"{x(point.size):.1f},{y(mean):.1f}"
    bar = f"M0,{y(low) - y(mean):.1f}V{y(high) - y(mean):.1f}"
    spread = f'<path class="spread c{point.color}" d="{bar}"/>' if low < high else ""
    return (
        f'<g class="point s{point.color} m{point.model}" transform="translate({at})">'
        f"<title>{escaped(point.title)}</title>{spread}{marker(point.model, point.color, point.strength)}</g>"
    )


_CHAR_WIDTH, _LINE = 6.5, 11
# Where a name may stand beside its mark, the best place first.
_PLACES = (
    (8, 4, "start"),
    (-8, 4, "end"),
    (0, -9, "mid"),
    (0, 17, "mid"),
    (6, -7, "start"),
    (-6, -7, "end"),
    (6, 14, "start"),
    (-6, 14, "end"),
)


def _labels_svg(points: Sequence[Point], x: Scale, y: Scale) -> list[str]:
    """Names beside the points of the frontier, each where it covers nothing, or left out."""
    taken = [(x(p.size) - 5, y(p.score[0]) - 5, x(p.size) + 5, y(p.score[0]) + 5) for p in points]
    parts = []
    for point in points:
        if not point.is_best:
            continue
        width, px, py = len(point.label) * _CHAR_WIDTH, x(point.size), y(point.score[0])
        for dx, dy, anchor in _PLACES:
            at, base = px + dx, py + dy
            left = at - width * {"start": 0.0, "mid": 0.5, "end": 1.0}[anchor]
            box = (left, base - _LINE + 2, left + width, base + 2)
            inside = box[0] >= _LEFT and box[2] <= WIDTH and box[1] >= _TOP - 8 and box[3] <= HEIGHT - _BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                classes = f"name {anchor} s{point.color} m{point.model}"
                text = escaped(point.label)
                parts.append(f'<text class="{classes}" x="{at:.1f}" y="{base:.1f}">{text}</text>')
                break
    return parts


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def figure_svg(analysis: Mapping[str, Any], size: str = "weights_bytes", columns: int = 2) -> str:
    """A file of its own: one panel a task and the legend, right in light and dark.

    Args:
        analysis: What `analyze_cells` gave, or the JSON that `multipress analyze --json` printed.
        size: `weights_bytes` (the real file) or `ideal_bytes`.
        columns: Panels side by side.
    """
    key = keys_of(analysis["groups"])
    points = points_of(analysis, key, size)
    tasks = list(dict.fromkeys(group["task"] for group in analysis["groups"]))
    columns = max(1, min(columns, len(tasks)))
    parts = []
    for i, task in enumerate(tasks):
        own = [point for point in points if point.task == task]
        at = f"{i % columns * WIDTH},{i // columns * HEIGHT}"
        parts.append(f'<g transform="translate({at})">{panel_svg(own, task, size)}</g>')
    width, top = columns * WIDTH, -(-len(tasks) // columns) * HEIGHT
    legend, height = _legend_svg(key, width, top)
    style = resources.files("multipress.report").joinpath("figure.css").read_text(encoding="utf-8")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" class="figure" role="img"><title>Score against size</title>'
        f'<style>{style}</style><rect class="paper" width="{width}" height="{height}"/>'
        f"{''.join(parts)}{legend}</svg>\n"
    )


def _legend_svg(key: Key, width: float, top: float) -> tuple[str, float]:
    """The legend below the panels, and the height of the whole drawing."""
    entries = [(marker(i % NUM_CLASSES, 0), name) for i, name in enumerate(key.models)]
    methods = [(marker(0, key.colors[subset]), name) for subset, name in key.names.items()]
    parts, y = [], top + 12.0
    for row in (entries, methods):
        x = float(_LEFT)
        for mark, name in row:
            room = 30 + len(name) * 7
            if x + room > width and x > _LEFT:
                x, y = float(_LEFT), y + 18
            parts.append(
                f'<g transform="translate({x + 5:.0f},{y:.0f})">{mark}<text x="10" y="4">{escaped(name)}</text></g>'
            )
            x += room
        y += 20
    return "".join(parts), y
