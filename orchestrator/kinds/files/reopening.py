"""Open files once more: from the depot's own descriptors, and with the flags they had."""

from __future__ import annotations

import fcntl
import os

from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, OpenFile
from orchestrator.tape.build import Tape

AT_FDCWD = -100
O_LARGEFILE = 0o100000
FASYNC = 0o20000
"""Told at the end, with the owner of the signals."""
SETTABLE = os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT | os.O_NOATIME
"""What F_SETFL can change."""
_OPENED = (
    os.O_ACCMODE | SETTABLE | os.O_SYNC | os.O_DSYNC | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_PATH | O_LARGEFILE
)  # fmt: skip


def open_flags(flags: int) -> int:
    """Return those of a file's flags that openat(2) is given for a path."""
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        flags &= ~os.O_DIRECTORY  # a part of it
    return flags & _OPENED | os.O_NOCTTY | O_CLOEXEC


def reopen(depot: Depot, source: int, file: OpenFile, *, scratch: int = 0) -> None:
    """Open the file behind one of the depot's descriptors as one more open file description, and keep that.

    ``scratch`` is the lowest number that is free.
    """
    path = f"{depot.proc}/self/fd/{source}"
    depot.tape.openat(AT_FDCWD, path, open_flags(file.flags) & ~os.O_NOFOLLOW, 0)
    if not file.flags & os.O_PATH:
        seek(depot.tape, scratch, file)
    depot.keep(scratch, depot.slot(file.id))


def seek(tape: Tape, fd: int, file: OpenFile) -> None:
    """Set the position."""
    if file.position:
        tape.lseek(fd, file.position, os.SEEK_SET)


def set_status(tape: Tape, fd: int, flags: int, have: int = 0) -> None:
    """Set the status flags of something that was not opened by a path; ``have`` are those it has."""
    if flags & SETTABLE != have & SETTABLE:
        tape.fcntl(fd, fcntl.F_SETFL, flags & SETTABLE)


def set_async(tape: Tape, fd: int, flags: int) -> None:
    """Let signals come (O_ASYNC)."""
    tape.fcntl(fd, fcntl.F_SETFL, flags & (SETTABLE | FASYNC))
