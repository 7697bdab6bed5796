"""Do the intervals of `multipress analyze` cover, and how often is its verdict wrong? On grids whose truth is planted.

    python benchmarks/coverage.py --grids 500 -o results/coverage.json

A grid has four models (each four times the next), three tasks, three seeds and the eight subsets. A cell's chance of
a right answer is linear in the log of its size; each method shifts it, quantization and distillation together shift it
by `together` more, so that their net ratio is exp(together / slope). Each training adds its own noise, and the cells of
a task share the difficulty of its rows. Effects differ between no tasks and models, so that the same number is true
for rows, seeds and tasks; unless `--between-tasks` says how far each task's effects lie from those of all tasks: then
the intervals over rows and seeds are to hold the mean of these three tasks, those over tasks that of all. With
`--teacher` all distilled cells of a task and seed share one teacher's luck; with `--fewer` the two largest models have
only so many seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from multipress.analysis import Outcome, group_cells, read_cells
from multipress.analysis.mixed import mixed_model
from multipress.analysis.multiplicativity import multiplicativity
from multipress.analysis.products import products
from multipress.analysis.resampling import draw_groups, draw_rows
from multipress.analysis.uncertainty import effect_intervals

SLOPE, TOP = 0.03, 0.86  # score for each e-fold of the size, and that of the largest dense model
SIZES = {f"m{i}": 4.0e6 * 4**i for i in range(4)}
EFFECTS = {"quantization": -0.004, "distillation": 0.02, "pruning": -0.01}
SHRINKS = {"quantization": 0.25, "distillation": 1.0, "pruning": 0.7}
SETTINGS = {"quantization": {"bits": 8}, "distillation": {}, "pruning": {"sparsity": 0.6}}
TRUTHS = {"multiplicative": 0.0, "super": 0.024, "sub": -0.024}
TRAINING_SD, ALIKE = 0.004, 0.85  # of a cell's chance; share of rows on which cells agree on what is hard


PAIR = ("quantization", "distillation")
Effects = dict[frozenset[str], float]  # of each method, and of the pair beyond the sum


def truth_of(together: float) -> Effects:
    """What holds for all tasks."""
    return {frozenset([name]): effect for name, effect in EFFECTS.items()} | {frozenset(PAIR): together}


def truths_of_tasks(together: float, between: float, random: np.random.Generator) -> dict[str, Effects]:
    """What holds for each of three tasks."""
    return {
        task: {names: effect + random.normal(0, between) for names, effect in truth_of(together).items()}
        for task in "abc"
    }


def chance(size: float, names: tuple[str, ...], effects: Effects) -> float:
    """The true score of a model of so many dense bytes under some methods."""
    score = TOP + SLOPE * math.log(size / max(SIZES.values()))
    return score + sum(effect for needed, effect in effects.items() if needed <= set(names))


def cells(
    truths: dict[str, Effects], args: argparse.Namespace, random: np.random.Generator
) -> Iterator[tuple[dict[str, Any], Any]]:
    """The rows of a grid and which answers are right."""
    for task, effects in truths.items():
        hard = random.random(args.rows)
        luck = random.normal(0, args.teacher, size=args.seeds)
        for (model, size), seed in itertools.product(SIZES.items(), range(args.seeds)):
            if model in list(SIZES)[-2:] and seed >= (args.fewer or args.seeds):
                continue
            for names in itertools.chain.from_iterable(itertools.combinations(EFFECTS, n) for n in range(4)):
                own = chance(size, names, effects) + random.normal(0, TRAINING_SD) + luck[seed] * (PAIR[1] in names)
                right = np.where(random.random(args.rows) < ALIKE, hard, random.random(args.rows)) < own
                real = size * math.prod(SHRINKS[name] for name in names)
                yield _row(model, task, names, seed, float(right.mean()), real), right.astype(np.float32)


def _row(model: str, task: str, names: tuple[str, ...], seed: int, score: float, size: float) -> dict[str, Any]:
    return {
        "run_id": f"{model}-{task}-{'-'.join(names)}-{seed}", "studies": [], "model": model, "task": task,
        "methods": list(names), "settings": {name: SETTINGS[name] for name in names}, "seed": seed,
        "learning_rate": 1e-4, "data": {}, "training": {}, "state": "done", "why": "", "score": score, "metrics": {},
        "ideal_bytes": size, "weights_bytes": size, "package_bytes": size, "dense_bytes": SIZES[model],
    }  # fmt: skip


def outcome(right: np.ndarray) -> Outcome:
    """What `analyze` reads from a run's stored predictions."""
    return Outcome(len(right), lambda rows: right[rows].mean(axis=1, dtype=np.float64))


