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

from multipress.analysis.blocks import Block, Place, by_place
from multipress.analysis.cells import Cell, label_of
from multipress.analysis.interaction import Levels
from multipress.analysis.uncertainty import LEVEL, student_quantile

__all__ = ["PAPER_ORDER", "Step", "exchange_rate", "priority"]

# Movva et al. (2022): quantize first, then distil, then prune.
PAPER_ORDER = ("quantization", "distillation", "pruning")
_SIZE = "weights_bytes"


Move = tuple[Levels, Levels]  # from a combination to one with a method more
Ends = tuple[float, float] | None


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
        are there), `agrees` (whether it is the paper's whole order; None where it cannot be told), and `settled`
        (whether each step of the order nets more than every other from the same base, by the interval of the
        difference over models and tasks; None without intervals or a choice).
    """
    rate = exchange_rate(cells)
    blocks: dict[Block, dict[Levels, Cell]] = defaultdict(dict)
    for cell in cells:
        if cell.is_done and cell.sizes.get(_SIZE):
            blocks[cell.model, cell.task, cell.seed][cell.levels] = cell
    asked = list(dict.fromkeys(cell.levels for cell in cells))
    steps: dict[Move, Step] = {}
    nets: dict[Move, dict[Place, float]] = {}
    for after in sorted(asked, key=len):
        for level in after:
            base = tuple(one for one in after if one != level)
            pairs = {key: (own[base], own[after]) for key, own in blocks.items() if base in own and after in own}
            if pairs:
                nets[base, after] = _nets(pairs, rate) if rate is not None else {}
                own = list(nets[base, after].values())
                ends = _ends(own) if with_intervals else None
                steps[base, after] = _step(base, level, pairs, own, ends)
    order, way = _walk(steps)
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
        "settled": _settled(way, nets) if with_intervals else None,
    }


def _nets(pairs: Mapping[Block, tuple[Cell, Cell]], rate: float) -> dict[Place, float]:
    """Halvings at an equal score of each model and task, the mean of its seeds."""
    values = {block: _halvings(pair) + _change(pair) / rate for block, pair in pairs.items()}
    return {place: float(np.mean(own)) for place, own in by_place(values).items()}


def _step(
    base: Levels, level: tuple[str, str], pairs: Mapping[Block, tuple[Cell, Cell]], nets: Sequence[float], ends: Ends
) -> Step:
    numbers = {block: [*_bytes(pair), _change(pair)] for block, pair in pairs.items()}
    before, after, change = np.array([np.mean(own, axis=0) for own in by_place(numbers).values()]).T
    lost = -100 * float(change.mean())
    return Step(
        base=label_of(one for _, one in base),
        add=level[1],
        method=level[0],
        saved=float(1 - (after / before).mean()),
        change=float(change.mean()),
        bytes_per_point=float((before - after).mean()) / lost if lost > 1e-9 else None,
        net=float(np.mean(nets)) if nets else None,
        net_low=None if ends is None else ends[0],
        net_high=None if ends is None else ends[1],
        num_blocks=len(pairs),
    )


def _ends(values: Sequence[float]) -> Ends:
    """Ends of the t interval of a mean over models and tasks; None of fewer than two."""
    num = len(values)
    if num < 2:
        return None
    reach = student_quantile(LEVEL, num - 1) * float(np.std(values, ddof=1)) / math.sqrt(num)
    return float(np.mean(values)) - reach, float(np.mean(values)) + reach


def _settled(way: Sequence[Move], nets: Mapping[Move, dict[Place, float]]) -> bool | None:
    """Whether each step of the way is surely better than all others from its base; None where there is no other."""
    found = []
    for base, after in way:
        best = nets[base, after]
        for (other_base, other_after), other in nets.items():
            if other_base == base and other_after != after:
                ends = _ends([best[place] - other[place] for place in best if place in other])
                found.append(ends is not None and ends[0] > 0)
    return all(found) if found else None


def _bytes(pair: tuple[Cell, Cell]) -> tuple[float, float]:
    before, after = (cell.sizes[_SIZE] or 1.0 for cell in pair)
    return before, after


def _change(pair: tuple[Cell, Cell]) -> float:
    return (pair[1].score or 0.0) - (pair[0].score or 0.0)


def _halvings(pair: tuple[Cell, Cell]) -> float:
    before, after = _bytes(pair)
    return math.log2(before / after)


def _walk(steps: dict[Move, Step]) -> tuple[list[str], list[Move]]:
    """The methods of the best way, best first, and its steps, which are marked in `steps`."""
    here: Levels = ()
    order: list[str] = []
    way: list[Move] = []
    while True:
        ways = {after: step for (base, after), step in steps.items() if base == here and step.net is not None}
        if not ways:
            return order, way
        after, best = max(ways.items(), key=lambda one: one[1].net or 0.0)
        if (best.net or 0.0) <= 0:
            return order, way
        steps[here, after] = replace(best, is_chosen=True)
        order.append(best.method)
        way.append((here, after))
        here = after
