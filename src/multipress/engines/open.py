"""An engine by its name."""

from __future__ import annotations

import os
from pathlib import Path

from multipress.engines.job import Places
from multipress.engines.schedule import Engine
from multipress.errors import SettingError
from multipress.store import Store

__all__ = ["open_engine"]

SHARE_OF_MEMORY = 0.9
LEAST_MEMORY = 1_000_000_000  # torch and its libraries alone
PART_AT_LEAST = 4_000_000_000  # of many workers; more than any but the largest models take
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def open_engine(
    name: str, store: Store, places: Places, num_workers: int = 0, address: str = "", memory_bytes: int = 0
) -> Engine:
    """An engine to be closed at the end.

    Args:
        name: `local` or `ray`.
        store: Where runs are claimed and committed.
        places: Where models and data are found.
        num_workers: Most runs at a time; 0: one a core, or one a processor of the cluster.
        address: A running Ray cluster's; empty: Ray is started here.
        memory_bytes: Most memory of a run; 0: its part of nine tenths of this computer's, but at least 4 GB; on a
            cluster as much as it likes.

    Raises:
        InputError: Ray is not installed, the cluster cannot be reached, or the limit cannot be kept.
    """
    memory = _memory_here()
    if memory_bytes and memory_bytes < LEAST_MEMORY:
        raise SettingError(
            f"A worker needs {LEAST_MEMORY / 1e9:g} GB to start; the limit is {memory_bytes / 1e9:g} GB."
        )
    if memory_bytes > memory and name == "local":
        raise SettingError(f"The limit is {memory_bytes / 1e9:g} GB; this computer has {memory / 1e9:.1f} GB.")
    if name == "ray":
        from multipress.engines.ray import RayEngine
        from multipress.precision import device

        num_gpus = 1.0 if device().type == "cuda" else 0.0
        return RayEngine(store, places, num_workers, address=address, memory_bytes=memory_bytes, num_gpus=num_gpus)
    from multipress.engines.local import LocalEngine, default_workers

    part = int(SHARE_OF_MEMORY * memory / (num_workers or default_workers()))
    part = min(max(part, PART_AT_LEAST), int(SHARE_OF_MEMORY * memory))
    return LocalEngine(store, places, num_workers, memory_bytes=memory_bytes or part)


def _memory_here() -> int:
    """Bytes of memory that this process may use: the computer's, or less in a container."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CONTAINER_LIMITS:
        try:
            limit = Path(path).read_text().strip()
        except OSError:
            continue
        return min(physical, int(limit)) if limit.isdigit() else physical  # `max`: there is none
    return physical
