"""What the page's script draws, as one JSON document inside the page."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from multipress.analysis.cells import MEAN_TASK
from multipress.plain_text import plain
from multipress.report.figure import NUM_CLASSES, Key
from multipress.report.text import state_text

__all__ = ["data_json", "page_data"]

_SIZES = {"weights": "weights_bytes", "ideal": "ideal_bytes", "package": "package_bytes", "ms": "latency_ms"}


def page_data(analysis: Mapping[str, Any], key: Key, made: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Points, effects and products with short names.

    Args:
        analysis: What `analyze_cells` gave.
        key: The models and method sets of the figure.
        made: By run id, `command` (which makes it again) and `parts` (rows of `group_sizes`); a run may be missing.
    """
    groups = analysis["groups"]
    tasks = list(dict.fromkeys(group["task"] for group in groups))
    sets = list(key.colors)
    points = [_point(group, i, key, sets) for i, group in enumerate(groups)]
    if len(tasks) > 1:
        means = _means(analysis["means"]["rows"], points, key)
        points += means
        tasks = [MEAN_TASK, *tasks] if means else tasks
    shares = {
        (row["task"], row["model"], row["label"]): row["share"]
        for row in analysis["frontier"]["weights_bytes"]
        if "share" in row
    }
    for point in points:
        share = shares.get((point["task"], key.models[point["model"]], point["label"]))
        if share is not None:
            point["share"] = share
    used = dict.fromkeys(run_id for point in points for run_id in point["runs"])
    return {
        "tasks": tasks,
        "models": list(key.models),
        "sets": [{"name": key.names[s], "color": key.colors[s] % NUM_CLASSES} for s in sets],
        "points": points,
        "runs": {run_id: made[run_id] for run_id in used if run_id in made},
        "timing": analysis["timing"],
        "level": analysis["intervals"]["level"],
        "effects": [_effect(row) for row in analysis["intervals"]["rows"]],
        "products": analysis["multiplicativity"]["products"],
        "byDrop": analysis["multiplicativity"]["by_drop"],
        "drop": analysis["multiplicativity"]["tolerance"],
    }


def data_json(data: Mapping[str, Any] | str) -> str:
    """JSON that cannot end the element it stands in; names lose what would turn or break a line."""
    text = json.dumps(_plain(data), separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return "\n".join(plain(line) for line in value.split("\n"))
    if isinstance(value, Mapping):
        return {plain(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return round(value, 7) if isinstance(value, float) and abs(value) < 1e6 else value


def _point(group: Mapping[str, Any], number: int, key: Key, sets: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    score, change = group["score"], group["change"]
    return {
        "id": number,
        "task": group["task"],
        "model": key.models.index(group["model"]),
        "set": sets.index(tuple(group["methods"])),
        "label": group["label"],
        "score": score["mean"],
        "ends": group.get("interval"),
        "seeds": [score["n"], score["low"], score["high"]],
        "change": change["mean"],
        "state": state_text(group),
        "runs": group["run_ids"][:1],
        **{name: group["sizes"].get(size) for name, size in _SIZES.items()},
    }


def _means(rows: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]], key: Key) -> list[dict[str, Any]]:
    """Means over tasks as points; a click on one leads to the first seed of each task."""
    own: dict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for point in points:
        if point["score"] is not None:
            own[point["model"], point["label"]].append(point)
    found: list[dict[str, Any]] = []
    for row in rows:
        model = key.models.index(row["model"])
        members = own[model, row["label"]]
        found.append(
            {
                "id": len(points) + len(found),
                "task": MEAN_TASK,
                "model": model,
                "set": members[0]["set"],
                "label": row["label"],
                "score": row["score"],
                "ends": row["interval"],
                "seeds": [min(point["seeds"][0] for point in members), None, None],
                "change": row["change"],
                "state": "",
                "runs": [run_id for point in members for run_id in point["runs"]],
                **{name: row["sizes"].get(size) for name, size in _SIZES.items()},
            }
        )
    return found


def _effect(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": " × ".join(row["levels"]),
        "order": len(row["levels"]),
        "by": row["by"],
        "where": row["where"],
        "mean": row["mean"],
        "low": row["low"],
        "high": row["high"],
        "p": row["p_holm"],
        "blocks": row["num_blocks"],
        "covers": row["covers"],
        "more": row["more_seeds"],
    }
