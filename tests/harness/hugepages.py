"""Huge pages in the machine's pool, for as long as something needs them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

WANTED = 20
_RESERVED = "/proc/sys/vm/nr_hugepages"


@contextlib.contextmanager
def huge_pages() -> Iterator[int]:
    """Add some to the pool, and take as many away afterwards; yield how many were added."""
    try:
        added = _change(WANTED)
    except OSError:
        yield 0
        return
    try:
        yield added
    finally:
        _change(-added)


def _change(by: int) -> int:
    """Change the pool's size, and return by how much it has changed; others may do so at the same time."""
    fd = os.open(_RESERVED, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        before = int(os.pread(fd, 32, 0))
        os.pwrite(fd, str(max(0, before + by)).encode(), 0)
        return int(os.pread(fd, 32, 0)) - before
    finally:
        os.close(fd)
