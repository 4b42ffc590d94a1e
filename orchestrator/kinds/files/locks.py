"""Locks on files: flock(2), F_OFD_SETLK and F_SETLK; and leases. See proc_locks(5), F_SETLEASE in fcntl(2)."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.kinds.record import Record
from orchestrator.tape.build import Tape

F_OFD_GETLK, F_OFD_SETLK = 36, 37
_SEEK_SET = os.SEEK_SET
_AT_FDCWD = -100
_flock = struct.Struct("=hh4xqqi4x")
assert _flock.size == 32
_TYPES = {"READ": fcntl.F_RDLCK, "WRITE": fcntl.F_WRLCK, "UNLCK": fcntl.F_UNLCK}


class FileLock(Record, frozen=True, array_like=True):
    """A lock that belongs to an open file description."""

    whole: bool
    """Whether it is one of flock(2), not of F_OFD_SETLK."""
    type: int
    """F_RDLCK or F_WRLCK."""
    start: int = 0
    length: int = 0
    """In bytes; 0 reaches to the end of the file, wherever that will be."""
    taker: int = 0
    """The process of the job that took a lock of flock(2), which the kernel shows: see proc_locks(5). 0 if unknown."""
    lease: bool = False
    """Whether it is a lease instead: of ``type``, on the whole file."""
    breaking: int = -1
    """What a lease that is being broken is to become: F_RDLCK or F_UNLCK; else -1."""


class PosixLock(Record, frozen=True, array_like=True):
    """A lock that belongs to a file table, taken through any descriptor of the file."""

    fd: int
    type: int
    start: int
    length: int


class LockLine(NamedTuple):
    """A line of fdinfo about a lock."""

    style: str
    """"FLOCK", "OFDLCK", "POSIX", "LEASE"..."""
    type: int
    start: int
    length: int
    pid: int
    """Who took it, as the reader numbers processes; -1 of F_OFD_SETLK, 0 who has ended."""
    active: bool = True
    """Whether it holds: not a lease that is being broken, nor somebody who waits."""


def parse_lock(text: str) -> LockLine:
    """Parse the value of a "lock:" line: "1: POSIX  ADVISORY  WRITE 1234 fe:00:77 0 EOF"."""
    words = text.split()
    style, type_, start, end = words[1], words[3], words[-2], words[-1]
    first = int(start)
    length = 0 if end == "EOF" else int(end) - first + 1
    active = words[2] not in ("BREAKING", "BREAKER", "BROKEN")
    return LockLine(style, _TYPES.get(type_, -1), first, length, int(words[-4]), active)


def take_file_locks(tape: Tape, fd: int, locks: Sequence[FileLock]) -> None:
    """Take the locks of an open file; EAGAIN if somebody else has one. Any descriptor will do."""
    for lock in locks:
        if lock.lease:
            continue
        if lock.whole:
            tape.flock(fd, (fcntl.LOCK_SH if lock.type == fcntl.F_RDLCK else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        else:
            tape.fcntl(fd, F_OFD_SETLK, _flock.pack(lock.type, _SEEK_SET, lock.start, lock.length, 0))


def take_leases(tape: Tape, fd: int, locks: tuple[FileLock, ...], path: str) -> None:
    """Take the leases of an open file, in a process that has it at ``fd``: who breaks it is told with that number.

    One that was being broken is broken again, by opening ``path``, while its owner is nobody: it has been told.
    """
    for lock in locks:
        if lock.lease:
            tape.fcntl(fd, fcntl.F_SETLEASE, lock.type)
            if lock.breaking >= 0:
                tape.fcntl(fd, fcntl.F_SETOWN, 0)
                access = os.O_RDONLY if lock.breaking == fcntl.F_RDLCK else os.O_WRONLY
                tape.openat(_AT_FDCWD, path, access | os.O_NONBLOCK | os.O_CLOEXEC, 0, may_fail=True)  # EAGAIN


def conflicting(path: str, locks: tuple[FileLock, ...]) -> FileLock | None:
    """Return the first of these locks that somebody has who would be in the way now."""
    locks = tuple(lock for lock in locks if not lock.lease)
    if not locks:
        return None
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return next((lock for lock in locks if _is_taken(fd, lock)), None)
    finally:
        os.close(fd)


def _is_taken(fd: int, lock: FileLock) -> bool:
    if not lock.whole:
        asked = _flock.pack(lock.type, _SEEK_SET, lock.start, lock.length, 0)
        return bool(_flock.unpack(fcntl.fcntl(fd, F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if lock.type == fcntl.F_RDLCK else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False  # closing gives it back


def take_posix_locks(tape: Tape, locks: tuple[PosixLock, ...]) -> None:
    """Take the locks of a file table, in a task that owns it.

    Not before the task has closed what it does not keep: closing any descriptor of a file drops them all.
    """
    for lock in locks:
        tape.fcntl(lock.fd, fcntl.F_SETLK, _flock.pack(lock.type, _SEEK_SET, lock.start, lock.length, 0))
