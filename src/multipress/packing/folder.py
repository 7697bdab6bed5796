"""Files of a folder from a stranger: no link followed, no surprise in size, nothing that is not expected."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from multipress.errors import ArtifactError

__all__ = ["list_unexpected", "read_bounded"]


def read_bounded(folder: Path, name: str, max_bytes: int) -> bytes:
    """Content of a regular file of the folder.

    Raises:
        ArtifactError: it is missing, a link, no regular file, or has more than `max_bytes` bytes.
    """
    try:
        # O_NONBLOCK: a named pipe must not make us wait. Neither flag exists on Windows.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(folder / name, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactError(f"{name} of {folder} is no regular file.")
            if status.st_size > max_bytes:
                raise ArtifactError(
                    f"{name} of {folder} has {status.st_size} bytes, but at most {max_bytes} are right. Copy it again."
                )
            return file.read(status.st_size)  # as much as it asks for is made beforehand
    except FileNotFoundError:
        raise ArtifactError(f"{folder} has no {name}. It is no artifact, or its writing was cut short.") from None
    except OSError as error:
        if (folder / name).is_symlink():
            raise ArtifactError(f"{name} of {folder} is a link; copy the file itself there.") from None
        raise ArtifactError(f"{name} of {folder} cannot be read: {error.strerror}.") from None


def list_unexpected(folder: Path, expected: frozenset[str]) -> list[str]:
    """Names in the folder that are not expected, sorted."""
    names = os.listdir(folder)
    # A temporary file is what an interrupted write leaves behind; nothing reads it.
    return sorted(name for name in names if name not in expected and not (name[0] == "." and name.endswith(".tmp")))
