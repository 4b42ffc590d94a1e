"""The way to a file of procfs: few system calls, big buffers, bytes.

A path may be relative to the descriptor of a directory. Somebody may have read ahead, see foretold(). A task that ends
meanwhile shows as FileNotFoundError (at open) or ProcessLookupError (at read).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

_STEP_BYTES = 65536
_open = os.open
_read = os.read
_close = os.close
_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_foretold: Callable[[str], Any] | None = None


@contextlib.contextmanager
def foretold(take: Callable[[str], Any]) -> Iterator[None]:
    """Ask ``take`` first, who returns what was read of a path before, or None."""
    global _foretold  # noqa: PLW0603
    _foretold = take
    try:
        yield
    finally:
        _foretold = None


def read_before(path: str) -> Any:
    """Return what somebody has read of a path before; None if there is nobody, or nothing."""
    return None if _foretold is None else _foretold(path)


def read_file(path: str, directory: int | None = None) -> bytes:
    """Read a whole file. A read of procfs may be short before the end, so only an empty one is the end."""
    if directory is None and (known := read_before(path)) is not None:
        return known  # type: ignore[no-any-return]
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


def read_link(path: str) -> str:
    """Read a symbolic link."""
    found = read_before(path)
    return os.readlink(path) if found is None else found


def inode_at(path: str) -> int:
    """Return the inode number of what a link leads to."""
    found = read_before(path)
    return os.stat(path).st_ino if found is None else found


def read_record(path: str, directory: int | None = None) -> bytes:
    """Read a file that the kernel prints as one record below 64 KiB: one read gives all of it."""
    if directory is None and (known := read_before(path)) is not None:
        return known  # type: ignore[no-any-return]
    fd = _open(path, _FLAGS, dir_fd=directory)
    try:
        return _read(fd, _STEP_BYTES)
    except OSError as error:
        error.add_note(f"read {path}")
        raise
    finally:
        _close(fd)
