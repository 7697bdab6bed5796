"""Which method to add next: the bytes it saves against the points it costs.

What a point is worth is read off the dense models: a smaller one of them is the rival of every method. If halving the
bytes by taking a smaller model costs L points, then a method that saves h halvings (log2 of the size before over the
size after) at p points lost *nets* h - p / L halvings at an equal score. A method that saves no byte but lifts the
score, as distillation does, nets something too: it makes a smaller model good enough. At each step the method with the
largest net is added, at its best level, while there is one above 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from multipress.analysis.blocks import Block, by_place
from multipress.analysis.cells import Cell, label_of
from multipress.analysis.interaction import Levels
from multipress.analysis.uncertainty import LEVEL, student_quantile

__all__ = ["PAPER_ORDER", "Step", "exchange_rate", "priority"]

# Movva et al. (2022): quantize first, then distil, then prune.
PAPER_ORDER = ("quantization", "distillation", "pruning")
_SIZE = "weights_bytes"


@dataclass(frozen=True)
class Step:
    """What adding one method to a combination does, as means over models and tasks, each the mean of its seeds.

    Args:
        base: The combination before; `dense` for none.
        add: The level that is added.
        method: Its method.
        saved: Share of the bytes that are saved.
        change: Change of the score, a share of 1.
        bytes_per_point: Bytes saved for each point (a hundredth) lost; None where none is lost.
        net: Halvings at an equal score; None where the dense models give no exchange rate.
        net_low: Lower end of its interval over models and tasks; None with one of them.
        net_high: Upper end.
        num_blocks: Blocks (one model, task and seed) that have both cells.
        is_chosen: Whether it is the step to take from its base on the way that begins with `dense`.
    """

    base: str
    add: str
    method: str
    saved: float
    change: float
    bytes_per_point: float | None
    net: float | None
    net_low: float | None
    net_high: float | None
    num_blocks: int
    is_chosen: bool = False


def exchange_rate(cells: Sequence[Cell]) -> float | None:
    """What halving the bytes costs in score by taking a smaller dense model; None with one size or no loss.

    The slope of the score in log2 of the bytes over the dense models, with a level of its own for each task and seed.
    """
    by_place: dict[tuple[str, int | None], list[tuple[float, float]]] = defaultdict(list)
    for cell in cells:
        if cell.is_done and not cell.levels and cell.sizes.get(_SIZE):
            by_place[cell.task, cell.seed].append((math.log2(cell.sizes[_SIZE] or 1.0), cell.score or 0.0))
    parts = [np.array(own) - np.mean(own, axis=0) for own in by_place.values()]
    if not parts:
        return None
    size, score = np.concatenate(parts).T
    spread = float(size @ size)
    # Sizes that differ by less than a tenth tell nothing.
    if spread < len(size) * math.log2(1.1) ** 2:
        return None
    slope = float(size @ score) / spread
    return slope if slope > 0 else None


def priority(cells: Sequence[Cell], *, with_intervals: bool = True) -> dict[str, Any]:
    """Every step that the grid holds, and the way that always takes the best next one.

    Args:
        cells: Cells of a study.
        with_intervals: Whether the nets get intervals, which need scipy.

    Returns:
        `exchange_rate` (score lost by halving the bytes with a smaller dense model, or None), `steps` (rows as `Step`
        has them), `order` (methods, best first, while one nets more than 0), `paper_order` (those of the paper that
        are there), and `agrees` (whether it is the paper's whole order; None where it cannot be told).
    """
    rate = exchange_rate(cells)
    blocks: dict[Block, dict[Levels, Cell]] = defaultdict(dict)
    for cell in cells:
        if cell.is_done and cell.sizes.get(_SIZE):
            blocks[cell.model, cell.task, cell.seed][cell.levels] = cell
    asked = list(dict.fromkeys(cell.levels for cell in cells))
    steps: dict[tuple[Levels, Levels], Step] = {}
    for after in sorted(asked, key=len):
        for level in after:
            base = tuple(one for one in after if one != level)
            pairs = {key: (own[base], own[after]) for key, own in blocks.items() if base in own and after in own}
            if pairs:
                steps[base, after] = _step(base, level, pairs, (rate, with_intervals))
    order = _walk(steps)
    present = [name for name in PAPER_ORDER if any(step.method == name for step in steps.values())]
    agrees = None
    if rate is not None and len(present) > 1:
        agrees = order == present
    return {
        "exchange_rate": rate,
        "steps": [asdict(step) for step in steps.values()],
        "order": order,
        "paper_order": present,
        "agrees": agrees,
    }


def _step(
    base: Levels, level: tuple[str, str], pairs: Mapping[Block, tuple[Cell, Cell]], how: tuple[float | None, bool]
) -> Step:
    rate, with_intervals = how
    numbers = {block: [*_bytes(pair), _change(pair), _halvings(pair)] for block, pair in pairs.items()}
    places = np.array([np.mean(own, axis=0) for own in by_place(numbers).values()])
    before, after, change, halvings = places.T
    lost = -100 * float(change.mean())
    net = low = high = None
    if rate is not None:
        nets = halvings + change / rate
        net = float(nets.mean())
        if len(nets) > 1 and with_intervals:
            reach = student_quantile(LEVEL, len(nets) - 1) * float(np.std(nets, ddof=1)) / math.sqrt(len(nets))
            low, high = net - reach, net + reach
    return Step(
        base=label_of(one for _, one in base),
        add=level[1],
        method=level[0],
        saved=float(1 - (after / before).mean()),
        change=float(change.mean()),
        bytes_per_point=float((before - after).mean()) / lost if lost > 1e-9 else None,
        net=net,
        net_low=low,
        net_high=high,
        num_blocks=len(pairs),
    )


def _bytes(pair: tuple[Cell, Cell]) -> tuple[float, float]:
    before, after = (cell.sizes[_SIZE] or 1.0 for cell in pair)
    return before, after


def _change(pair: tuple[Cell, Cell]) -> float:
    return (pair[1].score or 0.0) - (pair[0].score or 0.0)


def _halvings(pair: tuple[Cell, Cell]) -> float:
    before, after = _bytes(pair)
    return math.log2(before / after)


def _walk(steps: dict[tuple[Levels, Levels], Step]) -> list[str]:
    """The methods of the best way, best first; marks its steps in `steps`."""
    here: Levels = ()
    order: list[str] = []
    while True:
        ways = {after: step for (base, after), step in steps.items() if base == here and step.net is not None}
        if not ways:
            return order
        after, best = max(ways.items(), key=lambda way: way[1].net or 0.0)
        if (best.net or 0.0) <= 0:
            return order
        steps[here, after] = replace(best, is_chosen=True)
        order.append(best.method)
        here = after
