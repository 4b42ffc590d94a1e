"""What a kind of open file is: its record, its capture, its rebuild.

A kind is one module with one :class:`FileKind`, registered in ``registry.py``.

Capture looks at a descriptor from outside, through /proc and through a descriptor of our own for the
same open file description (pidfd_getfd).

Rebuild happens in the *depot*: one process, the first of the restored job, opens every open file
description of the image before it forks. Standing descriptors there have numbers of their own
(:meth:`Depot.slot`); the low numbers are free between two kinds, so whatever a kind opens is
descriptor 0 (then 1, 2, ...), and it leaves none of them behind: ``depot.keep(0, file)``. When all
are open, ``connect`` ties them to each other. What only the owning process can do (owners of signals,
files that show their opener) is done there by ``settle``, after its descriptors are in place.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import msgspec

from orchestrator.ids import DepotFd, HostPid, ObjectId, Pid
from orchestrator.kinds.files.locks import FileLock, PosixLock
from orchestrator.kinds.files.slots import Slots
from orchestrator.kinds.record import Content, Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.nsfs import CLONE_FILES
from orchestrator.linux.pidfd import pidfd_getfd
from orchestrator.linux.proc_fd import FdInfo, Foretold, read_fdinfo
from orchestrator.tape.build import Tape

T = TypeVar("T")

O_CLOEXEC = os.O_CLOEXEC
_WALL = 0x40000000
_clone_args = struct.Struct("=11Q")
_FIRST = Pid(1)


class Held(NamedTuple):
    """A descriptor that is known to hold an open file of the image."""

    pid: HostPid
    fd: int
    file: ObjectId
    link: str


class OpenFiles(Protocol):
    """All open files of a capture, for kinds that refer to others (``table.py`` has them)."""

    def adopt(self, fd: int, pid: HostPid, what: str) -> ObjectId | None:
        """Take in an open file that only we hold at ``fd`` (a message brought it to ``what`` of ``pid``)."""

    def at(self, pid: HostPid, fd: int) -> Held | None:
        """Return what a process has at a number."""

    def of_inode(self, inode: int) -> Iterable[Held]:
        """Return one holder of each open file of an inode."""

    def tables_with(self, file: ObjectId) -> int:
        """Count the tables that have an open file."""


class FdView:
    """One descriptor of a held process, looked at from outside."""

    is_mapping = False
    """Whether it is a mapping instead, of what the process need not have open any more."""

    def __init__(
        self,
        pid: HostPid,
        pidfd: int,
        fd: int,
        link: str,
        files: OpenFiles | None = None,
        info: FdInfo | None = None,
        foretold: Foretold | None = None,
    ) -> None:
        self.pid = pid
        self.fd = fd
        self.link = link
        """What /proc/PID/fd/N points to: a path, "pipe:[123]", "anon_inode:[eventpoll]"."""
        self.files = files
        """The others of this capture; complete when the scope's finishers run."""
        self.foretold = foretold
        """What was found out about it beforehand."""
        self._pidfd = pidfd
        self._local = -1
        self._info = info
        self._stat = foretold.status if foretold is not None else None
        self._sock: socket.socket | None = None
        self._family = -1

    @property
    def info(self) -> FdInfo:
        """The contents of /proc/PID/fdinfo/N."""
        if self._info is None:
            self._info = self.look_up()
        return self._info

    def look_up(self) -> FdInfo:
        """Read :attr:`info`."""
        return read_fdinfo(self.pid, self.fd)

    @property
    def stat(self) -> os.stat_result:
        """The file behind the descriptor."""
        if self._stat is None:
            self._stat = self.look_at()
        return self._stat

    def look_at(self) -> os.stat_result:
        """Read :attr:`stat`."""
        return os.fstat(self.local)

    @property
    def sock(self) -> socket.socket:
        """A socket object for :attr:`local`. Family and type are only Python's own note there."""
        if self._sock is None:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=self.local)
        return self._sock

    @property
    def family(self) -> int:
        """The address family of the socket behind the descriptor; 0 (AF_UNSPEC) if it is none."""
        if self._family < 0:
            self._family = 0
            if self.link.startswith("socket:["):
                self._family = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
        return self._family

    @property
    def path(self) -> str:
        """A path by which we can open the same file once more."""
        return f"/proc/{self.pid}/fd/{self.fd}"

    @property
    def local(self) -> int:
        """Our own descriptor for the same open file description; it lives as long as the view."""
        if self._local < 0:
            self._local = pidfd_getfd(self._pidfd, self.fd)
        return self._local

    @property
    def unread(self) -> int:
        """How many bytes wait to be read."""
        count: int = struct.unpack("=i", fcntl.ioctl(self.local, termios.FIONREAD, b"\0\0\0\0"))[0]
        return count

    def take_local(self, scope: Scope) -> int:
        """Like :attr:`local`, but it lives until the image is written."""
        fd = os.dup(self.local)
        scope.closers.append(fd)
        return fd

    def take_reader(self, scope: Scope) -> int:
        """Open the file for reading, whatever the descriptor allows; ours until the image is written."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        scope.closers.append(fd)
        return fd

    @property
    def what(self) -> str:
        """How messages call it."""
        return f"fd {self.fd} ({self.link})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give our own descriptor back."""
        if self._sock is not None:
            self._sock.detach()
            self._sock = None
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
    locks: tuple[FileLock, ...] = ()
    """Those of flock(2) and F_OFD_SETLK."""


