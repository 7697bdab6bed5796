"""Rows of a dissection beside the run that made the artifact: computed once, then read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from multipress.artifact import MANIFEST
from multipress.dissect.run import Dissection
from multipress.dissect.side import Side
from multipress.durable import write_bytes, write_text
from multipress.errors import StoreError
from multipress.records import Measurement
from multipress.reproducibility import file_sha256
from multipress.store import Store, read_text

__all__ = ["Answer", "check_runs", "kept_rows", "read_kept"]

_ROWS, _MATCHES = "measurements.jsonl", "matches.safetensors"
Answer = tuple[list[Measurement], list[np.ndarray]]  # what `Dissection.rows_of` gives


def check_runs(store: Store, sides: list[Side]) -> None:
    """Refuse artifacts that the store did not make, before anything is computed.

    Raises:
        StoreError: there is no such folder, or an artifact's run is not done in it.
    """
    for side in sides:
        run_id = side.run_id
        done = store.done(run_id) if run_id else None
        manifest = done / "artifact" / MANIFEST if done is not None else Path()
        if done is None or not manifest.is_file() or file_sha256(manifest) != side.sha256:
            raise StoreError(
                f"{side.given} was not made by a run of {store.folder} (its run is {run_id or 'not named'}), "
                "so its rows have no place there. Leave --runs out, or name the folder of its run."
            )


def read_kept(store: Store, side: Side, name: str) -> Answer | None:
    """The rows that are kept under a name beside the run of an artifact; None if there are none."""
    done = store.done(side.run_id, name)
    if done is None:
        return None
    rows = [Measurement(**json.loads(line)) for line in read_text(done / _ROWS).splitlines()]
    matches = load_file(done / _MATCHES)
    return rows, [matches[str(layer)] for layer in range(len(matches))]


def kept_rows(store: Store, dissection: Dissection, side: Side) -> Answer:
    """The rows of an artifact, out of the store or computed and kept there.

    Raises:
        StoreError: another process dissects it at this moment, or the disk failed.
    """
    name = dissection.name
    kept = read_kept(store, side, name)
    if kept is not None:
        return kept
    attempt = store.claim(side.run_id, name)
    if attempt is None:
        kept = read_kept(store, side, name)
        if kept is None:
            raise StoreError(f"Another process dissects {side.artifact.folder}. Wait for it and run this again.")
        return kept
    try:
        rows, matches = dissection.rows_of(side)
        lines = [json.dumps(row.to_json()) + "\n" for row in rows]
        write_text(attempt.folder / _ROWS, "".join(lines))
        named = {str(layer): np.ascontiguousarray(best) for layer, best in enumerate(matches)}
        write_bytes(attempt.folder / _MATCHES, save(named))
        attempt.commit()
    finally:
        attempt.release()
    return rows, matches
