"""Where the numbers come from: library versions (the artifact's manifest) and computers (beside the artifact)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from multipress.store import Store

__all__ = ["provenance"]

_KINDS = ("versions", "computer")


def provenance(store: Store, cells: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The different sets of library versions and the different computers behind the cells that are done.

    Returns:
        `versions` and `computer`, each a list of `{"cells", "facts"}`, the most frequent first. What
        cannot be read is counted with empty facts: the counts add up to the cells.
    """
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in _KINDS}
    for cell in cells:
        attempt = store.done(cell["run_id"]) if cell["state"] == "done" else None
        if attempt is None:
            continue
        try:
            facts = json.loads((attempt / "artifact" / "manifest.json").read_text(encoding="utf-8"))["facts"]
            around = json.loads((attempt / "circumstances.json").read_text(encoding="utf-8"))
            found = {"versions": dict(facts["versions"]), "computer": dict(around["computer"])}
        except (OSError, ValueError, KeyError, TypeError):
            found = {kind: {} for kind in _KINDS}
        for kind in _KINDS:
            counts[kind][json.dumps(found[kind], sort_keys=True)] += 1
    return {
        kind: [{"cells": count, "facts": json.loads(text)} for text, count in counts[kind].most_common()]
        for kind in _KINDS
    }
