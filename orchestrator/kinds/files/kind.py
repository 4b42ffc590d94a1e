"""What a kind of open file is: its record, its capture, its rebuild.

A kind is one module with one :class:`FileKind`, registered in ``registry.py``.

Capture looks at a descriptor from outside, through /proc and through a descriptor of our own for the
same open file description (pidfd_getfd).

Rebuild happens in the *depot*: one process, the first of the restored job, opens every open file
description of the image before it forks. Standing descriptors there have high numbers
(:meth:`Depot.slot`); the low numbers are free between two kinds, so whatever a kind opens is
descriptor 0 (then 1, 2, ...), and it leaves none of them behind: ``depot.keep(0, file)``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchestrator.ids import DepotFd, HostPid, ObjectId
from orchestrator.kinds.record import Content, Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.pidfd import pidfd_getfd
from orchestrator.linux.proc_fd import FdInfo, read_fdinfo
from orchestrator.tape.build import Tape

O_CLOEXEC = os.O_CLOEXEC


class FdView:
    """One descriptor of a held process, looked at from outside."""

    def __init__(self, pid: HostPid, pidfd: int, fd: int, link: str) -> None:
        self.pid = pid
        self.fd = fd
        self.link = link
        """What /proc/PID/fd/N points to: a path, "pipe:[123]", "anon_inode:[eventpoll]"."""
        self._pidfd = pidfd
        self._local = -1

    @cached_property
    def info(self) -> FdInfo:
        """The contents of /proc/PID/fdinfo/N."""
        return read_fdinfo(self.pid, self.fd)

    @cached_property
    def stat(self) -> os.stat_result:
        """The file behind the descriptor."""
        return os.stat(f"/proc/{self.pid}/fd/{self.fd}")

    @property
    def local(self) -> int:
        """Our own descriptor for the same open file description; it lives as long as the view."""
        if self._local < 0:
            self._local = pidfd_getfd(self._pidfd, self.fd)
        return self._local

    def take_local(self, scope: Scope) -> int:
        """Like :attr:`local`, but it lives until the image is written."""
        fd = os.dup(self.local)
        scope.closers.append(fd)
        return fd

    @property
    def what(self) -> str:
        """How messages call it."""
        return f"fd {self.fd} ({self.link})"

    def close(self) -> None:
        """Give our own descriptor back."""
        if self._local >= 0:
            os.close(self._local)
            self._local = -1


class Owner(Record, frozen=True):
    """Who gets a file's signals (F_SETOWN_EX, F_SETSIG). ``pid`` is the job's own number; see fcntl(2)."""

    type: int
    pid: int
    signal: int


class OpenFile(Record, frozen=True):
    """An open file description: what dup, fork and descriptor passing share."""

    id: ObjectId
    flags: int
    """Access mode and status flags as fdinfo shows them, without O_CLOEXEC."""
    position: int
    body: Any
    """The record of its kind (``registry.py`` types it as the union of all kinds)."""
    owner: Owner | None = None


class Descriptor(Record, frozen=True, array_like=True):
    """One number in a file table."""

    fd: int
    file: ObjectId
    cloexec: bool


class FileTable(Record, frozen=True):
    """A table of descriptors, shared by the tasks that refer to it (CLONE_FILES)."""

    id: ObjectId
    descriptors: list[Descriptor]


@dataclass(slots=True)
class Depot:
    """The process that opens everything, as the kinds see it while they write its tapes."""

    tape: Tape
    base: int
    """All numbers from here on are the depot's."""
    image: DepotFd
    """The image file."""
    pages_at: int
    """Offset of the page data in the image file, in bytes."""
    files: Mapping[ObjectId, OpenFile]
    objects: list[Any]
    """The image's shared objects, by ObjectId."""
    proc: str = "/proc"
    """Where a /proc of the restored PID namespace is mounted."""
    inherited: Mapping[str, DepotFd] = field(default_factory=dict)
    """Outside resources given at restore: key ("pipe[123]", "stdio[0]") -> a standing descriptor of the depot."""
    _next_extra: int = 0
    _extras: dict[tuple[str, ObjectId], DepotFd] = field(default_factory=dict)

    def slot(self, file: ObjectId) -> DepotFd:
        """Return the standing number of an open file description."""
        return DepotFd(self.base + file)

    def extra(self, kind: str, of: ObjectId) -> tuple[DepotFd, bool]:
        """Return a standing number that belongs to a shared object, and whether it is new (not opened yet).

        For memory objects, unlinked files and whatever several open files hang on.
        """
        known = self._extras.get((kind, of))
        if known is not None:
            return known, False
        number = DepotFd(self.base + len(self.files) + 8 + len(self._extras))
        self._extras[kind, of] = number
        return number, True

    def keep(self, scratch: int, standing: DepotFd) -> None:
        """Move what the last call opened as low number ``scratch`` to its standing number."""
        self.tape.dup3(scratch, standing, O_CLOEXEC)
        self.tape.close(scratch)

    def fill(self, fd: int, content: Content) -> None:
        """Set a file's size and copy its contents from the image, inside the kernel."""
        self.tape.ftruncate(fd, content.size)
        for extent in content.extents:
            done = 0
            while done < extent.length:  # sendfile moves at most 0x7ffff000 bytes a call
                part = min(extent.length - done, 0x4000_0000)
                self.tape.lseek(fd, extent.start + done, os.SEEK_SET)
                offset = self.tape.block((self.pages_at + extent.at + done).to_bytes(8, "little"))
                self.tape.sendfile(fd, self.image, offset, part)
                done += part


@dataclass(slots=True)
class Settling:
    """The last words of a kind, in the process that owns a descriptor, when all descriptors are in place."""

    tape: Tape
    fd: int
    """The number under which the owning process holds the file."""
    files: Mapping[ObjectId, OpenFile]
    objects: list[Any]
    depot_slot: Callable[[ObjectId], DepotFd]
    """Depot numbers are still open at this point (they are closed right after)."""


Capture = Callable[[FdView, Scope], Record | None]
"""Return the record, or None after noting a blocker in the scope."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """One kind of open file. The functions stand side by side in the kind's module."""

    name: str
    record: type[Record]
    recognise: Callable[[FdView], bool]
    """Whether a descriptor is of this kind; cheap tests first: the link, then the stat."""
    capture: Capture
    rebuild: Callable[[OpenFile, Depot], None]
    """Write the tape entries that leave the open file at ``depot.slot(file.id)``, with flags and position."""
    settle: Callable[[OpenFile, Settling], None] | None = None
    """What only the owning process can do: epoll registrations, owners of signals."""
    check: Callable[[OpenFile], None] | None = None
    """Before anything is restored: raise FileMissing, FileChanged or ResourceTaken."""
    order: int = 0
    """Kinds with a lower number are rebuilt first; 0 for what hangs on nothing else."""


def recorded_flags(view: FdView) -> int:
    """Return a descriptor's access mode and status flags, without close-on-exec."""
    return view.info.flags & ~O_CLOEXEC