class Descriptor(Record, frozen=True, array_like=True):
    """One number in a file table."""

    fd: int
    file: ObjectId
    cloexec: bool


class FileTable(Record, frozen=True):
    """A table of descriptors, shared by the tasks that refer to it (CLONE_FILES)."""

    id: ObjectId
    descriptors: list[Descriptor]
    locks: tuple[PosixLock, ...] = ()
    """Those of F_SETLK: the table owns them."""


class Depot(msgspec.Struct):
    """The process that opens everything, as the kinds see it while they write its tapes."""

    tape: Tape
    slots: Slots
    """Where it keeps what."""
    image: DepotFd
    """The image file."""
    pages_at: int
    """Offset of the page data in the image file, in bytes."""
    files: Mapping[ObjectId, OpenFile]
    objects: list[Any]
    """The image's shared objects, by ObjectId."""
    pid: Pid = _FIRST
    """What the process is called in the job."""
    proc: str = "/proc"
    """Where a /proc of the restored PID namespace is mounted."""
    inherited: Mapping[str, DepotFd] = msgspec.field(default_factory=dict)
    """Outside resources given at restore: key ("pipe[123]", "stdio[0]") -> a standing descriptor of the depot."""
    scratch_address: int = 0x10_0000_0000
    """An address of the depot process with nothing behind it: shared memory is made there, and unmapped again."""
    helpers: list[Tape] = msgspec.field(default_factory=list)
    """What children of the depot play, in the order of their births in its tape."""
    _extras: dict[tuple[str, ObjectId], DepotFd] = msgspec.field(default_factory=dict)
    _users: dict[ObjectId, list[OpenFile]] = msgspec.field(default_factory=dict)
    _sole: dict[type, Any] = msgspec.field(default_factory=dict)

    def slot(self, file: ObjectId) -> DepotFd:
        """Return the standing number of an open file description."""
        return self.slots.of(file)

    def extra(self, kind: str, of: ObjectId) -> tuple[DepotFd, bool]:
        """Return a standing number that belongs to a shared object, and whether it is new (not opened yet).

        For memory objects, unlinked files and whatever several open files hang on.
        """
        known = self._extras.get((kind, of))
        if known is not None:
            return known, False
        number = self._extras[kind, of] = self.slots.take()
        return number, True

    def close_extras(self, kind: str) -> None:
        """Close the standing numbers of one kind of shared objects; nobody asks for them any more."""
        for (owner, _), number in self._extras.items():
            if owner == kind:
                self.tape.close(number)

    def users(self, of: ObjectId) -> list[OpenFile]:
        """Return the open files, ascending, whose record has this shared object in its field ``object``."""
        if not self._users:
            for id_ in sorted(self.files):
                file = self.files[id_]
                shared = getattr(file.body, "object", None)
                if shared is not None:
                    self._users.setdefault(shared, []).append(file)
        return self._users.get(of, [])

    def sole(self, kind: type[T], make: Callable[[], T]) -> T:
        """Return the one object of its kind that this depot has, made when it is first asked for."""
        found = self._sole.get(kind)
        if found is None:
            found = self._sole[kind] = make()
        assert isinstance(found, kind)
        return found

    def keep(self, scratch: int, standing: DepotFd) -> None:
        """Move what the last call opened as low number ``scratch`` to its standing number."""
        self.tape.dup3(scratch, standing, O_CLOEXEC)
        self.tape.close(scratch)

    def let_child_play(self, helper: Tape) -> None:
        """Let a child with the depot's own descriptors play a tape, at whose end it ends, and wait for that."""
        self.helpers.append(helper)
        arguments = self.tape.block(_clone_args.pack(CLONE_FILES, *bytes(10)))
        self.tape.wait4(self.tape.clone3(arguments, _clone_args.size), 0, _WALL, 0)

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


