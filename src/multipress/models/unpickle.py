"""The child process of `convert`: reads one pickle checkpoint, without network and programs, and writes its tensors.

Run as `python -P unpickle.py SOURCE TARGET MEMORY_BYTES SECONDS`, without the rest of the package; `convert` is its one
caller. Before the file is opened, the kernel is told to end this process at its memory and processor limits and to
refuse it every socket and every new process or program (seccomp, which a process cannot take back). The file is then
read by torch with `weights_only=True`, which itself refuses whatever is not a tensor. Files are not closed to the
process: it is the second fence, not the first.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource
import struct
import sys
from pathlib import Path
from typing import Any

__all__ = ["CAN_CONFINE", "REFUSED", "main"]

REFUSED = 3  # exit code: the file was read and refused; the reason is on standard error

# For each kind of computer: its number for the kernel's filters; the calls refused there, which are socket,
# socketpair, connect, execve, execveat, fork, vfork, ptrace and io_uring_setup (which can open sockets too); and the
# number of clone.
_CALLS = {
    "x86_64": (0xC000003E, (41, 53, 42, 59, 322, 57, 58, 101, 425), 56),
    "aarch64": (0xC00000B7, (198, 199, 203, 221, 281, 117, 425), 220),
}
_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000  # on x86-64, calls of the 32-bit variant, by other numbers
CAN_CONFINE = sys.platform == "linux" and platform.machine() in _CALLS


def confine(memory_bytes: int, seconds: int) -> None:
    """Limit this process for good.

    Args:
        memory_bytes: Bytes it may use beyond what it has now, and the largest file it may write.
        seconds: Processor time.

    Raises:
        OSError: the kernel refuses the filter.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _refuse_calls()


def _refuse_calls() -> None:
    """Install a seccomp filter: the listed calls fail, those of another architecture end the process."""
    architecture, calls, clone = _CALLS[platform.machine()]
    # Instructions of the kernel's packet filter, each with how many lines to skip if true, if false; and its answers.
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, end, failing = 0x7FFF0000, 0x80000000, 0x00050000
    refuse, unknown = failing | errno.EPERM, failing | errno.ENOSYS
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, end), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, _X32_BIT), (answer, 0, 0, end)]
    for call in calls:
        program += [(equal, 0, 1, call), (answer, 0, 0, refuse)]
    # A thread may be made, a process not. What clone3 makes lies in memory that a filter cannot see, so it is as if
    # this kernel did not have it, and the C library takes clone.
    program += [(equal, 0, 1, _CLONE3), (answer, 0, 0, unknown)]
    program += [(equal, 0, 3, clone), (load, 0, 0, 16), (any_bit, 1, 0, _CLONE_THREAD), (answer, 0, 0, refuse)]
    program.append((answer, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    # struct sock_fprog: the number of instructions, and where they are.
    described = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    for arguments in (
        (no_new_privileges, 1, 0, 0, 0),
        (set_seccomp, filter_mode, ctypes.addressof(described), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(arguments: list[str]) -> int:
    """Convert one file; returns the exit code."""
    source, target, memory_bytes, seconds = arguments
    # All that is needed is imported before the doors close.
    import pickle

    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    confine(int(memory_bytes), int(seconds))
    try:
        tensors = _tensors(torch.load(source, map_location="cpu", weights_only=True))
        save_file(tensors, target)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            return _refuse(f"it holds more than tensors: it names {named[1]}")
        return _refuse("it holds more than tensors, or is no checkpoint of PyTorch")  # torch's own words are no help
    except (MemoryError, RuntimeError) as error:
        text = (str(error).splitlines() or ["out of memory"])[0]
        return _refuse(f"it cannot be read within {int(memory_bytes) / 1e6:.0f} MB: {text}")
    except (ValueError, TypeError, EOFError, OSError) as error:
        return _refuse((str(error).splitlines() or [type(error).__name__])[0])
    except (KeyError, IndexError, AttributeError, AssertionError):  # what the reader makes of other files
        return _refuse("it is no checkpoint of PyTorch")
    return 0


def _tensors(loaded: Any) -> dict[str, Any]:
    """The tensors by name, each with memory of its own.

    Raises:
        ValueError: the file holds something else.
    """
    import torch

    if not isinstance(loaded, dict) or not loaded:
        raise ValueError(f"it holds a {type(loaded).__name__}, not tensors by name")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{str(name)[:80]!r} is a {type(value).__name__}, not a tensor")
    return {name: value.detach().clone().contiguous() for name, value in loaded.items()}


def _refuse(reason: str) -> int:
    sys.stderr.write(reason + "\n")
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
