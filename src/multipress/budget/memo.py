"""Answers that took time, kept in a file, so that the same search goes the same way again, at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from multipress.durable import write_json
from multipress.errors import StoreError

__all__ = ["Memo", "key_of", "read_values"]


class Memo:
    """A JSON file of answers by their questions.

    Args:
        path: The file; made when the first answer is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, question: Sequence[Any], answer: Callable[[], Any]) -> Any:
        """The answer that is kept, or else the one computed now, which is kept.

        Args:
            question: All that decides the answer, as plain JSON values.
            answer: Computes it, as plain JSON values; None is not kept.

        Raises:
            StoreError: the file is damaged.
        """
        known = read_values(self._path)
        key = key_of(question)
        if key not in known:
            known[key] = answer()
            if known[key] is None:
                return None
            write_json(self._path, known)
        return known[key]


def key_of(question: Sequence[Any]) -> str:
    """The name under which what belongs to a question, plain JSON values, is kept."""
    return hashlib.sha256(json.dumps(question).encode()).hexdigest()[:16]


def read_values(path: Path) -> dict[str, Any]:
    """The values of a JSON file by their names; none where it is missing; raises `StoreError` where it is damaged."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise StoreError(f"{path} is damaged. Remove it: what it says is found again.")
    return values
