"""The two sentences a reader takes home."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from multipress.analysis.cells import DENSE
from multipress.analysis.multiplicativity import geometric_mean

__all__ = ["products", "verdict"]

WITHIN = 0.01


def verdict(analysis: Mapping[str, Any]) -> list[str]:
    """Two sentences: how small it gets at nearly the best dense score, and whether reductions multiply.

    Args:
        analysis: What `analyze_cells` gave.
    """
    return [_smallest(analysis["groups"]), _together(analysis["multiplicativity"]["rows"])]


def products(rows: Sequence[Mapping[str, Any]], size: str, estimator: str) -> list[dict[str, Any]]:
    """Observed over product of each set of two methods or more, as geometric means over the dense models.

    Args:
        rows: The rows of the analysis' `multiplicativity`.
        size: Which bytes.
        estimator: Which estimator.

    Returns:
        Rows `{"methods", "ratio", "net_ratio", "num_values", "num_left_out"}`; with several tasks they are
        made from the means over tasks. A model is left out where a factor is a bound or was not reached.
    """
    rows = [row for row in rows if row["size"] == size and row["estimator"] == estimator]
    if any(row["task"] == "mean" for row in rows):
        rows = [row for row in rows if row["task"] == "mean"]
    by_methods: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if len(row["methods"]) > 1:
            by_methods[tuple(row["methods"])].append(row)
    found = []
    for methods, own in by_methods.items():
        ratios = [row["ratio"] for row in own if row["ratio"] is not None]
        net = [row["net_ratio"] for row in own if row["net_ratio"] is not None]
        found.append(
            {
                "methods": list(methods),
                "ratio": geometric_mean(ratios),
                "net_ratio": geometric_mean(net),
                "num_values": len(ratios),
                "num_left_out": len(own) - len(ratios),
            }
        )
    return found


def _smallest(groups: Sequence[Mapping[str, Any]]) -> str:
    means = _means(groups)
    dense = {key: one for key, one in means.items() if key[1] == DENSE}
    if not dense:
        return "No dense control is done on every task, so that nothing can be compared with it yet."
    best_model, best = max(dense.items(), key=lambda item: item[1][0])
    near = [key for key, (score, _) in means.items() if score >= best[0] - WITHIN]
    model, label = min(near, key=lambda key: (means[key][1], -means[key][0]))
    score, size = means[model, label]
    tasks = {group["task"] for group in groups}
    where = f"on {next(iter(tasks))}" if len(tasks) == 1 else f"on the mean of {len(tasks)} tasks"
    if label == DENSE:
        return f"Nothing smaller stays within {WITHIN:g} of the best dense score {where} ({best_model[0]})."
    return (
        f"Smallest within {WITHIN:g} of the best dense score {where}: {model} with {label}, "
        f"{size / 1e6:.2f} MB of weights, {best[1] / size:.1f} times smaller than the stored dense "
        f"{best_model[0]}, score {score:.4f} ({score - best[0]:+.4f})."
    )


def _means(groups: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean score and bytes over tasks by model and label, of what every task has."""
    num_tasks = len({group["task"] for group in groups})
    found = defaultdict(list)
    for group in groups:
        if group["score"]["mean"] is not None and group["sizes"].get("weights_bytes") is not None:
            found[group["model"], group["label"]].append((group["score"]["mean"], group["sizes"]["weights_bytes"]))
    return {
        key: (fmean(score for score, _ in values), fmean(size for _, size in values))
        for key, values in found.items()
        if len(values) == num_tasks
    }


def _together(rows: Sequence[Mapping[str, Any]]) -> str:
    texts = []
    for estimator in ("discrete", "interpolated"):
        found = products(rows, "weights_bytes", estimator)
        if not found:
            return "No set of methods is there with all its single methods, so that no product can be told."
        largest = max(found, key=lambda one: len(one["methods"]))
        names = ", ".join(largest["methods"])
        if largest["ratio"] is None:
            texts.append(f"not known ({estimator}: every factor is a bound or out of reach)")
        else:
            net = largest["net_ratio"]
            net_text = f", {net:.2f} net of the tolerance" if net and estimator == "interpolated" else ""
            texts.append(
                f"{largest['ratio']:.2f} ({estimator}{net_text}; {_models(largest['num_values'])}, "
                f"{largest['num_left_out']} left out)"
            )
    return f"Size reduction of {names} together over the product of each alone, real bytes: {'; '.join(texts)}."


def _models(count: int) -> str:
    return "1 model" if count == 1 else f"{count} models"
