"""Huge pages in the machine's pool, for as long as something needs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

WANTED = 20
_RESERVED = Path("/proc/sys/vm/nr_hugepages")


@contextlib.contextmanager
def huge_pages() -> Iterator[int]:
    """Reserve some, and give them back afterwards; yield how many there are."""
    try:
        before = int(_RESERVED.read_text())
        _RESERVED.write_text(str(max(before, WANTED)))
        now = int(_RESERVED.read_text())
    except OSError:
        yield 0
        return
    try:
        yield now
    finally:
        _RESERVED.write_text(str(before))
