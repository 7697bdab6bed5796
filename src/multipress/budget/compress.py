"""`multipress.compress`: the search as one call in Python."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from multipress.artifact import Artifact
from multipress.budget.asked import Asked
from multipress.budget.fitting import fit
from multipress.budget.limits import MINUTES, Budget
from multipress.spec import DataSpec, TrainingSpec

__all__ = ["compress"]


def compress(  # noqa: PLR0913 - the options of the command, by name
    model: str,
    train: str = "",
    dev: str = "",
    *,
    out: str | Path = "",
    max_mb: float | None = None,
    max_ms: float | None = None,
    min_score: float | None = None,
    max_drop: float | None = None,
    minutes: float = MINUTES,
    task: str = "",
    test: str = "",
    text: str | Sequence[str] = (),
    label: str = "",
    target: str = "",
    metric: str = "",
    max_train_rows: int = 0,
    max_eval_rows: int = 0,
    max_length: int = TrainingSpec.max_length,
    epochs: int = 0,
    unlabeled: str = "",
    learn_from: Sequence[str | Path] = (),
) -> Artifact:
    """Compress a model until it fits, and return the artifact; `multipress compress` as a function.

    What the command prints in the end (before, after, rival, why) lies in `<out>.search/result.json`; the page of all
    tries is made by `multipress report <out>.search/runs -o page.html`. What a user should know of the rows, and a
    limit that is not kept when the winner is measured anew, is a warning (`UserWarning`).

    Args:
        model: A fine-tuned classifier or an encoder: short name, folder or hub id.
        train: File of training rows (CSV, TSV, JSON lines, Parquet); or give `task`.
        dev: File of validation rows.
        out: Folder to make; empty: the model's name and `-compressed`, here.
        max_mb: Most MB of the whole package; this and the next four as in `multipress.budget.limits.Budget`.
        max_ms: Most milliseconds for one text.
        min_score: Least score.
        max_drop: Most that the score may fall.
        minutes: About how long the search may take.
        task: A registered task.
        test: File of rows to report on; empty: half of the validation rows.
        text: One or two text columns; empty: found by name.
        label: Label column; empty: found by name.
        target: `classes` or `number`; empty: found from the labels.
        metric: The metric that is the score; empty: the task's own.
        max_train_rows: Train on a seeded sample; 0: all.
        max_eval_rows: Take a seeded sample of the validation rows; 0: all.
        max_length: Tokens kept of a row.
        epochs: Passes over the rows of a try; 0: as many as the time allows.
        unlabeled: File of texts without labels, in place of `train`, `dev` and `task`: the model itself labels them.
        learn_from: Folders of runs of earlier studies or searches, to begin with what was best there.

    Raises:
        InputError: model, rows or limits cannot be used, or the limits cannot be met.
        RunError: no try kept to the budget.
    """
    data = DataSpec(
        task=task,
        train=train,
        dev=dev,
        text=(text,) if isinstance(text, str) else tuple(text),
        label=label,
        target=target,
        metric=metric,
        max_train_rows=max_train_rows,
        max_eval_rows=max_eval_rows,
    )
    place = Path(out) if out else Path(f"{Path(model).name}-compressed")
    asked = Asked(model, data, test, max_length, epochs, unlabeled, tuple(map(str, learn_from)))
    found = fit(asked, Budget(max_mb, max_ms, min_score, max_drop, minutes), place)
    told = [*found.notes, *(f"The result does not keep to the budget: {missed}." for missed in found.missed)]
    told += ["The result is no better than always guessing the most common label."] * found.guesses
    for note in told:
        warnings.warn(note, stacklevel=2)
    return found.artifact
