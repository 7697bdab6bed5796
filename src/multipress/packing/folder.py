"""Files of a folder from a stranger: no link followed, no surprise in size, nothing that is not expected."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from multipress.errors import ArtifactError

__all__ = ["FileBytes", "list_unexpected", "open_bounded", "read_bounded"]


class FileBytes:
    """A file's bytes, read where they are asked for, so that no more is in memory than that.

    Args:
        file: The file; open as long as this is used.
        size: Its bytes.

    Raises:
        ArtifactError: at reading, the file has become shorter.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> memoryview:
        start, stop, _ = part.indices(self._size)
        self._file.seek(start)
        data = self._file.read(stop - start)
        if len(data) < stop - start:
            raise ArtifactError(f"{self._file.name} was cut while it was read. Copy it again.")
        return memoryview(data)


@contextmanager
def open_bounded(folder: Path, name: str, max_bytes: int) -> Iterator[FileBytes]:
    """A regular file of the folder, opened.

    Raises:
        ArtifactError: it is missing, a link, no regular file, cannot be read, or has more than `max_bytes` bytes.
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
            yield FileBytes(file, status.st_size)
    except FileNotFoundError:
        raise ArtifactError(f"{folder} has no {name}. It is no artifact, or its writing was cut short.") from None
    except OSError as error:
        if (folder / name).is_symlink():
            raise ArtifactError(f"{name} of {folder} is a link; copy the file itself there.") from None
        raise ArtifactError(f"{name} of {folder} cannot be read: {error.strerror}.") from None


def read_bounded(folder: Path, name: str, max_bytes: int) -> bytes:
    """Content of a regular file of the folder; raises as `open_bounded` does."""
    with open_bounded(folder, name, max_bytes) as data:
        return data[:].tobytes()


def list_unexpected(folder: Path, expected: frozenset[str]) -> list[str]:
    """Names in the folder that are not expected, sorted."""
    names = os.listdir(folder)
    # A temporary file is what an interrupted write leaves behind; nothing reads it.
    return sorted(name for name in names if name not in expected and not (name[0] == "." and name.endswith(".tmp")))
