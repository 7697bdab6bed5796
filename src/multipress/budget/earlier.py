"""What earlier studies and searches, of other models or rows too, say of a model's recipes before it is tried itself.

A score says little of another model, but what a recipe costs does: each result is taken as the score before plus its
own less the best of the uncompressed trainings beside it (of the same model and rows; where there is none, less the
best of all). Learning rates, words, temperatures and bits so enter the proposals, and the learning rate that was best
for most is tried first.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from multipress.budget.tries import Recipe, Result, Tries
from multipress.engines.execute import read_measurements
from multipress.errors import InputError, SettingError
from multipress.spec import RunSpec
from multipress.store import Store

__all__ = ["Earlier", "as_results", "best_learning_rate", "read_earlier", "store_of"]

_METHODS = {"quantization", "distillation", "structured", "vocabulary"}  # what a search varies
_PLAIN = {"bits": 8, "group": 0, "rate_weight": 0.0}


@dataclass(frozen=True)
class Earlier:
    """What came of a recipe elsewhere.

    Args:
        recipe: The recipe, with the model that it was tried on.
        group: Results with the same number were made from one model on the same rows.
        change: Its score less the uncompressed one.
    """

    recipe: Recipe
    group: int
    change: float

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Earlier:
        """What `to_json` wrote."""
        return cls(Recipe(**value["recipe"]), value["group"], value["change"])


def store_of(folder: Path) -> Store:
    """The runs of a folder of runs, or of the folder of a search."""
    return Store(folder / "runs" if (folder / "runs").is_dir() else folder)


def read_earlier(folders: Sequence[Path]) -> list[Earlier]:
    """What came of the recipes in folders of runs; of runs that a search would not try, nothing.

    Args:
        folders: Folders of runs, or those of searches, in which they are.

    Raises:
        StoreError: a folder is none of runs.
    """
    groups: dict[tuple[str, str], list[tuple[Recipe, float]]] = defaultdict(list)
    for folder in folders:
        for spec, score in _scores(store_of(folder)):
            groups[spec.model, repr(spec.data)].append((Recipe.of(spec), score))
    found = []
    for number, scores in enumerate(groups.values()):
        dense = [score for recipe, score in scores if recipe.rate == 0]
        reference = max(dense or [score for _, score in scores])
        found += [Earlier(recipe, number, score - reference) for recipe, score in scores if recipe.rate != 0]
    return found


def best_learning_rate(earlier: Sequence[Earlier]) -> float | None:
    """The middle one of those learning rates that were best for a model and rows; None where nothing is known."""
    best: dict[int, Earlier] = {}
    for one in earlier:
        if one.recipe.rate is not None and (one.group not in best or one.change > best[one.group].change):
            best[one.group] = one
    rates = [math.log(one.recipe.learning_rate) for one in best.values()]
    return float(f"{math.exp(statistics.median(rates)):.2g}") if rates else None


def as_results(earlier: Sequence[Earlier], base: Recipe, before: float, tries: Tries) -> list[Result]:
    """What the recipes would give with another model, as far as that can be told.

    Args:
        earlier: What came of them.
        base: The recipe of all tries of the model. Passes over other rows say nothing, so that its own are taken.
        before: The model's score before.
        tries: Knows the sizes.
    """
    results = []
    for one in earlier:
        own = one.recipe
        taken = replace(
            base, rate=own.rate, words=own.words, learning_rate=own.learning_rate, temperature=own.temperature
        )
        try:
            size = tries.size(taken).package_bytes
        except SettingError:
            continue  # its tokenizer loses no words
        results.append(Result(taken, "", Path(), before + one.change, size))
    return results


def _scores(store: Store) -> Iterator[tuple[RunSpec, float]]:
    """The trainings of a store that a search could have tried, with their scores."""
    for run in store.runs():
        done = store.done(run.run_id)
        if done is None or run.spec.get("kind") != "train":
            continue
        try:
            spec = RunSpec.from_json(run.spec)
        except (InputError, TypeError, KeyError):
            continue  # of another version
        score = next((row.value for row in read_measurements(done) if row.name == "score"), None)
        if score is not None and math.isfinite(score) and _is_recipe(spec):
            yield spec, float(score)


def _is_recipe(spec: RunSpec) -> bool:
    """Whether a search could have made this run: in one stage, by its methods, with a rate or eight bits."""
    settings = {method.name: method.settings for method in spec.methods}
    if spec.start or not settings.keys() <= _METHODS or (settings and "quantization" not in settings):
        return False
    bits = settings.get("quantization", _PLAIN)
    return bits.get("rate") is not None or all(bits.get(name, value) == value for name, value in _PLAIN.items())
