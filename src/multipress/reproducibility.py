"""Seeds, threads, versions, and a description of the computer. Importing it imports nothing heavy."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["computer", "cpu_flags", "file_sha256", "library_versions", "seed_for"]


def seed_for(*parts: object) -> int:
    """A seed from 0 to 2**63 - 1 that depends on all parts, the same on every computer."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions by distribution name; an absent one is left out. Local parts such as `+cpu` stay."""
    versions = {name: _version(name) for name in names}
    return {name: version for name, version in versions.items() if version is not None}


@cache
def _version(name: str) -> str | None:
    # Looked up once: it takes a millisecond, and what is imported stays the version it was.
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of this CPU as Linux names them; empty where they cannot be read."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


@cache
def computer() -> dict[str, Any]:
    """What a reader of a timing needs to know; no host name, user or path."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "instruction_sets": sorted(
            cpu_flags() & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8"}
        ),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
