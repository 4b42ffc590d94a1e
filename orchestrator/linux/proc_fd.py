"""/proc/PID/fd and fdinfo: the descriptors of a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol, Self

from orchestrator.linux.procfs import read_file, read_record

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LONG = 32768
"""What is longer may be an epoll's with thousands of lines, and more than one read returns."""


class FdInfo(NamedTuple):
    """One fdinfo file. ``flags`` are O_* bits, O_CLOEXEC among them.

    ``ino`` is 0 where the kernel does not tell it (before 5.14). ``extra`` holds the remaining lines as
    (key, value) in their order, e.g. ("eventfd-count", "0"), ("tfd", "5 events: ..."),
    ("inotify", "wd:1 ino:..."), ("lock", "1: POSIX ...").
    """

    pos: int
    flags: int
    mnt_id: int
    ino: int
    extra: tuple[tuple[str, str], ...]

    def get(self, key: str) -> str | None:
        """Return the value of the first extra line with this key."""
        for name, value in self.extra:
            if name == key:
                return value
        return None

    def all(self, key: str) -> list[str]:
        """Return the values of every extra line with this key."""
        return [value for name, value in self.extra if name == key]


class Foretold(NamedTuple):
    """What somebody who looked at a descriptor before us has found out about it."""

    place: int
    """Where it is among those alike of which he told before; ~P if it is none of them, and belongs to place P."""
    status: os.stat_result | None = None
    """Of the file behind it, if he asked."""
    signals: tuple[int, int, int] | None = None
    """F_GETOWN_EX (type, host number) and F_GETSIG, if he asked."""


class Descriptors(Protocol):
    """The descriptors of one process."""

    foretold: Foretold | None
    """What else is known about the one that was yielded last."""

    def __iter__(self) -> Iterator[tuple[int, FdInfo]]:
        """Yield them, ascending."""

    def link(self, fd: int) -> str:
        """Say what the descriptor that was yielded last points to."""


class ProcFds:
    """The descriptors of one process, asked one after the other: the way through /proc is gone but once."""

    foretold: Foretold | None = None

    def __init__(self, pid: int) -> None:
        self._fd, self._fdinfo = os.open(f"/proc/{pid}/fd", _DIRECTORY), -1
        try:
            self._fdinfo = os.open(f"/proc/{pid}/fdinfo", _DIRECTORY)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        os.close(self._fdinfo)

    def numbers(self) -> list[int]:
        """List the open descriptors, ascending."""
        return sorted(map(int, os.listdir(self._fd)))

    def link(self, fd: int) -> str:
        """Say what a descriptor points to, e.g. "pipe:[123]" or "/tmp/x (deleted)"."""
        return os.readlink(str(fd), dir_fd=self._fd)

    def raw(self, fd: int) -> bytes:
        """Read what the kernel tells about one descriptor."""
        return _read(str(fd), self._fdinfo)

    def info(self, fd: int) -> FdInfo:
        """Read and parse it."""
        return parse_fdinfo(self.raw(fd))

    def __iter__(self) -> Iterator[tuple[int, FdInfo]]:
        for fd in self.numbers():
            yield fd, self.info(fd)


def count_fds(pid: int) -> int:
    """Count the open descriptors of a process; 0 if it is gone, or the kernel does not tell (before 6.2)."""
    try:
        return os.stat(f"/proc/{pid}/fd").st_size
    except OSError:
        return 0


def list_fds(pid: int) -> list[int]:
    """List the open descriptors of a process, ascending."""
    return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))


def readlink_fd(pid: int, fd: int) -> str:
    """Say what a descriptor points to, e.g. "pipe:[123]" or "/tmp/x (deleted)"."""
    return os.readlink(f"/proc/{pid}/fd/{fd}")


def _extra(line: str) -> tuple[str, str]:
    if line.startswith(("inotify ", "fanotify ")):
        key, _, value = line.partition(" ")
    else:
        key, _, value = line.partition(":")
    return key, value.strip()


@lru_cache(maxsize=1024)  # processes that inherit descriptors have equal ones
def parse_fdinfo(raw: bytes) -> FdInfo:
    """Parse one fdinfo file."""
    lines = raw.decode(errors="surrogateescape").split("\n")
    pos, flags, mnt_id = lines[0], lines[1], lines[2]
    if not (pos.startswith("pos:") and flags.startswith("flags:") and mnt_id.startswith("mnt_id:")):
        raise ValueError(f"fdinfo does not begin with pos, flags, mnt_id: {lines[:3]}")
    ino, rest = 0, 3
    if lines[3].startswith("ino:"):
        ino, rest = int(lines[3][4:]), 4
    extra = tuple([_extra(line) for line in lines[rest:] if line])
    return FdInfo(int(pos[4:]), int(flags[6:], 8), int(mnt_id[7:]), ino, extra)


def read_fdinfo(pid: int, fd: int) -> FdInfo:
    """Read what the kernel tells about one descriptor."""
    return parse_fdinfo(_read(f"/proc/{pid}/fdinfo/{fd}"))


def _read(path: str, directory: int | None = None) -> bytes:
    raw = read_record(path, directory)
    return raw if len(raw) < _LONG else read_file(path, directory)
