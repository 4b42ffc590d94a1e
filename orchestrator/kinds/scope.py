"""What a capture knows while it walks a held job, and what it collects on the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

import msgspec

from orchestrator.errors import Blocker, BlockerList
from orchestrator.ids import HostPid, ObjectId, Pid
from orchestrator.image.extents import PageLayout
from orchestrator.kinds.record import Content, Extent, Record

T = TypeVar("T")


class FileCopy(NamedTuple):
    """Bytes that orch itself copies into the image: from one of our descriptors, run by run."""

    fd: int
    extents: list[Extent]
    late: bool = False
    """Whether the bytes are there only when the last acts are done."""


class Shared(NamedTuple):
    """Something of the job that a process outside of it might share."""

    pid: HostPid
    what: str
    key: str | None
    """How --external names it, if it can be left out."""


class Scope(msgspec.Struct):
    """One capture: who belongs to the job, what cannot be saved, and where contents will lie."""

    pids: dict[HostPid, Pid]
    """Every process of the job (threads are not in here), by host pid."""
    names: dict[HostPid, str]
    """How messages call them: "PID (comm)". A process whose main thread has ended is also known by another thread."""
    living: dict[HostPid, HostPid] = msgspec.field(default_factory=dict)
    """For a process whose main thread has ended: the thread by which /proc shows its files and memory."""
    layout: PageLayout = msgspec.field(default_factory=lambda: PageLayout(4096))
    blockers: BlockerList = msgspec.field(default_factory=BlockerList)
    copies: list[FileCopy] = msgspec.field(default_factory=list)
    externals: frozenset[str] = frozenset()
    """Keys of outside resources that the user declared with --external, as "pipe[123]"."""
    found: set[str] = msgspec.field(default_factory=set)
    """Those of them that the job has."""
    stdio: dict[tuple[int, int, int], int] = msgspec.field(default_factory=dict)
    """Standard streams that the job inherited from `orch run`: (st_dev, st_ino, st_rdev) -> 0, 1 or 2."""
    ends: bool = False
    """Whether the job ends with this capture: then things may be taken from it at the very last."""
    bound: Callable[[], AbstractContextManager[None]] = nullcontext
    """Within it the job stands still even if we are killed, until processes that we have forked there have ended."""
    ghost_limit: int = 1 << 40
    """Bytes of an unlinked file that may go into the image."""
    _objects: dict[tuple[str, object], ObjectId] = msgspec.field(default_factory=dict)
    objects: list[Record] = msgspec.field(default_factory=list)
    """Shared things behind open files: pipes, unlinked files, memory objects. An ObjectId is an index."""
    _sole: dict[type, Any] = msgspec.field(default_factory=dict)
    shared: dict[tuple[int, int], Shared] = msgspec.field(default_factory=dict)
    """What an outsider might have open too, by (st_dev, st_ino)."""
    rings: dict[int, HostPid] = msgspec.field(default_factory=dict)
    """Which process has a context of io_setup(2), by the inode of its ring."""
    finishers: list[Callable[[], None]] = msgspec.field(default_factory=list)
    """Called once after all tasks were captured, still held: for what needs the whole picture."""
    last_acts: list[Callable[[], None]] = msgspec.field(default_factory=list)
    """Called, only if the job ends, when all else is in the image, and before ``copies`` are made."""
    farewells: list[Callable[[], None]] = msgspec.field(default_factory=list)
    """Called, only if the job ends, when its image is safe and right before it is killed."""
    closers: list[int] = msgspec.field(default_factory=list)
    """Our own descriptors to close when the capture is over."""

    def seen(self) -> Iterator[HostPid]:
        """Yield the number by which /proc shows each process."""
        return (self.living.get(pid, pid) for pid in self.pids)

    def unsupported(self, pid: HostPid, what: str, reason: str, hint: str | None = None) -> None:
        """Note that ``what`` of process ``pid`` cannot be rebuilt."""
        self.blockers.unsupported.append(Blocker(self.names[pid], what, reason, hint))

    def outside(self, pid: HostPid, what: str, reason: str, hint: str | None = None) -> None:
        """Note that ``what`` of process ``pid`` is shared with somebody outside the job."""
        self.blockers.outside.append(Blocker(self.names[pid], what, reason, hint))

    def is_external(self, key: str) -> bool:
        """Whether the user declared a resource of the job to be outside."""
        if key in self.externals:
            self.found.add(key)
            return True
        return False

    def object(self, kind: str, key: object, make: Callable[[ObjectId], Record]) -> ObjectId:
        """Return the id of the shared object ``key``, making its record on first sight.

        ``make`` may itself ask for other objects; cycles must go through ids, not records.
        """
        found = self._objects.get((kind, key))
        if found is not None:
            return found
        new = ObjectId(len(self.objects))
        self._objects[kind, key] = new
        self.objects.append(_PLACEHOLDER)
        self.objects[new] = make(new)
        return new

    def sole(self, kind: type[T], make: Callable[[], T]) -> T:
        """Return the one object of its kind that this capture has, made when it is first asked for.

        One that can be called is a finisher, too.
        """
        found = self._sole.get(kind)
        if found is None:
            found = self._sole[kind] = make()
            if callable(found):
                self.finishers.append(found)
        assert isinstance(found, kind)
        return found

    def store(self, fd: int, size: int) -> Content:
        """Plan to copy a file or memory object of ``size`` bytes into the image; holes stay holes.

        ``fd`` must stay open until the image is written; put it into ``closers``.
        """
        extents = [Extent(start, end - start, self.layout.place(end - start)) for start, end in data_runs(fd, size)]
        if extents:
            self.copies.append(FileCopy(fd, extents))
        return Content(size, extents)

    def close(self) -> None:
        """Close what the capture opened."""
        for fd in self.closers:
            os.close(fd)
        self.closers.clear()


_PLACEHOLDER = Record()


def data_runs(fd: int, size: int) -> Sequence[tuple[int, int]]:
    """Return the (start, end) byte ranges of a file that are not holes. See lseek(2), SEEK_DATA."""
    runs = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            if error.errno == errno.EINVAL:  # a file system without holes
                return [(position, size)]
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start >= size:
            break
        runs.append((start, end))
        position = end
    return runs
