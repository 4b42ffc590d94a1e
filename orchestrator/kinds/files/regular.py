"""Regular files and directories with a name. Their contents stay where they are; the image names them."""

from __future__ import annotations

import os
import stat

from orchestrator.errors import FileChanged, FileMissing, ResourceTaken
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile, anybody
from orchestrator.kinds.files.locks import conflicting
from orchestrator.kinds.files.nameless import Handle, check_handle, find_handle, open_handle
from orchestrator.kinds.files.reopening import AT_FDCWD, open_flags, seek
from orchestrator.kinds.record import Record, native_path, portable_path, shown_path
from orchestrator.kinds.scope import Scope
from orchestrator.linux.elf import read_build_id
from orchestrator.linux.statfs import filesystem_magic, is_pseudo

_DELETED = " (deleted)"
_TYPES = {stat.S_IFREG: "a regular file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link",
          stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a character device",
          stat.S_IFBLK: "a block device"}  # fmt: skip


class NamedFile(Record, frozen=True, tag="file"):
    """A file that is opened again by its path. See proc_pid_fd(5)."""

    path: str
    file_type: int
    """The S_IFMT bits."""
    size: int
    mtime_ns: int
    pseudo: bool = False
    """Whether the file system makes up contents, sizes and times as they are asked for (procfs, sysfs...)."""
    handle: Handle | None = None
    """What leads to the file if its path does not any more."""
    build_id: bytes = b""
    """Of an executable or a library that is mapped."""


def describe_type(mode: int) -> str:
    """Say in words what a file is."""
    return _TYPES.get(stat.S_IFMT(mode), "something unknown")


def leads_there(view: FdView) -> bool:
    """Whether the path still leads to this file."""
    status = view.stat
    for path in (view.link, f"/proc/{view.pid}/root{view.link}"):
        try:
            found = os.lstat(path)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
            return True
    return False


def named(view: FdView, scope: Scope) -> bool:
    """Whether the path still leads to this file; if not, note it in the scope."""
    status = view.stat
    if not leads_there(view):
        if view.link.endswith(_DELETED) and stat.S_ISDIR(status.st_mode):
            scope.unsupported(view.pid, view.what, "a deleted directory cannot be opened again")
        elif view.link.endswith(_DELETED) or status.st_nlink > 0:
            scope.unsupported(
                view.pid,
                view.what,
                "the name it was opened by is gone or leads elsewhere, while the file has other names",
                f"find them with find -inum {status.st_ino}, and give it its old name back",
            )
        else:
            scope.unsupported(view.pid, view.what, f"{describe_type(status.st_mode)} without a name")
        return False
    return True


def _recognise(view: FdView) -> bool:
    types = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK]
    if view.info.flags & os.O_PATH:
        types += [stat.S_IFIFO, stat.S_IFSOCK]  # nothing of theirs is open
    return view.link.startswith("/") and stat.S_IFMT(view.stat.st_mode) in types


def _capture(view: FdView, scope: Scope) -> NamedFile | None:
    handle = None if leads_there(view) else find_handle(view)
    if handle is None and not named(view, scope):
        return None
    status = view.stat
    path = portable_path(view.link if handle is None else view.link.removesuffix(_DELETED))
    pseudo = is_pseudo(filesystem_magic(view.path))
    build_id = read_build_id(view.local) if view.is_mapping and stat.S_ISREG(status.st_mode) and not pseudo else b""
    return NamedFile(path, stat.S_IFMT(status.st_mode), status.st_size, status.st_mtime_ns, pseudo, handle, build_id)


def _rebuild(file: OpenFile, depot: Depot) -> None:
    body: NamedFile = file.body
    if body.handle is None:
        depot.tape.openat(AT_FDCWD, native_path(body.path), open_flags(file.flags), 0)
    else:
        open_handle(depot.tape, body.handle, open_flags(file.flags))
    if not file.flags & os.O_PATH:
        seek(depot.tape, 0, file)
    depot.keep(0, depot.slot(file.id))


def check_named(path: str, type_: int) -> os.stat_result:
    """Return the status of a record's path; raise FileMissing or FileChanged unless a file of that type is there."""
    shown = shown_path(path)
    try:
        status = os.lstat(native_path(path))
    except OSError as error:
        raise FileMissing(
            f"{shown}, which the job has open, is gone: {error.strerror}",
            hint="put it back where it was, or restore where it exists",
        ) from error
    if stat.S_IFMT(status.st_mode) != type_:
        raise FileChanged(
            f"{shown}, which the job has open, was {describe_type(type_)} and is {describe_type(status.st_mode)} now",
            hint="put the old one back",
        )
    return status


def _check(file: OpenFile) -> None:
    body: NamedFile = file.body
    if body.handle is None:
        status = check_named(body.path, body.file_type)
    else:
        status = check_handle(native_path(body.path), body.handle)
    if body.file_type == stat.S_IFREG and not body.pseudo and status.st_size < body.size:
        raise FileChanged(
            f"{shown_path(body.path)}, which the job has open, was {body.size} bytes long and has {status.st_size} now",
            hint="put the old contents back",
        )
    lock = conflicting(native_path(body.path), file.locks) if body.handle is None else None
    if lock is not None:
        raise ResourceTaken(
            f"{shown_path(body.path)} is locked by somebody else, and the job had a lock on it that does not go along",
            hint="/proc/locks tells who it is; end that process first",
        )


def check_unchanged(file: OpenFile) -> None:
    """Raise FileChanged unless a file that the job only reads has the size and time it had.

    Of an executable or a library, the build id may stand in for the time: it was installed anew, or on another machine.
    """
    body: NamedFile = file.body
    if body.file_type != stat.S_IFREG or body.pseudo or file.flags & os.O_PATH:
        return
    path = native_path(body.path)
    status = os.lstat(path) if body.handle is None else check_handle(path, body.handle)
    if (status.st_size, status.st_mtime_ns) == (body.size, body.mtime_ns):
        return
    what = f"{shown_path(body.path)}, which the job reads, is not the file it was"
    now = _build_id_of(path) if body.build_id and body.handle is None else b""
    if now and now != body.build_id:
        raise FileChanged(
            f"{what}: build {body.build_id.hex()}; now build {now.hex()}",
            hint="install the version of that program or library that the job was using",
        )
    if not now or status.st_size != body.size:
        raise FileChanged(
            f"{what}: {body.size} bytes, modified {_time(body.mtime_ns)}; now {status.st_size} bytes, modified"
            f" {_time(status.st_mtime_ns)}",
            hint="put the old file back, with its modification time",
        )


def _build_id_of(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return read_build_id(fd)
    finally:
        os.close(fd)


def _time(ns: int) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(ns / 1e9).astimezone().isoformat(" ", "milliseconds")


KIND = FileKind("file", NamedFile, _recognise, _capture, _rebuild, check=_check, may_open=anybody, links="/")
