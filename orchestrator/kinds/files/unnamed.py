"""Directories, FIFOs, device nodes and symbolic links that were removed while open.

Regular files are in ``ghost.py``.
"""

from __future__ import annotations

import os
import stat

from orchestrator.ids import ObjectId
from orchestrator.kinds.files.device import is_stateless
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.pipe import PipeBuffer, buffer_object, refill
from orchestrator.kinds.files.reopening import AT_FDCWD, open_flags, reopen, seek
from orchestrator.kinds.record import Record, native_path, portable_path
from orchestrator.kinds.scope import Scope
from orchestrator.tape.build import Tape

_DELETED = " (deleted)"
_AT_REMOVEDIR = 0x200
_RENAME_NOREPLACE = 1
_AT_EMPTY_PATH = 0x1000


class Removed(Record, frozen=True, tag="removed"):
    """A directory without a name. It is empty, or it could not have been removed."""

    path: str
    """The name it had."""
    mode: int
    uid: int
    gid: int


class RemovedDirectory(Record, frozen=True, tag="removed-directory"):
    """An open file description of a removed directory."""

    object: ObjectId


class RemovedFifo(Record, frozen=True, tag="removed-fifo"):
    """An open file description of a removed FIFO; what is in it is a PipeBuffer."""

    path: str
    mode: int
    uid: int
    gid: int
    object: ObjectId


class RemovedDevice(Record, frozen=True, tag="removed-device"):
    """An open file description of a removed device node without state."""

    path: str
    mode: int
    uid: int
    gid: int
    rdev: int


class RemovedLink(Record, frozen=True, tag="removed-link"):
    """A symbolic link itself, opened by O_PATH."""

    path: str
    target: str
    uid: int
    gid: int


class RemovedLinkFile(Record, frozen=True, tag="removed-link-file"):
    """An open file description of a removed link."""

    object: ObjectId


def _make(
    tape: Tape, was: Removed | RemovedFifo | RemovedDevice | RemovedLink, file_type: int, flags: int, rdev: int = 0
) -> None:
    """Leave a new file without a name at 0: made in its old directory if that is there, else in /tmp.

    It has its old name last if nobody else has that now, as /proc goes on to show it.
    """
    # Nobody else has this name, so nothing of somebody else's is opened or removed.
    old = native_path(was.path)
    name = os.path.basename(old)
    own = f".{name[:100]}.{os.urandom(8).hex()}"
    remove = _AT_REMOVEDIR if file_type == stat.S_IFDIR else 0
    for directory in (os.path.dirname(old), "/tmp"):
        tape.openat(AT_FDCWD, directory, os.O_PATH | os.O_DIRECTORY | O_CLOEXEC, 0, may_fail=True)
        if file_type == stat.S_IFDIR:
            tape.mkdirat(0, own, 0o700, may_fail=True)
        elif isinstance(was, RemovedLink):
            tape.symlinkat(native_path(was.target), 0, own, may_fail=True)
        else:
            tape.mknodat(0, own, file_type | 0o600, rdev, may_fail=True)
        tape.openat(0, own, flags | os.O_NOFOLLOW | O_CLOEXEC, 0, may_fail=True)
        # 0 where it worked, which is the directory's descriptor; else -1, and nothing is removed by its old name.
        renamed = tape.renameat2(0, own, 0, name, _RENAME_NOREPLACE, may_fail=True)
        tape.unlinkat(renamed, name, remove, may_fail=True)
        tape.unlinkat(0, own, remove, may_fail=True)
        tape.close(0, may_fail=True)
    tape.close(2, may_fail=True)
    tape.dup3(1, 0, O_CLOEXEC)
    tape.close(1)
    tape.fchownat(0, "", was.uid, was.gid, _AT_EMPTY_PATH)
    if not isinstance(was, RemovedLink):
        tape.fchmod(0, was.mode)


def _is_removed(view: FdView) -> bool:
    # A removed directory keeps a link count on some file systems.
    return view.link.endswith(_DELETED) and (view.stat.st_nlink == 0 or stat.S_ISDIR(view.stat.st_mode))


