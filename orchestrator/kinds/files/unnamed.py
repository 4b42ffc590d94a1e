"""Directories and FIFOs that were removed while open. Regular files are in ``ghost.py``."""

from __future__ import annotations

import os
import secrets
import stat

from orchestrator.ids import ObjectId
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.pipe import PipeBuffer, buffer_object, refill
from orchestrator.kinds.files.reopening import AT_FDCWD, reopen
from orchestrator.kinds.record import Record, native_path, portable_path
from orchestrator.kinds.scope import Scope
from orchestrator.tape.build import Tape

_DELETED = " (deleted)"
_AT_REMOVEDIR = 0x200


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


def _make(tape: Tape, was: Removed | RemovedFifo, file_type: int, flags: int) -> None:
    """Leave a new file without a name at 0: made in its old directory if that is there, else in /tmp."""
    # Nobody else has this name, so nothing of somebody else's is opened or removed.
    old = native_path(was.path)
    name = f".{os.path.basename(old)[:100]}.{secrets.token_hex(8)}"
    for directory in (os.path.dirname(old), "/tmp"):
        path = f"{directory}/{name}"
        if file_type == stat.S_IFDIR:
            tape.mkdirat(AT_FDCWD, path, 0o700, may_fail=True)
        else:
            tape.mknodat(AT_FDCWD, path, file_type | 0o600, 0, may_fail=True)
        tape.openat(AT_FDCWD, path, flags | os.O_NOFOLLOW | O_CLOEXEC, 0, may_fail=True)
        tape.unlinkat(AT_FDCWD, path, _AT_REMOVEDIR if file_type == stat.S_IFDIR else 0, may_fail=True)
    tape.close(1, may_fail=True)
    tape.fchown(0, was.uid, was.gid)
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


DIRECTORY = FileKind(
    "removed directory",
    RemovedDirectory,
    _recognise_directory,
    _capture_directory,
    _rebuild_directory,
    objects=(Removed,),
)
FIFO = FileKind("removed FIFO", RemovedFifo, _recognise_fifo, _capture_fifo, _rebuild_fifo, objects=(PipeBuffer,))
