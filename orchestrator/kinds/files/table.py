"""Collect the open files of a held job, each open file description once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.files import io_uring
from orchestrator.kinds.files.alike import Looks, find, looks
from orchestrator.kinds.files.external import capture_external
from orchestrator.kinds.files.kind import Descriptor, FdView, FileTable, Held, recorded_flags
from orchestrator.kinds.files.locks import FileLock, LockLine, PosixLock, parse_lock
from orchestrator.kinds.files.owner import capture_owner, has_owner
from orchestrator.kinds.files.refused import is_internal, refuse
from orchestrator.kinds.files.registry import FileRecord, recognise
from orchestrator.kinds.files.reopening import O_LARGEFILE
from orchestrator.kinds.scope import Scope
from orchestrator.linux.kcmp import KCMP_FILE, kcmp
from orchestrator.linux.pidfd import open_task, pidfd_open
from orchestrator.linux.proc_fd import Descriptors, FdInfo, ProcFds, readlink_fd
from orchestrator.linux.proc_maps import MapLine

_NOTHING = ObjectId(-1)


class MappedView(FdView):
    """A file behind a mapping of a held process, as if the process had a descriptor of it."""

    is_mapping = True

    def __init__(self, pid: HostPid, line: MapLine, writable: bool) -> None:
        self._line = line
        self._writable = writable
        self.pid = pid
        super().__init__(pid, -1, -1, os.readlink(self.path))

    @property
    def path(self) -> str:
        return f"/proc/{self.pid}/map_files/{self._line.start:x}-{self._line.end:x}"

    def look_at(self) -> os.stat_result:
        """Look at the mapped file."""
        return os.stat(self.path)

    def look_up(self) -> FdInfo:
        """Say what fdinfo would show of a descriptor opened for this mapping."""
        return FdInfo(0, (os.O_RDWR if self._writable else os.O_RDONLY) | O_LARGEFILE, 0, self._line.inode, ())

    @property
    def local(self) -> int:
        if self._local < 0:
            self._local = os.open(self.path, self.info.flags | os.O_CLOEXEC)
        return self._local

    @property
    def what(self) -> str:
        return f"memory {self._line.start:#x}-{self._line.end:#x} ({self.link})"


class _EnteredView(FdView):
    """The directory that a process is in, as if it had a descriptor of it."""

    def __init__(self, pid: HostPid, name: str) -> None:
        self._name = name
        super().__init__(pid, -1, -1, os.readlink(f"/proc/{pid}/{name}"))

    @property
    def path(self) -> str:
        return f"/proc/{self.pid}/{self._name}"

    def look_at(self) -> os.stat_result:
        """Look at the directory."""
        return os.stat(self.path)

    def look_up(self) -> FdInfo:
        """Say what fdinfo would show of a descriptor opened for this."""
        return FdInfo(0, os.O_RDONLY | os.O_DIRECTORY | O_LARGEFILE, 0, self.stat.st_ino, ())

    @property
    def what(self) -> str:
        return f"{self._name} ({self.link})"


class _AdoptedView(FdView):
    """A descriptor of our own, in messages called by what it came from."""

    def __init__(self, own: HostPid, pidfd: int, fd: int, what: str, files: FileCollector) -> None:
        super().__init__(own, pidfd, fd, "", files)
        self._what = what

    @property
    def what(self) -> str:
        return f"{self._what} ({self.link})"


class FileCollector:
    """The open files of one capture, by ObjectId."""

    def __init__(
        self, scope: Scope, descriptors: Callable[[HostPid], AbstractContextManager[Descriptors]] = ProcFds
    ) -> None:
        self.scope = scope
        self._descriptors = descriptors
        self.files: list[FileRecord] = []
        self.tables: list[FileTable] = []
        self._known: dict[Looks, list[Held]] = {}
        """Sorted in the order of kcmp(2)."""
        self._foretold: dict[Looks, list[Held]] = {}
        """Those of whose place there we were told, likewise."""
        self._of_process: dict[HostPid, dict[int, Held]] = {}
        self._of_inode: dict[int, list[Held]] = {}
        self._mapped: dict[tuple[tuple[int, int], int, bytes, bool, bool], ObjectId] = {}
        self._breaking: set[tuple[int, int]] = set()
        """Files with a lease that is being broken, by (st_dev, st_ino)."""
        self._own_pidfd = -1

    def table(self, pid: HostPid, pidfd: int, parent: HostPid | None = None) -> FileTable:
        """Record the descriptors of a process. ``parent``, recorded before, is where it has most of them from."""
        inherited = self._of_process.get(parent, {}) if parent is not None else {}
        mine: dict[int, Held] = {}
        descriptors = []
        locks: dict[tuple[int, LockLine], PosixLock] = {}
        with self._descriptors(pid) as fds:
            for fd, info in fds:
                foretold = fds.foretold
                held = self._inherited(pid, fd, inherited.get(fd)) if foretold is None else None
                if held is None:
                    with FdView(pid, pidfd, fd, "", self, info, foretold) as view:
                        held = self._held(view, fds)
                mine[fd] = held
                if held.file != _NOTHING:
                    descriptors.append(Descriptor(fd, held.file, bool(info.flags & os.O_CLOEXEC)))
                for text in info.all("lock"):
                    line = parse_lock(text)
                    if line.style == "POSIX":
                        locks.setdefault((info.ino, line), PosixLock(fd, line.type, line.start, line.length))
        self._of_process[pid] = mine
        table = FileTable(ObjectId(len(self.tables)), descriptors, tuple(locks.values()))
        self.tables.append(table)
        return table

    def mapped(self, pid: HostPid, line: MapLine, *, writable: bool) -> ObjectId:
        """Record the file behind a mapping, by its file and access; -1 if it cannot be saved."""
        key = (line.dev, line.inode, line.path, line.deleted, writable)
        known = self._mapped.get(key)
        if known is None and line.path == io_uring.LINK.encode():
            known = self._ring(pid, line)
            if known is not None:
                self._mapped[key] = known
        if known is None:
            with MappedView(pid, line, writable) as view:
                known = self._record(view)
            self._mapped[key] = known
        return known

    def _ring(self, pid: HostPid, line: MapLine) -> ObjectId | None:
        """Record the ring that memory is of, by the descriptor that the process has of it; None if it has none."""
        fd = io_uring.ring_fd(pid, line.inode)
        if fd is None:
            return None
        pidfd = open_task(pid)
        try:
            with FdView(pid, pidfd, fd, "", self) as view:
                return self._held(view).file
        finally:
            os.close(pidfd)

    def entered(self, pid: HostPid, name: str) -> ObjectId:
        """Record the directory behind /proc/PID/``name``; -1 if it cannot be saved."""
        return self._record(_EnteredView(pid, name))

    def adopt(self, fd: int, pid: HostPid, what: str) -> ObjectId | None:
        """Take in an open file that only we hold at ``fd`` (a message brought it to ``what`` of ``pid``)."""
        own = HostPid(os.getpid())
        if self._own_pidfd < 0:
            self._own_pidfd = pidfd_open(own)
            self.scope.closers.append(self._own_pidfd)
        kept = os.dup(fd)  # stays, to be compared with others
        self.scope.closers.append(kept)
        self.scope.names[own] = self.scope.names[pid]  # stays: what is in its queue is looked at later
        with _AdoptedView(own, self._own_pidfd, kept, what, self) as view:
            held = self._held(view)
        return held.file if held.file != _NOTHING else None

    def at(self, pid: HostPid, fd: int) -> Held | None:
        """Return what a process has at a number."""
        held = self._of_process.get(pid, {}).get(fd)
        return held if held is not None and held.file != _NOTHING else None

    def of_inode(self, inode: int) -> Iterable[Held]:
        """Return one holder of each open file of an inode."""
        return self._of_inode.get(inode, ())

    def tables_with(self, file: ObjectId) -> int:
        """Count the tables that have an open file."""
        return sum(any(one.file == file for one in table.descriptors) for table in self.tables)

    def _inherited(self, pid: HostPid, fd: int, theirs: Held | None) -> Held | None:
        """Return what the parent has at the same number if it is the same open file description."""
        if theirs is None or kcmp(theirs.pid, pid, KCMP_FILE, theirs.fd, fd) != 0:
            return None
        return Held(pid, fd, theirs.file, theirs.link)

    def _held(self, view: FdView, fds: Descriptors | None = None) -> Held:
        key, foretold = looks(view.info), view.foretold
        alike, others = (self._known, self._foretold) if foretold is None else (self._foretold, self._known)
        known = alike.setdefault(key, [])
        place = find(known, view.pid, view.fd) if foretold is None else foretold.place
        if place >= 0:
            return Held(view.pid, view.fd, known[place].file, known[place].link)
        other = others.get(key, ())
        at = find(other, view.pid, view.fd) if other else -1
        if at >= 0:
            held = Held(view.pid, view.fd, other[at].file, other[at].link)
        else:
            view.link = fds.link(view.fd) if fds is not None else readlink_fd(view.pid, view.fd)
            held = Held(view.pid, view.fd, self._record(view), view.link)
            if held.file != _NOTHING:
                self._of_inode.setdefault(view.info.ino, []).append(held)
        known.insert(~place, held)
        return held

    def _record(self, view: FdView) -> ObjectId:
        """Let the kind of a file make its record."""
        body: Any = capture_external(view, self.scope)
        if body is None:
            kind = None if is_internal(view) else recognise(view)
            if kind is None:
                refuse(view, self.scope)
                return _NOTHING
            # A kind may take in files of its own, and counts on the number it gets.
            body = kind.capture(view, self.scope)
            if body is None:
                return _NOTHING
        flags = recorded_flags(view)
        owner = None
        if view.fd >= 0 and has_owner(view.link, flags):
            owner = capture_owner(view, self.scope)
        file = FileRecord(
            id=ObjectId(len(self.files)),
            flags=flags,
            position=view.info.pos,
            body=body,
            owner=owner,
            locks=self._locks(view),
        )
        self.files.append(file)
        return file.id

    def _locks(self, view: FdView) -> tuple[FileLock, ...]:
        locks = []
        for text in view.info.all("lock"):
            line = parse_lock(text)
            if line.style in ("FLOCK", "OFDLCK"):
                whole = line.style == "FLOCK"
                taker = self.scope.pids.get(HostPid(line.pid), 0) if whole else 0
                locks.append(FileLock(whole, line.type, line.start, line.length, taker))
            elif line.style == "LEASE" and line.active and (line.type == fcntl.F_WRLCK or not _may_write(view)):
                locks.append(FileLock(whole=False, type=line.type, lease=True))
            elif line.style == "LEASE" and not line.active and line.type != fcntl.F_WRLCK:
                # What a reader may still keep says what he had; who writes can have had but the one kind.
                was = fcntl.F_WRLCK if line.type == fcntl.F_RDLCK or _may_write(view) else fcntl.F_RDLCK
                locks.append(FileLock(whole=False, type=was, lease=True, breaking=line.type))
                identity = view.stat.st_dev, view.stat.st_ino
                if identity in self._breaking:  # none is given while another is being broken
                    reason = "another lease on the same file is being broken, too"
                    self.scope.unsupported(view.pid, view.what, reason)
                self._breaking.add(identity)
            elif line.style == "LEASE":
                self.scope.unsupported(view.pid, view.what, "its lease was broken, which cannot be done again")
            elif line.style != "POSIX":
                self.scope.unsupported(view.pid, view.what, f"a {line.style} lock cannot be taken again")
        return tuple(locks)


def _may_write(view: FdView) -> bool:
    return view.info.flags & os.O_ACCMODE != os.O_RDONLY