class Settling(msgspec.Struct):
    """The last words of a kind, in the process that owns a descriptor, when all descriptors are in place."""

    tape: Tape
    fd: int
    """The number under which the owning process holds the file."""
    files: Mapping[ObjectId, OpenFile]
    objects: list[Any]
    depot_slot: Callable[[ObjectId], DepotFd]
    """Depot numbers are still open at this point (they are closed right after)."""
    cloexec: bool = False
    first: bool = True
    """Whether this is the one descriptor of all that does what is done once for an open file."""
    free: int = 0
    """The lowest number that the table leaves free: what is opened gets it."""
    numbers: Mapping[int, ObjectId] = msgspec.field(default_factory=dict)
    """The table of this process."""
    handed_round: Collection[ObjectId] = ()
    """The files that one process has opened for all who share them."""


Capture = Callable[[FdView, Scope], Record | None]
"""Return the record, or None after noting a blocker in the scope."""


class FileKind(msgspec.Struct, frozen=True):
    """One kind of open file. The functions stand side by side in the kind's module."""

    name: str
    record: type[Record]
    recognise: Callable[[FdView], bool]
    """Whether a descriptor is of this kind; cheap tests first: the link, then the stat."""
    capture: Capture
    rebuild: Callable[[OpenFile, Depot], None]
    """Write the tape entries that leave the open file at ``depot.slot(file.id)``, with flags and position."""
    settle: Callable[[OpenFile, Settling], None] | None = None
    """What only the owning process can do; called for each descriptor of each table."""
    connect: Callable[[OpenFile, Depot], None] | None = None
    """What ties open files to each other (epoll registrations): in the depot, when all are open."""
    objects: tuple[type[Record], ...] = ()
    """The records that this kind puts into the scope's shared objects."""
    check: Callable[[OpenFile], None] | None = None
    """Before anything is restored: raise FileMissing, FileChanged or ResourceTaken."""
    finish: Callable[[OpenFile, int, list[Any], HostPid], None] | None = None
    """What tapes cannot do, when all are open, from outside: given our own descriptor for the open file, the shared
    objects, and the depot's process."""
    order: int = 0
    """Kinds with a lower number are rebuilt first; 0 for what hangs on nothing else."""
    others: Callable[[OpenFile, Sequence[Any]], Iterable[ObjectId]] | None = None
    """Which other open files it refers to, given the shared objects."""
    may_open: Callable[[OpenFile, Sequence[Any], Pid], bool] | None = None
    """Whether a process, if nobody else has the file, may open it for itself when all processes are there."""
    links: str = ""
    """How the links begin that it may recognise: it is not asked about any other."""


def anybody(_file: OpenFile, _objects: Sequence[Any], _pid: Pid) -> bool:
    """Let whichever process has a file open it: nothing tells who did."""
    return True


def recorded_flags(view: FdView) -> int:
    """Return a descriptor's access mode and status flags, without close-on-exec."""
    return view.info.flags & ~O_CLOEXEC
