"""What a compressed model must keep to, checked before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from multipress.errors import SettingError

__all__ = ["Budget"]

MINUTES = 30.0
ROUNDING = 1e-9  # a drop that is just allowed is not lost to the rounding of a difference


@dataclass(frozen=True)
class Budget:
    """Limits of size, latency, score and time.

    What is free is optimized: with a limit of score the smallest model that keeps it, else the best score within the
    size or the latency.

    Args:
        max_mb: Most MB (10^6 bytes) of the whole package.
        max_ms: Most milliseconds for one text on this computer, median, one thread, computed in integers
            (`predict --precision int8`); of 128 tokens, or of the most that a row keeps if these are fewer.
        min_score: Least score.
        max_drop: Most that the score may be below that of the model before, 0.01 is one point. This and `min_score` are
            kept by a standard error or more where a try can be found that does.
        minutes: About how long the search may take.

    Raises:
        SettingError: no limit is given, a number cannot be, or two say the same.
    """

    max_mb: float | None = None
    max_ms: float | None = None
    min_score: float | None = None
    max_drop: float | None = None
    minutes: float = MINUTES

    def __post_init__(self) -> None:
        if all(value is None for value in (self.max_mb, self.max_ms, self.min_score, self.max_drop)):
            raise SettingError("No limit is given. Say at least one of --max-mb, --max-ms, --min-score, --max-drop.")
        for name, value in (("max-mb", self.max_mb), ("max-ms", self.max_ms), ("time-limit", self.minutes)):
            if value is not None and not 0 < value < math.inf:
                raise SettingError(f"--{name} is {value}, but must be above 0.")
        for name, value in (("min-score", self.min_score), ("max-drop", self.max_drop)):
            if value is not None and not 0 <= value <= 1:
                what, least = ("points", 1) if name == "max-drop" else ("%", 10)
                hint = f" For {value:g} {what}, write {value / 100:g}." if least < value <= 100 else ""
                raise SettingError(f"--{name} is {value}, but is a share from 0 to 1.{hint}")
        if self.max_drop == 1:
            raise SettingError("--max-drop is 1, but that allows any score. For 1 point, write 0.01.")
        for limit in ("max_mb", "max_ms", "min_score", "max_drop", "minutes"):
            value = getattr(self, limit)
            object.__setattr__(self, limit, None if value is None else float(value))  # 5 and 5.0 are one limit
        if self.min_score is not None and self.max_drop is not None:
            raise SettingError("--min-score and --max-drop both say how good the model must be. Give one.")

    @property
    def max_bytes(self) -> float:
        """Most bytes of the package; infinity where there is no limit."""
        return math.inf if self.max_mb is None else self.max_mb * 1e6

    def least_score(self, before: float) -> float | None:
        """The least score that will do, given that of the model before; None where any will."""
        if self.max_drop is not None:
            return before - self.max_drop - ROUNDING
        return self.min_score
