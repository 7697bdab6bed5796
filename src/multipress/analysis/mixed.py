"""Effects and interactions by a mixed model over tasks, models and seeds, beside the plain means.

Fixed effects: every level and every combination of levels that the grid asks for, coded so that a coefficient is the
alternating sum of `interaction`. Random: a level of the score for each task, for each model within a task, and for each
seed within both, and what each method does differently for a model on a task. On a whole grid the coefficients are the
plain means; where cells are missing, the model still uses the blocks that the plain means leave out.

References:
    Laird and Ware (1982); restricted maximum likelihood by statsmodels' MixedLM.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from multipress.analysis.cells import Cell, levels_json
from multipress.analysis.interaction import Levels
from multipress.analysis.uncertainty import LEVEL, holm, student_quantile, student_tail

__all__ = ["MixedEffect", "mixed_model"]

_SEARCH = "powell"  # needs no gradient, which is wrong where a random part is nothing
_NOT_CONVERGED = "The fit did not converge; trust the plain means."
_MOST_TERMS = 80
_MOST_METHODS = 6  # above which what differs between models and tasks is not fitted for each
_FEWEST_PLACES = 3  # models and tasks, below which what differs between them is not fitted
_FEWEST_FREE = 3  # cells beyond the coefficients, below which nothing is fitted


@dataclass(frozen=True)
class MixedEffect:
    """A fixed effect.

    Args:
        levels: Methods and their levels; several: their interaction.
        mean: The coefficient, a share of 1.
        low: Lower end of its interval.
        high: Upper end.
        p_holm: Chance of one so far from 0 if there were none, corrected for all of them.
    """

    levels: Levels
    mean: float
    low: float
    high: float
    p_holm: float

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self) | levels_json(self.levels)


def mixed_model(cells: Sequence[Cell], level: float = LEVEL) -> dict[str, Any]:
    """Fit the mixed model.

    Args:
        cells: Cells of a study; those that are done and whose combination has all its subsets count.
        level: Share of the repetitions in which an interval holds the truth.

    Returns:
        `rows` (as `MixedEffect` has them), `sd` (standard deviations of the random parts and of what is left),
        `num_cells`, and `note`: why there are no rows, or that the fit did not converge.
    """
    done = [cell for cell in cells if cell.is_done]
    asked = dict.fromkeys(cell.levels for cell in done)
    terms = sorted(
        (one for one in asked if one and all(s in asked for n in range(len(one)) for s in combinations(one, n))),
        key=len,
    )
    used = [cell for cell in done if not cell.levels or cell.levels in terms]
    if not terms or len(used) < len(terms) + 1 + _FEWEST_FREE:
        return _nothing("There are too few cells for it.", len(used))
    scores = np.array([cell.score for cell in used], dtype=float)
    design = np.array([[1.0, *(float(set(term) <= set(cell.levels)) for term in terms)] for cell in used])
    if len(terms) > _MOST_TERMS:
        return _nothing(f"It would have {len(terms)} effects; at most {_MOST_TERMS} are fitted.", len(used))
    if float(np.ptp(scores)) == 0 or np.linalg.matrix_rank(design) < design.shape[1]:
        return _nothing("The scores do not differ, or the cells do not tell the effects apart.", len(used))
    try:
        from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec
    except ImportError:
        return _nothing("It needs statsmodels: pip install 'multipress[report]'.", len(used))
    groups, scale = [cell.task for cell in used], float(scores.std())
    # With one task its level is the intercept.
    common = np.ones((len(used), 1)) if len(set(groups)) > 1 else None
    spec, names = _random_parts(used, VCSpec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a random part that is nearly nothing shows in `sd`
        try:
            # In units of their spread, so that the search sees numbers of one size.
            model = MixedLM(scores / scale, design, groups=groups, exog_re=common, exog_vc=spec)
            fit = model.fit(reml=True, method=_SEARCH)
        except (np.linalg.LinAlgError, ValueError) as error:
            return _nothing(f"It could not be fitted: {error}.", len(used))
        # As many as a t test over the places, which the random parts are of, would have.
        dof = max(1, len({(cell.task, cell.model) for cell in used}) - 1)
        made = _result(fit, terms, names, (level, scale, dof))
    return made | {
        "num_cells": len(used),
        "note": "" if fit.converged else _NOT_CONVERGED,
    }


def _nothing(note: str, num_cells: int) -> dict[str, Any]:
    return {"rows": [], "sd": {}, "num_cells": num_cells, "note": note}


def _random_parts(cells: Sequence[Cell], spec: Any) -> tuple[Any, list[str]]:
    """Indicators of the random parts within each task, as statsmodels takes them."""
    places = {(cell.task, cell.model) for cell in cells}
    parts: dict[str, list[str | None]] = {}
    # With one seed a model's level and its seed's are the same; with one model, the task's and the model's.
    if len({model for _, model in places}) > 1:
        parts["model"] = [cell.model for cell in cells]
    if len({(cell.task, cell.model, cell.seed) for cell in cells}) > len(places):
        parts["seed"] = [f"{cell.model}\n{cell.seed}" for cell in cells]
    methods = sorted({name for cell in cells for name, _ in cell.levels})
    if len(places) >= _FEWEST_PLACES and len(methods) <= _MOST_METHODS:
        for method in methods:
            parts[method] = [cell.model if method in dict(cell.levels) else None for cell in cells]
    names, columns, matrices = list(parts), [], []
    tasks = sorted({cell.task for cell in cells})
    for name in names:
        own_columns, own = [], []
        for task in tasks:
            values = [one for one, cell in zip(parts[name], cells, strict=True) if cell.task == task]
            kinds = sorted({value for value in values if value is not None})
            own.append(np.array([[float(value == kind) for kind in kinds] for value in values]))
            own_columns.append(kinds)
        columns.append(own_columns)
        matrices.append(own)
    return (spec(names, columns, matrices) if names else None), names


def _result(fit: Any, terms: Sequence[Levels], names: Sequence[str], how: tuple[float, float, float]) -> dict[str, Any]:
    level, scale, dof = how
    reach = student_quantile(level, dof)
    means, errors = scale * np.asarray(fit.fe_params)[1:], scale * np.asarray(fit.bse_fe)[1:]
    distances = np.abs(np.asarray(fit.tvalues)[1 : len(terms) + 1])
    p = holm([student_tail(float(one), dof) if math.isfinite(one) else 1.0 for one in distances])
    rows = [
        MixedEffect(term, float(mean), float(mean - reach * se), float(mean + reach * se), one).to_json()
        for term, mean, se, one in zip(terms, means, errors, p, strict=True)
        if math.isfinite(se)
    ]
    variances = {"task": float(np.asarray(fit.cov_re)[0, 0])} if np.asarray(fit.cov_re).size else {}
    variances |= {name: float(value) for name, value in zip(names, np.atleast_1d(fit.vcomp), strict=False)}
    variances["rest"] = float(fit.scale)
    return {"rows": rows, "sd": {name: scale * math.sqrt(max(value, 0.0)) for name, value in variances.items()}}
