"""The sentences a reader takes home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multipress.analysis.cells import DENSE, TRAINING

__all__ = ["told_ends", "told_ratio", "verdict"]

_SURE = 0.05


def verdict(analysis: Mapping[str, Any]) -> list[str]:
    """Plain sentences: how small it gets, whether reductions multiply, what is settled, what to add, what is missing.

    Args:
        analysis: What `analyze_cells` gave.
    """
    made = [
        _smallest(analysis),
        _together(analysis["multiplicativity"]["products"]),
        _settled(analysis["intervals"]["rows"]),
        _order(analysis["priority"]),
        _missing(analysis["states"]),
    ]
    return [sentence for sentence in made if sentence]


def _smallest(analysis: Mapping[str, Any]) -> str:
    one, factors, num_left_out = analysis["smallest"], analysis["multiplicativity"], analysis["means"]["num_left_out"]
    if one is None and analysis["groups"] and any(TRAINING in group["methods"] for group in analysis["groups"]):
        return "These are the tries of a search; how the winner compares with the model before says its model card."
    if one is None:
        return "No dense control is done on every task, so that nothing can be compared with it yet."
    tasks = {group["task"] for group in analysis["groups"] if group["score"]["mean"] is not None}
    where = f"on {next(iter(tasks))}" if len(tasks) == 1 else f"on the mean of {len(tasks)} tasks"
    drop = factors["tolerance"]
    within = f"within {100 * drop:g} %" if factors["relative"] else f"within {drop:g}"
    within += f" of the best dense score {where}"
    if one["label"] == DENSE:
        text = f"Nothing smaller stays {within} ({one['dense_model']})."
    else:
        sure = (
            "" if one["interval"] is None else ", {:+.4f} to {:+.4f} for other rows and seeds".format(*one["interval"])
        )
        text = (
            f"Smallest {within}: {one['model']} with {one['label']}, {one['bytes'] / 1e6:.2f} MB of weights, "
            f"{one['dense_bytes'] / one['bytes']:.1f} times smaller than the stored dense {one['dense_model']}, score "
            f"{one['score']:.4f} ({one['change']:+.4f}{sure})."
        )
    if num_left_out:
        many = f"{_count(num_left_out, 'combination')} of a model and methods {'is' if num_left_out == 1 else 'are'}"
        text += f" {many} not done on every task, and in no mean over tasks."
    return text


def _count(number: int, name: str) -> str:
    return f"1 {name}" if number == 1 else f"{number} {name}s"


def told_ratio(product: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """The ratio a product is judged by and the ends of its interval: net of the drop where that moves the factors."""
    is_net = product["estimator"] == "interpolated"
    names = ("net_ratio", "net_low", "net_high") if is_net else ("ratio", "low", "high")
    ratio, low, high = (product[name] for name in names)
    return ratio, low, high


def told_ends(low: float | None, high: float | None) -> tuple[str, str]:
    """Ends of the interval of a ratio as text; without a bound it goes from `0` to `any`."""
    return "0" if low is None else f"{low:.2f}", "any" if high is None else f"{high:.2f}"


def _together(products: Sequence[Mapping[str, Any]]) -> str:
    found = [one for one in products if one["size"] == "weights_bytes" and one["estimator"] == "interpolated"]
    if not found:
        return "No set of methods is there with all its single methods, so that no product can be told."
    largest = max(found, key=lambda one: len(one["methods"]))
    names = " and ".join([", ".join(largest["methods"][:-1]), largest["methods"][-1]])
    ratio, low, high = told_ratio(largest)
    places = f"{largest['num_values']} of {largest['num_values'] + largest['num_left_out']} pairs of model and task"
    if ratio is None:
        return (
            f"Whether {names} multiply cannot be told: in every pair of model and task a factor is a bound or out of "
            "reach. More model sizes would help."
        )
    ends = ", {} to {}".format(*told_ends(low, high)) if largest["covers"] else ""
    found_in = f"observed over product {ratio:.2f}{ends} (real bytes, interpolated, net of the drop; {places})"
    if largest["covers"] == "rows":
        found_in += "; there is one seed, so that other trainings may differ"
    low, high = largest["tasks_low"], largest["tasks_high"]
    if low is not None or high is not None:
        found_in += "; {} to {} if these tasks are a sample of many".format(*told_ends(low, high))
    said = {"super": "more", "sub": "less"}.get(largest["verdict"])
    if said is None:
        return f"Whether {names} together shrink a model by more or less than their product is not settled: {found_in}."
    return f"Together, {names} shrink a model {said} than the product of each alone: {found_in}."


def _settled(rows: Sequence[Mapping[str, Any]]) -> str:
    overall = [row for row in rows if row["by"] == "all"]
    if not overall:
        return ""
    sure = [row for row in overall if row["p_holm"] < _SURE]
    shown = ", ".join(f"{' x '.join(row['levels'])} {100 * row['mean']:+.2f}" for row in sure)
    text = f"{len(sure)} of {len(overall)} effects on the score are settled after correction for their number"
    text += f" (in points: {shown})" if sure else ""
    if overall[0]["covers"] == "rows":
        return f"{text}. There is one seed, so that only the noise of the validation rows is in this: run a second."
    more = [row["more_seeds"] for row in overall if row["more_seeds"]]
    if more:
        text += f"; if the others stay as they are, {_count(min(more), 'more seed')} would settle the next one"
    return f"{text}."


def _order(priority: Mapping[str, Any]) -> str:
    if not priority["order"]:
        return ""
    text = f"Bytes saved against points lost say: first {', then '.join(priority['order'])}"
    if priority["agrees"] is None:
        return f"{text}."
    paper = ", ".join(priority["paper_order"])
    text += f", {'as the paper advises' if priority['agrees'] else f'unlike the paper ({paper})'}"
    if priority["settled"] is False:
        text += "; not settled: with other models and tasks another order may come out"
    return f"{text}."


def _missing(states: Mapping[str, int]) -> str:
    total = sum(states.values())
    others = ", ".join(f"{count} {state}" for state, count in states.items() if state != "done")
    return f"{states.get('done', 0)} of {total} cells are done; {others}: they are in no mean." if others else ""
