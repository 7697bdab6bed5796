"""JSON read with no surprises: one object, no key twice, no NaN, no bottomless nesting, no flood of small values."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from multipress.errors import ArtifactError

__all__ = ["parse_object"]

# A list of nothing takes two bytes of text and 64 of memory. The tokenizers of the largest vocabularies have 2 million.
MAX_VALUES = 4_000_000


def parse_object(data: bytes | memoryview, where: str) -> dict[str, Any]:
    """The JSON object that `data` holds.

    Args:
        data: UTF-8 text.
        where: Name of the file, for the message.

    Raises:
        ArtifactError: `data` is not one JSON object, holds a key twice or a number unknown to JSON, or has more values
            than any file of ours; nothing is made of them before.
    """
    text = bytes(data)
    if sum(map(text.count, (b"[", b"{", b","))) > MAX_VALUES:
        raise ArtifactError(f"{where} holds more than {MAX_VALUES:,} values; no file of ours does.")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{where} is not JSON as multipress writes it: {error}. Copy it again.") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{where} holds a {type(value).__name__}, but must hold a JSON object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} is there twice")
    return table


def _refuse(name: str) -> Any:
    raise ValueError(f"it holds {name}")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)
