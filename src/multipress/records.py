"""What came out: plain records that every room may read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Measurement", "Run", "STATES"]

STATES = ("pending", "running", "done", "failed", "diverged", "refused")


@dataclass(frozen=True)
class Measurement:
    """One measured number.

    Args:
        run_id: The run that made the artifact; empty for an artifact without a run.
        name: What was measured, such as `score`, `weights_bytes`, `latency_p50_ms`.
        value: The number.
        unit: `share`, `bytes`, `ms`, `count`, or empty.
        context: What else decides the number: split, rows, batch size, threads, computer.
    """

    run_id: str
    name: str
    value: float
    unit: str = ""
    context: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Run:
    """One run of a store, as its folder tells it.

    Args:
        run_id: 12 hex digits.
        spec: The run's description (`RunSpec.to_json()`).
        state: One of `STATES`.
        attempts: How many attempts were begun.
        why: Why it failed; empty otherwise.
        retryable: Whether trying again may help.
    """

    run_id: str
    spec: dict[str, Any]
    state: str
    attempts: int = 0
    why: str = ""
    retryable: bool = False

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)