def _recognise_directory(view: FdView) -> bool:
    return stat.S_ISDIR(view.stat.st_mode) and _is_removed(view) and not os.path.lexists(view.link)


def _capture_directory(view: FdView, scope: Scope) -> RemovedDirectory:
    status = view.stat
    path = portable_path(view.link.removesuffix(_DELETED))
    record = Removed(path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    return RemovedDirectory(scope.object("file", (status.st_dev, status.st_ino), lambda _: record))


def _rebuild_directory(file: OpenFile, depot: Depot) -> None:
    of = file.body.object
    standing, new = depot.extra("file", of)
    if new:
        _make(depot.tape, depot.objects[of], stat.S_IFDIR, os.O_RDONLY | os.O_DIRECTORY)
        depot.keep(0, standing)
    reopen(depot, standing, file)


def _recognise_fifo(view: FdView) -> bool:
    return stat.S_ISFIFO(view.stat.st_mode) and _is_removed(view) and not view.info.flags & os.O_PATH


def _capture_fifo(view: FdView, scope: Scope) -> RemovedFifo:
    status = view.stat
    path = portable_path(view.link.removesuffix(_DELETED))
    mode = stat.S_IMODE(status.st_mode)
    return RemovedFifo(path, mode, status.st_uid, status.st_gid, buffer_object(view, scope))


def _rebuild_fifo(file: OpenFile, depot: Depot) -> None:
    """Make a FIFO and all its ends with the first of them."""
    ends = depot.users(file.body.object)
    if ends[0].id == file.id:
        _make(depot.tape, file.body, stat.S_IFIFO, os.O_RDWR)
        refill(depot.tape, 0, depot.objects[file.body.object], ends)
        for end in ends:
            reopen(depot, 0, end, scratch=1)
        depot.tape.close(0)


def _recognise_device(view: FdView) -> bool:
    return stat.S_ISCHR(view.stat.st_mode) and is_stateless(view.stat.st_rdev) and _is_removed(view)


def _capture_device(view: FdView, _: Scope) -> RemovedDevice:
    status = view.stat
    path = portable_path(view.link.removesuffix(_DELETED))
    return RemovedDevice(path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_rdev)


def _rebuild_device(file: OpenFile, depot: Depot) -> None:
    body: RemovedDevice = file.body
    _make(depot.tape, body, stat.S_IFCHR, open_flags(file.flags), body.rdev)
    seek(depot.tape, 0, file)
    depot.keep(0, depot.slot(file.id))


def _recognise_link(view: FdView) -> bool:
    return stat.S_ISLNK(view.stat.st_mode) and view.link.endswith(_DELETED) and view.stat.st_nlink == 0


def _capture_link(view: FdView, scope: Scope) -> RemovedLinkFile:
    status = view.stat
    path, target = portable_path(view.link.removesuffix(_DELETED)), portable_path(os.readlink("", dir_fd=view.local))
    record = RemovedLink(path, target, status.st_uid, status.st_gid)
    return RemovedLinkFile(scope.object("file", (status.st_dev, status.st_ino), lambda _: record))


def _rebuild_link(file: OpenFile, depot: Depot) -> None:
    first, *others = depot.users(file.body.object)
    if file.id == first.id:
        _make(depot.tape, depot.objects[file.body.object], stat.S_IFLNK, open_flags(file.flags))
        for other in others:
            reopen(depot, 0, other, scratch=1)
        depot.keep(0, depot.slot(file.id))


DIRECTORY = FileKind(
    "removed directory",
    RemovedDirectory,
    _recognise_directory,
    _capture_directory,
    _rebuild_directory,
    objects=(Removed,),
    links="/",
)
FIFO = FileKind(
    "removed FIFO", RemovedFifo, _recognise_fifo, _capture_fifo, _rebuild_fifo, objects=(PipeBuffer,), links="/"
)
DEVICE = FileKind("removed device", RemovedDevice, _recognise_device, _capture_device, _rebuild_device, links="/")
LINK = FileKind(
    "removed symbolic link",
    RemovedLinkFile,
    _recognise_link,
    _capture_link,
    _rebuild_link,
    objects=(RemovedLink,),
    links="/",
)
