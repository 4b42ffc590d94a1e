"""Files without a name: for what must be written before it can be sent, or read before it can be used."""

from __future__ import annotations

import os

STANDARD = "-"
"""The path that stands for standard input or output."""


def directory() -> str:
    """Return where such files are made: $TMPDIR or what stands in for it."""
    import tempfile  # with what it imports, it takes half as long as all of this package

    return tempfile.gettempdir()


def nameless() -> int:
    """Create a file without a name in $TMPDIR, open for reading and writing. Raises OSError."""
    import tempfile

    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def in_memory() -> int:
    """Create a file that is nowhere but in memory, for what must not touch a disk. See memfd_create(2)."""
    return os.memfd_create("orch-image")
