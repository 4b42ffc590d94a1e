"""The way to a file of procfs: few system calls, big buffers, bytes.

A path may be relative to the descriptor of a directory. A task that ends meanwhile shows as FileNotFoundError (at
open) or ProcessLookupError (at read).
"""

from __future__ import annotations

import os

_STEP_BYTES = 65536
_open = os.open
_read = os.read
_close = os.close
_FLAGS = os.O_RDONLY | os.O_CLOEXEC


def read_file(path: str, directory: int | None = None) -> bytes:
    """Read a whole file. A read of procfs may be short before the end, so only an empty one is the end."""
    fd = _open(path, _FLAGS, dir_fd=directory)
    try:
        parts = [_read(fd, _STEP_BYTES)]
        while step := _read(fd, _STEP_BYTES):
            parts.append(step)  # procfs gives a page at a time, and tens of MiB of smaps
    except OSError as error:
        error.add_note(f"read {path}")
        raise
    finally:
        _close(fd)
    return b"".join(parts)


def read_record(path: str, directory: int | None = None) -> bytes:
    """Read a file that the kernel prints as one record below 64 KiB: one read gives all of it."""
    fd = _open(path, _FLAGS, dir_fd=directory)
    try:
        return _read(fd, _STEP_BYTES)
    except OSError as error:
        error.add_note(f"read {path}")
        raise
    finally:
        _close(fd)
