"""One table row for a cell of a study: what was asked and what was measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from multipress.records import Run
from multipress.spec import known_settings
from multipress.store.attempt import read_text

__all__ = ["cell_row"]

_SIZES = ("ideal_bytes", "weights_bytes", "package_bytes", "dense_bytes")
# Units of numbers that stand in the row itself; every other number is a metric of quality.
_COUNTED = ("bytes", "count", "ms")


def cell_row(run: Run, attempt: Path | str | None) -> dict[str, Any]:
    """The row of a run; `Store.cells` says what it holds.

    Args:
        run: The run.
        attempt: Folder of its attempt that is done, or None.
    """
    state, why = run.state, run.why
    try:
        asked = _asked(run.spec)
    except (KeyError, TypeError, AttributeError) as error:
        asked, state, why = _asked({}), "failed", f"spec.json is damaged: {error!r}."
    row: dict[str, Any] = {
        "run_id": run.run_id,
        "studies": [],
        **asked,
        "state": state,
        "why": why,
        "score": None,
        "metrics": {},
        **dict.fromkeys(_SIZES),
    }
    if state == "done" and attempt is not None:
        try:
            _add_measurements(row, attempt)
            if row["score"] is None:
                raise ValueError("it has no score")
        except (OSError, ValueError, KeyError, TypeError) as error:
            row.update(state="failed", why=f"{attempt}/measurements.jsonl is damaged: {error!r}.")
    return row


def asked_methods(spec: dict[str, Any]) -> dict[str, Any]:
    """`methods` and `settings` of a run's description; `stages` of several.

    Of a round of pruning `mask_from`, the run whose zeros it adds to, and `rewound` where weights were.
    """
    stages = [*spec.get("before", []), spec.get("methods", [])]
    by_name = {method["name"]: known_settings(method["settings"]) for stage in stages for method in stage}
    found: dict[str, Any] = {"methods": list(by_name), "settings": by_name}
    if len(stages) > 1:
        found["stages"] = [[method["name"] for method in stage] for stage in stages]
    if spec.get("mask_from"):
        found["mask_from"] = spec["mask_from"]
        if spec["mask_from"] != spec.get("start", ""):
            found["rewound"] = True
    return found


def _asked(spec: dict[str, Any]) -> dict[str, Any]:
    data = spec.get("data", {})
    return {
        "model": spec.get("model", ""),
        "task": data.get("task") or os.path.basename(data.get("train", "")),
        **asked_methods(spec),
        "seed": spec.get("seed"),
        "learning_rate": spec.get("training", {}).get("learning_rate"),
        "data": dict(data),
        "training": {**spec.get("training", {}), **({"shared_start": spec["shared"]} if spec.get("shared") else {})},
    }


def _add_measurements(row: dict[str, Any], attempt: Path | str) -> None:
    """Change `row`: add what the attempt's measurements.jsonl holds; of a repeated name the first counts."""
    lines = read_text(f"{attempt}/measurements.jsonl").splitlines()
    # One call for all lines takes half the time of one each.
    measurements = json.loads(f"[{','.join(lines)}]")
    if len(measurements) != len(lines):
        raise ValueError("it does not have one measurement a line")
    for measurement in measurements:
        name, value = measurement["name"], measurement["value"]
        if name != "score" and measurement["unit"] not in _COUNTED:
            row["metrics"].setdefault(name, value)
        elif row.get(name) is None:
            row[name] = value
