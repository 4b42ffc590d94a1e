"""The contents of a tmpfs that only the job has: archived into records, and written again by tape.

Not kept: change times, and the holes inside what tells as data. Small files travel in the record, larger
ones as page data that the depot copies.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.record import Content, Record
from orchestrator.kinds.scope import Scope, data_runs
from orchestrator.tape.build import Tape

AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_INLINE_BYTES = 4096
_ENTRIES_LIMIT = 20_000
_BIG_FILES_LIMIT = 4_000  # each is a descriptor of ours until the image is written


class Run(NamedTuple):
    """Bytes of a small file."""

    start: int
    data: bytes


class TreeEntry(Record, frozen=True):
    """A file, directory, link or node. Directories stand before what is in them."""

    path: bytes
    """Below the mount's root; empty for the root itself."""
    mode: int
    """st_mode, with the type."""
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    size: int = 0
    runs: list[Run] = []  # noqa: RUF012 - msgspec copies it
    content: Content | None = None
    """Instead of runs, of a larger file."""
    target: bytes = b""
    """Of a symbolic link."""
    rdev: int = 0
    link_to: bytes | None = None
    """The entry of which this is another name."""
    xattrs: list[tuple[bytes, bytes]] = []  # noqa: RUF012 - msgspec copies it


class TooMuch(Exception):
    """A tree that cannot be saved, and why."""


def archive_tree(root: int, scope: Scope) -> list[TreeEntry]:
    """Describe everything below the directory descriptor ``root``. Raises TooMuch."""
    archive = _Archive(scope)
    archive.directory(root, b"")
    return archive.entries


class _Archive:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.entries: list[TreeEntry] = []
        self._names: dict[int, bytes] = {}
        self._big = 0

    def directory(self, fd: int, path: bytes) -> None:
        self._put(path, os.fstat(fd), xattrs=_xattrs(fd))
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            self._entry(fd, name, path + b"/" + name if path else name)

    def _entry(self, parent: int, name: bytes, path: bytes) -> None:
        if len(self.entries) > _ENTRIES_LIMIT:
            raise TooMuch(f"it holds more than {_ENTRIES_LIMIT} files")
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self.directory(fd, path)
            finally:
                os.close(fd)
            return
        if status.st_nlink > 1:
            first = self._names.setdefault(status.st_ino, path)
            if first is not path:
                self._put(path, status, link_to=first)
                return
        if stat.S_ISREG(status.st_mode):
            self._file(parent, name, path, status)
        elif stat.S_ISLNK(status.st_mode):
            self._put(path, status, target=os.readlink(name, dir_fd=parent))
        else:
            self._put(path, status, rdev=status.st_rdev)

    def _file(self, parent: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC, dir_fd=parent)
        size = status.st_size
        runs = data_runs(fd, size)
        xattrs = _xattrs(fd)
        if sum(end - start for start, end in runs) <= _INLINE_BYTES:
            try:
                small = [Run(start, os.pread(fd, end - start, start)) for start, end in runs]
            finally:
                os.close(fd)
            self._put(path, status, size=size, runs=small, xattrs=xattrs)
            return
        self._scope.closers.append(fd)
        self._big += 1
        if self._big > _BIG_FILES_LIMIT:
            raise TooMuch(f"it holds more than {_BIG_FILES_LIMIT} files that are larger than {_INLINE_BYTES} bytes")
        self._put(path, status, size=size, content=self._scope.store(fd, size), xattrs=xattrs)

    def _put(
        self,
        path: bytes,
        status: os.stat_result,
        *,
        size: int = 0,
        runs: list[Run] | None = None,
        content: Content | None = None,
        target: bytes = b"",
        rdev: int = 0,
        link_to: bytes | None = None,
        xattrs: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        self.entries.append(
            TreeEntry(
                path, status.st_mode, status.st_uid, status.st_gid, status.st_atime_ns, status.st_mtime_ns,
                size, runs or [], content, target, rdev, link_to, xattrs or [],
            )
        )  # fmt: skip


def _xattrs(fd: int) -> list[tuple[bytes, bytes]]:
    return [(os.fsencode(name), os.getxattr(fd, name)) for name in os.listxattr(fd)]


def rebuild_tree(entries: list[TreeEntry], mountpoint: bytes, tape: Tape, fd: int = 0) -> None:
    """Write the tape entries that make a tree again below ``mountpoint``; ``fd`` is the lowest free descriptor.

    Larger files stay empty until :func:`fill_tree`.
    """
    for entry in entries:
        path = _at(mountpoint, entry)
        if entry.link_to is not None:
            tape.linkat(AT_FDCWD, mountpoint + b"/" + entry.link_to + b"\0", AT_FDCWD, path, 0)
            continue
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFDIR:
            if entry.path:
                tape.mkdirat(AT_FDCWD, path, 0o700)
        elif kind == stat.S_IFLNK:
            tape.symlinkat(entry.target + b"\0", AT_FDCWD, path)
        elif kind == stat.S_IFREG:
            tape.openat(AT_FDCWD, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            for run in entry.runs:
                tape.pwrite64(fd, run.data, len(run.data), run.start)
            if entry.size and entry.content is None:
                tape.ftruncate(fd, entry.size)
            tape.close(fd)
        else:
            tape.mknodat(AT_FDCWD, path, entry.mode, entry.rdev)
        _describe(entry, path, tape)
    for entry in reversed(entries):  # what is made in a directory changes its times
        if stat.S_ISDIR(entry.mode):
            tape.utimensat(AT_FDCWD, _at(mountpoint, entry), _times(entry), 0)


def _describe(entry: TreeEntry, path: bytes, tape: Tape) -> None:
    # In this order: a change of owner clears set-user-ID bits and file capabilities.
    tape.fchownat(AT_FDCWD, path, entry.uid, entry.gid, _AT_SYMLINK_NOFOLLOW)
    if not stat.S_ISLNK(entry.mode):
        tape.fchmodat(AT_FDCWD, path, stat.S_IMODE(entry.mode))
    for name, value in entry.xattrs:
        tape.setxattr(path, name + b"\0", value, len(value), 0)
    if entry.content is None:
        tape.utimensat(AT_FDCWD, path, _times(entry), _AT_SYMLINK_NOFOLLOW)


def fill_tree(entries: list[TreeEntry], mountpoint: bytes, depot: Depot) -> None:
    """Let the depot copy the contents of larger files from the image."""
    tape = depot.tape
    for entry in entries:
        if entry.content is not None:
            tape.openat(AT_FDCWD, _at(mountpoint, entry), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0)
            depot.fill(0, entry.content)
            # Writing may have cleared these bits, and changed the times.
            tape.fchmod(0, stat.S_IMODE(entry.mode))
            for name, value in entry.xattrs:
                tape.fsetxattr(0, name + b"\0", value, len(value), 0)
            tape.utimensat(0, 0, _times(entry), 0)
            tape.close(0)


def _at(mountpoint: bytes, entry: TreeEntry) -> bytes:
    return (mountpoint + b"/" + entry.path if entry.path else mountpoint) + b"\0"


def _times(entry: TreeEntry) -> bytes:
    return b"".join(
        part.to_bytes(8, "little", signed=True) for ns in (entry.atime_ns, entry.mtime_ns) for part in divmod(ns, 10**9)
    )