def simulate(together: float, number: int, args: argparse.Namespace) -> dict[str, Any]:
    """Analyze one grid: which intervals hold the truth, and what the verdicts say."""
    random = np.random.default_rng([number, round(1e6 * (together + 1))])
    truths = truths_of_tasks(together, args.between_tasks, random)
    made = list(cells(truths, args, random))
    outcomes = {row["run_id"]: outcome(right) for row, right in made}
    read = read_cells([row for row, _ in made])
    draws = draw_rows(read, outcomes, args.resamples)
    everywhere = truth_of(together)
    here = {names: float(np.mean([one[names] for one in truths.values()])) for names in everywhere}
    effects = {
        "rows and seeds": [],
        "distillation, rows and seeds": [],
        "tasks": [],
        "mixed model": [],
        "false signs": [],
    }
    for row in effect_intervals(read, draws):
        if row.by == "all" and row.tasks:
            names = frozenset(name for name, _ in row.levels)
            holds = row.low <= here.get(names, 0.0) <= row.high
            effects["rows and seeds"].append(holds)
            if names == {"distillation"}:
                effects["distillation, rows and seeds"].append(holds)
            effects["tasks"].append(row.tasks[0] <= everywhere.get(names, 0.0) <= row.tasks[1])
            effects["false signs"].append(row.p_holm < 0.05 and row.mean * here.get(names, 0.0) <= 0)
    for row in mixed_model(read)["rows"]:
        effects["mixed model"].append(row["low"] <= everywhere.get(frozenset(row["methods"]), 0.0) <= row["high"])
    drawn = draw_groups(read, draws)
    factors = multiplicativity(group_cells(read), sizes=["weights_bytes"], drawn=drawn.scores)
    found = {"net ratio": [], "net ratio, tasks": [], "verdicts": [], "bias": [], "discrete": []}
    for one in products(factors, drawn.dof):
        extra = set(PAIR) <= set(one.methods)
        true, of_all = (math.exp(own[frozenset(PAIR)] / SLOPE) if extra else 1.0 for own in (here, everywhere))
        if one.estimator == "discrete" and one.ratio is not None:
            holds = (one.low or 0) <= true <= (one.high or math.inf)
            found["discrete"].append(("+".join(one.methods), math.log(one.ratio / true), holds))
        if one.estimator == "discrete" or one.net_ratio is None:
            continue
        found["net ratio"].append((one.net_low or 0) <= true <= (one.net_high or math.inf))
        if one.tasks_low is not None and one.tasks_high is not None:
            found["net ratio, tasks"].append(one.tasks_low <= of_all <= one.tasks_high)
        found["bias"].append(math.log(one.net_ratio / true))
        kind = "super" if true > 1 else "sub" if true < 1 else "none"
        found["verdicts"].append(("+".join(one.methods), one.verdict, kind))
    return effects | found


def summarize(grids: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares over all grids of one truth."""
    shares = {
        name: float(np.mean([one for grid in grids for one in grid[name]]))
        for name in (
            "rows and seeds",
            "distillation, rows and seeds",
            "tasks",
            "mixed model",
            "net ratio",
            "net ratio, tasks",
        )
    }
    wrong = [any(told in ("super", "sub") and told != true for _, told, true in grid["verdicts"]) for grid in grids]
    discrete = [one for grid in grids for one in grid["discrete"]]
    sets = sorted({names for names, _, _ in discrete})
    told = Counter(f"{names}: {verdict}" for grid in grids for names, verdict, _ in grid["verdicts"])
    return {
        "coverage": shares,
        "grids_with_a_false_verdict": float(np.mean(wrong)),
        "grids_with_a_false_sign": float(np.mean([any(grid["false signs"]) for grid in grids])),
        "mean_log_bias_of_the_net_ratio": float(np.mean([one for grid in grids for one in grid["bias"]])),
        "verdicts": dict(sorted(told.items())),
        "discrete_estimator": {
            "over_the_truth": {
                names: math.exp(float(np.mean([log for own, log, _ in discrete if own == names]))) for names in sets
            },
            "coverage": float(np.mean([holds for _, _, holds in discrete])) if discrete else None,
        },
    }


def main() -> int:
    """Run it; prints one line a truth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--grids", type=int, default=500, help="grids of each truth")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=250, help="validation rows of a task")
    parser.add_argument("--resamples", type=int, default=250)
    parser.add_argument("--teacher", type=float, default=0.0, help="standard deviation of a teacher's luck")
    parser.add_argument("--fewer", type=int, default=0, help="seeds of the two largest models; 0: as many")
    parser.add_argument("--between-tasks", type=float, default=0.0, help="standard deviation of effects between tasks")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    settings = {key: value for key, value in vars(args).items() if key != "out"}
    found: dict[str, Any] = {"settings": settings}
    for name, together in TRUTHS.items():
        found[name] = summarize([simulate(together, number, args) for number in range(args.grids)])
        print(name, json.dumps(found[name]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
