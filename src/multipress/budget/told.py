"""What a search says in the end: the winner and why, or what came nearest."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multipress.artifact import Artifact
from multipress.budget.asked import Asked
from multipress.budget.limits import Budget
from multipress.budget.pace import Pace
from multipress.budget.rows import SearchRows
from multipress.budget.search import Search
from multipress.budget.tries import Result
from multipress.budget.winner import Comparison

__all__ = ["Compressed", "command_of", "how_it_ended", "missed_limits", "nearest", "only_guesses", "why_chosen"]


@dataclass(frozen=True)
class Compressed:
    """The winner, and why it is.

    Args:
        artifact: At its place.
        comparison: Before, after and the rival, on rows that no choice has seen.
        why: One sentence.
        recipe: How it was made, in words.
        store: The folder of all tries.
        notes: What a user should know of the rows.
        missed: What of the budget the winner does not keep when it is measured anew, on the rows to report on.
        guesses: Whether it is right no more often than the most common label is.
        ended: Why the search ended.
        ran_out: Whether that was for want of time.
        alone_ms: What the winner takes for one text in integers, timed by itself in the end; None without such a limit.
    """

    artifact: Artifact
    comparison: Comparison
    why: str
    recipe: str
    store: Path
    notes: tuple[str, ...]
    missed: tuple[str, ...]
    guesses: bool
    ended: str
    ran_out: bool
    alone_ms: float | None = None

    def to_json(self) -> dict[str, object]:
        """All of it as plain JSON values."""
        return {
            "artifact": str(self.artifact.folder),
            "why": self.why,
            "recipe": self.recipe,
            "meets_budget": not self.missed,
            "missed": list(self.missed),
            "latency_alone_ms": self.alone_ms,
            "no_better_than_guessing": self.guesses,
            "ended": self.ended,
            "run_id": self.artifact.facts["run_id"],
            **self.comparison.to_json(),
            "store": str(self.store),
            "notes": list(self.notes),
        }


def command_of(asked: Asked, budget: Budget) -> str:
    """The command that makes the winner again, with the names of files and folders here alone."""
    data = asked.data
    files = {"train": data.train, "dev": data.dev, "test": asked.test, "unlabeled": asked.unlabeled}
    values: list[tuple[str, object]] = [(name, Path(file).name) for name, file in files.items() if file]
    values += [("text", column) for column in data.text]
    values += [("learn-from", Path(folder).name) for folder in asked.learn_from]
    named: dict[str, object] = {"task": data.task, "label": data.label, "target": data.target, "metric": data.metric}
    named |= {"max-train-rows": data.max_train_rows, "max-eval-rows": data.max_eval_rows, "epochs": asked.epochs}
    values += [(name, value) for name, value in named.items() if value]
    limits = {"max-mb": budget.max_mb, "max-ms": budget.max_ms}
    limits |= {"min-score": budget.min_score, "max-drop": budget.max_drop}
    values += [(name, value) for name, value in limits.items() if value is not None]
    values += [("max-length", asked.max_length), ("time-limit", budget.minutes)]
    model = Path(asked.model).name if Path(asked.model).exists() else asked.model
    options = [str(part) for name, value in values for part in (f"--{name}", value)]
    return shlex.join(["multipress", "compress", model, *options, "-o", "OUT"])


def nearest(results: Sequence[Result], search: Search, budget: Budget, least: float | None) -> str:
    """What to say where nothing keeps to the budget.

    Args:
        results: Of all tries.
        search: The search, which says how far a result is from the limits.
        budget: The limits.
        least: The least score that would have done; None: any.
    """
    results = [result for result in results if result.recipe.rate != 0]
    if not results:
        return "No try ended well. See the runs of the search."
    wanted = "" if least is None else f" with a score of {least:.4f} or more"
    best = min(results, key=search.loss)
    missed = {
        "more MB": best.package_bytes > budget.max_bytes,
        "more ms": (best.latency_ms or 0) > (budget.max_ms or math.inf),
        "a lower score" if budget.max_drop is None else "a larger drop": best.score < (least or 0),
    }
    return (
        f"No try keeps to the budget{wanted}. The nearest: {best.text()}, in {best.artifact}. Allow "
        f"{', '.join(name for name, is_missed in missed.items() if is_missed)}, or more time; the same command with "
        "other limits goes on from these tries."
    )


def why_chosen(best: Result, search: Search, budget: Budget, tried: int, num_rows: int) -> str:
    """One sentence on why the winner is the winner.

    Args:
        best: The winner.
        search: The search that found it.
        budget: The limits.
        tried: How many tries there were.
        num_rows: How many rows they were selected by.
    """
    rows = f"the {num_rows:,} rows to select by"
    if budget.least_score(0.0) is None:
        aim = f"the best of {tried} tries within the limits, by its score on {rows}"
    elif search.is_sure(best):
        aim = f"the smallest of {tried} tries whose score on {rows} was high enough, by a standard error or more"
    else:
        aim = (
            f"the one of {tried} tries whose score on {rows} was highest; that it is high enough is not settled, it is "
            f"so by less than its standard error of {best.error:.4f}"
        )
    return f"Chosen because it is {aim}: {best.recipe.text()}."


def how_it_ended(search: Search, pace: Pace, num_rows: int) -> str:
    """Why the search ended.

    Args:
        search: The search.
        pace: Rows and epochs of its first tries.
        num_rows: How many rows there are to train on.
    """
    why = "Its time was over" if search.ran_out else "It had nothing more to try that promised to be better"
    if not pace.rows:
        return f"{why}."
    return f"{why}; its first tries had one epoch of {pace.rows:,} of the {num_rows:,} rows, for want of time."


def missed_limits(comparison: Comparison, budget: Budget, latency_ms: float | None = None) -> tuple[str, ...]:
    """What of the budget the winner does not keep when it is measured anew, on the rows to report on.

    Args:
        comparison: The scores.
        budget: The limits.
        latency_ms: Of the winner alone, where latency is limited; beside other models it takes longer.
    """
    before, _, floats, integers = comparison.rows
    after = floats if budget.max_ms is None else integers
    least, missed = budget.least_score(before.score), []
    if least is not None and after.score < least:
        missed.append(f"the score is {after.score:.4f}, not {least:.4f}")
    if budget.max_ms is not None and latency_ms is not None and latency_ms > budget.max_ms:
        missed.append(f"one text takes {latency_ms:.2f} ms, not {budget.max_ms:g}")
    return tuple(missed)


def only_guesses(comparison: Comparison, rows: SearchRows) -> bool:
    """Whether the winner is right no more often than the most common label is."""
    labels = rows.report.labels
    is_accuracy = rows.task.score == "accuracy"
    return bool(is_accuracy and comparison.rows[2].score <= np.bincount(labels).max() / len(labels))
