"""A tensor as it is stored: integer codes with a scale a row or a group of a row, or floats."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from multipress.errors import ArtifactError
from multipress.packing.packet import entropy_bound_bytes

__all__ = ["BITS", "StoredTensor", "is_scale", "round_floats", "stored_dtype"]

BITS = (2, 3, 4, 6, 8, 16, 32)


def stored_dtype(bits: int) -> np.dtype[Any]:
    """The dtype of values of so many bits: float32, float16, or int8 for codes."""
    return np.dtype({16: "float16", 32: "float32"}.get(bits, "int8"))


def is_scale(dtype: str, shape: tuple[int, ...], of: tuple[int, ...]) -> bool:
    """Whether an array can be the scale of codes of a shape."""
    by_group = len(shape) == len(of) == 2 and shape[0] == of[0] and 1 < shape[1] <= of[1] and of[1] % shape[1] == 0
    return dtype == "float16" and bool(of) and (shape in (of[:1], (1,)) or by_group)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it is stored.

    Args:
        values: int8 codes (`bits` of 8 or less), float16 (16) or float32 (32); any shape.
        scale: For codes float16 (rows,), one a row of axis 0, or (1,), one for all, or (rows, groups), one for each of
            so many equal parts of a row; None for floats.
        bits: 2, 3, 4, 6 or 8 for codes, which lie from -(2**(bits-1)-1) to 2**(bits-1)-1, so that zero is
            exact; 16 or 32 for floats.

    Raises:
        ArtifactError: the parts do not fit together.
    """

    values: np.ndarray
    scale: np.ndarray | None
    bits: int

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ArtifactError(f"A stored tensor has {self.bits} bits; known are: {BITS}.")
        if self.values.dtype != stored_dtype(self.bits):
            raise ArtifactError(
                f"A tensor of {self.bits} bits has {self.values.dtype} values, not {stored_dtype(self.bits)}."
            )
        if self.bits > 8:
            if self.scale is not None:
                raise ArtifactError(f"A tensor of {self.bits} bits holds floats and takes no scale.")
            return
        if self.scale is None or not is_scale(self.scale.dtype.name, self.scale.shape, self.values.shape):
            raise ArtifactError(
                f"Codes of shape {self.values.shape} need a float16 scale a row, an equal part of one, or for all."
            )
        limit = 2 ** (self.bits - 1) - 1
        if self.values.size and (int(self.values.min()) < -limit or int(self.values.max()) > limit):
            raise ArtifactError(f"A tensor of {self.bits} bits holds codes beyond -{limit} to {limit}.")

    def dense(self) -> np.ndarray:
        """What the model computes with, float32: exactly float32(code) * float32(scale of its row or group)."""
        if self.scale is None:
            return self.values.astype(np.float32)
        values = self.values
        if self.has_groups:
            values = values.reshape(*self.scale.shape, values.shape[1] // self.scale.shape[1])
        scale = self.scale.astype(np.float32).reshape(self.scale.shape + (1,) * (values.ndim - self.scale.ndim))
        dense: np.ndarray = np.multiply(values, scale, dtype=np.float32)
        return dense.reshape(self.values.shape)

    @property
    def has_groups(self) -> bool:
        """Whether a row has more than one scale; integer operators know one a row."""
        return self.scale is not None and self.scale.ndim == 2

    @property
    def nonzeros(self) -> int:
        """How many values are not zero."""
        return int(np.count_nonzero(self.values))

    @property
    def entropy_bound_bytes(self) -> int:
        """Entropy of the values, and the scale at its stored width, rounded up."""
        return math.ceil(entropy_bound_bytes(self.values)) + (0 if self.scale is None else self.scale.nbytes)

    def sha256(self) -> str:
        """Hash of the decoded bytes, little-endian: values, then scale."""
        digest = hashlib.sha256(np.ascontiguousarray(self.values).data)
        if self.scale is not None:
            digest.update(np.ascontiguousarray(self.scale).data)
        return digest.hexdigest()


def round_floats(values: np.ndarray, *, is_exact: bool = False) -> StoredTensor:
    """Store floats as float16, or as float32 where a finite value would become infinite.

    The rounded values are what ships and what must be measured.

    Args:
        values: Floats of any shape.
        is_exact: Whether they stay float32, as what is added to an output that may be a year or a price.
    """
    full = np.ascontiguousarray(values, dtype=np.float32).reshape(np.shape(values))
    with np.errstate(over="ignore"):
        half = full.astype(np.float16)
    if not is_exact and np.array_equal(np.isinf(half), np.isinf(full)):
        return StoredTensor(half, None, 16)
    return StoredTensor(full, None, 32)
