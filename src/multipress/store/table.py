"""One table row for a cell of a study: what was asked and what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from multipress.records import Run

__all__ = ["cell_row"]

_SIZES = ("ideal_bytes", "weights_bytes", "package_bytes", "dense_bytes")
# Units of numbers that stand in the row itself; every other number is a metric of quality.
_COUNTED = ("bytes", "count", "ms")


def cell_row(run: Run, attempt: Path | None) -> dict[str, Any]:
    """The row of a run; `Store.cells` says what it holds.

    Args:
        run: The run.
        attempt: Folder of its attempt that is done, or None.
    """
    row: dict[str, Any] = {
        "run_id": run.run_id,
        "studies": [],
        **_asked({}),
        "state": run.state,
        "why": run.why,
        "score": None,
        "metrics": {},
        **dict.fromkeys(_SIZES),
    }
    try:
        row.update(_asked(run.spec))
    except (KeyError, TypeError, AttributeError) as error:
        row.update(state="failed", why=f"spec.json is damaged: {error!r}.")
        return row
    if run.state == "done" and attempt is not None:
        try:
            _add_measurements(row, attempt)
            if row["score"] is None:
                raise ValueError("it has no score")
        except (OSError, ValueError, KeyError, TypeError) as error:
            row.update(state="failed", why=f"{attempt / 'measurements.jsonl'} is damaged: {error!r}.")
    return row


def _asked(spec: dict[str, Any]) -> dict[str, Any]:
    data, methods = spec.get("data", {}), spec.get("methods", [])
    return {
        "model": spec.get("model", ""),
        "task": data.get("task") or Path(data.get("train", "")).name,
        "methods": [method["name"] for method in methods],
        "settings": {method["name"]: method["settings"] for method in methods},
        "seed": spec.get("seed"),
        "learning_rate": spec.get("training", {}).get("learning_rate"),
        "data": dict(data),
        "training": dict(spec.get("training", {})),
    }


def _add_measurements(row: dict[str, Any], attempt: Path) -> None:
    """Change `row`: add what the attempt's measurements.jsonl holds; of a repeated name the first counts."""
    for line in (attempt / "measurements.jsonl").read_text(encoding="utf-8").splitlines():
        measurement = json.loads(line)
        name, value = measurement["name"], measurement["value"]
        if name != "score" and measurement["unit"] not in _COUNTED:
            row["metrics"].setdefault(name, value)
        elif row.get(name) is None:
            row[name] = value
