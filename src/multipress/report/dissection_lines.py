"""Lines over layers or shares with intervals, as SVG: one color a line, drawn by classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from multipress.report.axes import Scale, linear_scale
from multipress.report.text import escaped

__all__ = ["Series", "legend_html", "lines_figure", "lines_svg"]

WIDTH, HEIGHT = 420, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 28, 34
_COLORS = 8
_DODGE = 3.0  # between the bars of two lines at one layer


@dataclass(frozen=True)
class Series:
    """One line.

    Args:
        name: What it is of.
        number: Its place among the lines, which decides its color.
        points: Layer or share, value, and the ends of its interval.
    """

    name: str
    number: int
    points: Sequence[tuple[float, ...]]


def lines_svg(series: Sequence[Series], title: str, across: str = "layer") -> str:
    """One panel.

    Args:
        series: Lines, of which one at least has points.
        title: Stands above it.
        across: What the horizontal axis is.
    """
    label = escaped(f"{title} by {across}")
    inside = _panel(series, title, across)
    return f'<svg class="figure" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{inside}</svg>'


def _panel(series: Sequence[Series], title: str, across: str = "layer") -> str:
    layers = [point[0] for one in series for point in one.points]
    x = linear_scale([min(layers), max(layers)], _LEFT, WIDTH - _RIGHT)
    y = linear_scale([v for one in series for point in one.points for v in point[1:]], HEIGHT - _BOTTOM, _TOP)
    inside = [
        f'<text class="head" x="{_LEFT}" y="16">{escaped(title)}</text>',
        _axes(x, y, sorted(set(layers)), across),
    ]
    for one in series:
        shift = (one.number - (len(series) - 1) / 2) * _DODGE
        inside.append(_series(one, x, y, shift, across))
    return "".join(inside)


def lines_figure(panels: Sequence[tuple[str, Sequence[Series]]], columns: int = 2) -> str:
    """A file of its own: panels side by side and one legend, right in light and dark.

    Args:
        panels: Title and lines of each; all have the same names.
        columns: Panels side by side.
    """
    columns = min(columns, len(panels))
    drawn = [
        f'<g transform="translate({i % columns * WIDTH},{i // columns * HEIGHT})">{_panel(series, title)}</g>'
        for i, (title, series) in enumerate(panels)
    ]
    width, top = columns * WIDTH, -(-len(panels) // columns) * HEIGHT
    names = [(one.name, one.number) for one in panels[0][1]]
    legend = [
        f'<g transform="translate({_LEFT + i % 2 * width / 2:.0f},{top + 14 + i // 2 * 18})">'
        f'<circle class="mark c{number % _COLORS}" r="5"/><text x="12" y="4">{escaped(name)}</text></g>'
        for i, (name, number) in enumerate(names)
    ]
    height = top + 18 * (-(-len(names) // 2)) + 12
    style = resources.files("multipress.report").joinpath("figure.css").read_text(encoding="utf-8")
    style += ".lines { fill: none; stroke-width: 1.6; } .dashed { stroke-dasharray: 5 3; }"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'class="figure" role="img"><title>Layer by layer</title><style>{style}</style>'
        f'<rect class="paper" width="{width}" height="{height}"/>{"".join(drawn)}{"".join(legend)}</svg>\n'
    )


def _axes(x: Scale, y: Scale, layers: Sequence[float], across: str) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    step = y.ticks[1] - y.ticks[0] if len(y.ticks) > 1 else 1.0
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2 if step >= 0.01 else 3
    parts = []
    for tick in y.ticks:
        kind = "axis" if tick == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{_LEFT},{y(tick):.1f}H{right}"/>')
        text = f"{tick + 0.0:.{digits}f}"
        parts.append(f'<text class="tick end" x="{_LEFT - 6}" y="{y(tick):.1f}" dy="4">{text}</text>')
    parts += [f'<text class="tick mid" x="{x(layer):.1f}" y="{bottom + 15}">{layer:.0f}</text>' for layer in layers]
    parts.append(f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>')
    parts.append(f'<text class="tick mid" x="{(_LEFT + right) / 2}" y="{bottom + 29}">{escaped(across)}</text>')
    return "".join(parts)


def _series(one: Series, x: Scale, y: Scale, shift: float, across: str) -> str:
    color = f"c{one.number % _COLORS}"
    stroke = f"lines dashed {color}" if one.number // _COLORS % 2 else f"lines {color}"  # colors come a second time
    points = sorted(one.points)
    path = "L".join(f"{x(layer) + shift:.1f},{y(value):.1f}" for layer, value, _, _ in points)
    parts = [f'<path class="{stroke}" fill-opacity="0" d="M{path}"/>'] if points else []
    for layer, value, low, high in points:
        at = f"{x(layer) + shift:.1f}"
        title = escaped(f"{one.name}, {across} {layer:.3g}: {value:.4g} ({low:.4g} to {high:.4g})")
        parts.append(
            f'<g><title>{title}</title><path class="spread {color}" d="M{at},{y(low):.1f}V{y(high):.1f}"/>'
            f'<circle class="mark {color}" cx="{at}" cy="{y(value):.1f}" r="2.6"/></g>'
        )
    return "".join(parts)


def legend_html(names: Sequence[str]) -> str:
    """The colors of lines by name."""
    entries = [
        f'<span><svg class="figure" viewBox="0 0 14 14" aria-hidden="true"><circle class="mark c{i % _COLORS}" cx="7" '
        f'cy="7" r="5"/></svg>{escaped(name)}</span>'
        for i, name in enumerate(names)
    ]
    return f'<div class="legend">{"".join(entries)}</div>'
