"""Huge pages for the tests that use them, for as long as the suite runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

WANTED = 20
_RESERVED = Path("/proc/sys/vm/nr_hugepages")


@contextlib.contextmanager
def huge_pages() -> Iterator[None]:
    """Reserve some; give them back afterwards. Without any, the tests that need them say so."""
    try:
        before = int(_RESERVED.read_text())
        _RESERVED.write_text(str(max(before, WANTED)))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        _RESERVED.write_text(str(before))
