"""Score against size in the layout of the first paper's Figure 1, for print: one curve a set of methods.

Movva et al. (2022), Figure 1: the horizontal axis is the size in MB on a logarithmic scale, the vertical one the mean
score over tasks; a curve joins the architectures under one set of methods, the dense ones in black.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from multipress.analysis.cells import DENSE
from multipress.analysis.table import on_every_task
from multipress.errors import SettingError
from multipress.report.axes import log_scale
from multipress.report.figure import keys_of

__all__ = ["curves", "write_paper_figure"]

_KINDS = (".svg", ".png", ".pdf")
# Okabe and Ito's colors for color-blind readers, in the order of the page's classes.
_COLORS = ("#1d2430", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8f7f00", "#d55e00")
_MARKS = "osD^vP*X"
_LINES = ("-", "--", ":", "-.")
_TITLES = {"ideal_bytes": "ideal size, MB", "weights_bytes": "weights file, MB"}

_BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}  # a name stays legible on a line

Point = tuple[float, float, str]  # MB, score, model


def curves(groups: Sequence[Mapping[str, Any]], size: str) -> dict[str, list[Point]]:
    """Points of each combination of methods, largest model first, as means over the tasks that all have.

    Args:
        groups: The groups of an analysis.
        size: Which bytes.
    """
    found, _ = on_every_task(
        ((group["model"], group["label"]), group["task"], (group["sizes"][size] / 1e6, group["score"]["mean"]))
        for group in groups
        if group["score"]["mean"] is not None and group["sizes"].get(size)
    )
    made: dict[str, list[Point]] = defaultdict(list)
    for (model, label), values in found.items():
        made[label].append((fmean(mb for mb, _ in values), fmean(score for _, score in values), model))
    return {label: sorted(points, reverse=True) for label, points in made.items()}


def write_paper_figure(groups: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw both sizes side by side, ideal ones as in the paper and real bytes.

    Args:
        groups: The groups of an analysis.
        path: A file that ends in .svg, .png or .pdf.

    Raises:
        SettingError: the name ends otherwise, matplotlib is not installed, or nothing is done on every task.
    """
    if path.suffix not in _KINDS:
        raise SettingError(f"The figure's name is {path.name}, but must end in one of: {', '.join(_KINDS)}.")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise SettingError("Figures in the paper's layout need matplotlib: pip install 'multipress[report]'.") from None
    drawn = {size: curves(groups, size) for size in _TITLES}
    drawn = {size: found for size, found in drawn.items() if found}
    if not drawn:
        raise SettingError("No combination is done on every task, so that there is nothing to draw yet.")
    # The same numbers give the same file.
    with rc_context({"svg.hashsalt": "multipress", "font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.2 * len(drawn) + 1.5, 4.2), layout="constrained")
        axes = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        styles = _styles(groups)
        for axis, (size, found) in zip(axes, drawn.items(), strict=True):
            _draw(axis, found, styles, _TITLES[size])
        axes[0].set_ylabel("mean score over tasks")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
        stamp = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix)
        figure.savefig(path, dpi=150, metadata=stamp)


def _styles(groups: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    """Color class and line of each combination: one color a set of methods, as on the page, and one line a level."""
    colors = keys_of(groups).colors
    labels: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for group in groups:
        if group["label"] not in labels[tuple(group["methods"])]:
            labels[tuple(group["methods"])].append(group["label"])
    return {
        label: (colors[methods] % len(_COLORS), _LINES[i % len(_LINES)])
        for methods, own in labels.items()
        for i, label in enumerate(own)
    }


def _draw(axis: Any, found: Mapping[str, Sequence[Point]], styles: Mapping[str, tuple[int, str]], title: str) -> None:
    for label in sorted(found, key=lambda label: (label != DENSE, styles[label])):
        color, line = styles[label]
        sizes, scores, models = zip(*found[label], strict=True)
        is_dense = label == DENSE
        axis.plot(
            sizes,
            scores,
            label=label.replace("$", r"\$"),
            color=_COLORS[color],
            marker=_MARKS[color],
            markersize=4.5,
            linewidth=2 if is_dense else 1.2,
            linestyle=line,
        )
        if is_dense:
            for mb, score, model in zip(sizes, scores, models, strict=True):
                name = model.replace("$", r"\$")
                axis.annotate(
                    name,
                    (mb, score),
                    textcoords="offset points",
                    xytext=(0, -13),
                    ha="center",
                    fontsize=7,
                    bbox=_BEHIND,
                )
    scale = log_scale([mb for points in found.values() for mb, *_ in points], 0, 1)
    axis.set_xscale("log")
    axis.set_xlim(scale.low, scale.high)
    axis.set_xticks(scale.ticks, labels=[f"{mb:g}" for mb in scale.ticks])
    axis.set_xticks([], minor=True)
    axis.margins(y=0.1)
    axis.set_xlabel(f"{title} (log)")
    axis.grid(alpha=0.25)
