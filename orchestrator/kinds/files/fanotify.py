"""Groups that are told what is done to files, mounts and file systems. See fanotify(7).

Marks are set last, by the process that has the group: what a restore does itself is not to be told. A mark on a mount
is one on that mount of the job's mount namespace: after a restore, which gives the job one of its own, it tells of
nobody else.
"""

from __future__ import annotations

import os
from functools import partial
from typing import NamedTuple

from orchestrator.errors import FileMissing
from orchestrator.ids import ObjectId
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile, Settling
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.files.watched import device_of, hex_fields, open_file_of, path_of
from orchestrator.kinds.record import Record, native_path, portable_path
from orchestrator.kinds.scope import Scope
from orchestrator.linux.mountinfo import Mount, read_mountinfo

FANOTIFY = "fanotify"
"""How --external allows that events are lost."""
_NONBLOCK = 2
_MARK_ADD, _MARK_DONT_FOLLOW, _MARK_IGNORED_MASK = 0x01, 0x04, 0x20
_MARK_IGNORE, _MARK_EVICTABLE = 0x400, 0x200
_MARK_OF = {"inode": 0, "mount": 0x10, "filesystem": 0x100}
_DECIDING = 0x10000 | 0x20000 | 0x40000 | 0x100000
"""FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM, FAN_PRE_ACCESS."""
_NAMED = ObjectId(-1)
_AT_FDCWD = -100


class Mark(Record, frozen=True, array_like=True):
    """One mark."""

    kind: str
    """"inode", "mount" or "filesystem"."""
    path: str
    """Empty for a file without a name."""
    flags: int
    """FAN_MARK_IGNORED_SURV_MODIFY, FAN_MARK_IGNORE, FAN_MARK_EVICTABLE."""
    mask: int
    ignored: int
    file: ObjectId = _NAMED
    """The open file of the job that leads there, if no name does."""


class Fanotify(Record, frozen=True, tag="fanotify"):
    """A group without unread events."""

    flags: int
    """Those of fanotify_init(2)."""
    event_flags: int
    marks: list[Mark]


class MarkLine(NamedTuple):
    """One "fanotify" line of fdinfo about a mark."""

    kind: str
    flags: int
    mask: int
    ignored: int
    mount: int = 0
    inode: int = 0
    device: int = 0
    handle_type: int = 0
    handle: bytes = b""


class Refused(Exception):
    """Why a group cannot be saved."""


def parse_mark(text: str) -> MarkLine:
    """Parse such a line: "ino:.. sdev:.. mflags:.. mask:.. ignored_mask:.. fhandle-type:..", "mnt_id:..", "sdev:..".

    Raises KeyError for what it does not know.
    """
    field = hex_fields(text.replace(": ", ":"))
    flags, mask, ignored = (int(field[name], 16) for name in ("mflags", "mask", "ignored_mask"))
    if "mnt_id" in field:
        return MarkLine("mount", flags, mask, ignored, mount=int(field["mnt_id"], 16))
    device = device_of(field["sdev"])
    if "ino" not in field:
        return MarkLine("filesystem", flags, mask, ignored, device=device)
    handle = bytes.fromhex(field.get("f_handle", ""))
    inode, handle_type = int(field["ino"], 16), int(field.get("fhandle-type", "0"), 16)
    return MarkLine("inode", flags, mask, ignored, 0, inode, device, handle_type, handle)


def _recognise(view: FdView) -> bool:
    return view.link in ("anon_inode:[fanotify]", "anon_inode:fanotify")


def _capture(view: FdView, scope: Scope) -> Fanotify | None:
    unread = view.unread
    if unread and FANOTIFY not in scope.externals:
        scope.unsupported(
            view.pid,
            view.what,
            f"{unread} bytes of events that were not read yet cannot be put into another group",
            f"try again when the job has read them; with --external {FANOTIFY} a restored job does not get them",
        )
        return None
    first, *lines = view.info.all("fanotify")
    of_group = hex_fields(first)
    marks: list[Mark] = []
    try:
        for text in lines:
            _add_mark(marks, text, view, scope)
    except Refused as reason:
        scope.unsupported(view.pid, view.what, f"fanotify group: {reason}")
        return None
    return Fanotify(int(of_group["flags"], 16), int(of_group["event-flags"], 16), marks)


def _add_mark(marks: list[Mark], text: str, view: FdView, scope: Scope) -> None:
    try:
        line = parse_mark(text)
    except KeyError:
        raise Refused("a mark of an unknown kind cannot be set again") from None
    if (line.mask | line.ignored) & _DECIDING:
        raise Refused("it decides who may open files, and everybody would wait for it until it is back")
    if line.kind == "inode":
        path = path_of(view, line)
        if path is None:  # an open file may lead there, which is known when all are
            scope.finishers.append(partial(_find_file, marks, view, line, scope))
            return
    else:
        path = _mount_of(view, line)
        if path is None:
            raise Refused("a mark is on a mount that the job cannot see")
    marks.append(Mark(line.kind, path, line.flags, line.mask, line.ignored))


def _find_file(marks: list[Mark], view: FdView, line: MarkLine, scope: Scope) -> None:
    of = open_file_of(view, line)
    if of is None:
        scope.unsupported(view.pid, view.what, f"a mark is on inode {line.inode}, to which no path leads")
    else:
        marks.append(Mark(line.kind, "", line.flags, line.mask, line.ignored, of))


def _mount_of(view: FdView, line: MarkLine) -> str | None:
    """Return where a mount is, or any mount of a file system, if the path leads there."""
    visible: dict[str, Mount] = {}
    for mount in read_mountinfo(view.pid):
        visible[mount.mountpoint] = mount  # a later one covers it
    for path, mount in visible.items():
        device = os.makedev(mount.major, mount.minor)
        if (mount.id == line.mount) if line.kind == "mount" else (device == line.device):
            return portable_path(path)
    return None


def _rebuild(file: OpenFile, depot: Depot) -> None:
    body: Fanotify = file.body
    depot.tape.fanotify_init(body.flags, body.event_flags)
    set_status(depot.tape, 0, file.flags, os.O_NONBLOCK if body.flags & _NONBLOCK else 0)
    depot.keep(0, depot.slot(file.id))


def _settle(file: OpenFile, settling: Settling) -> None:
    if not settling.first:
        return
    tape, group = settling.tape, settling.fd
    for mark in file.body.marks:
        where, path = _AT_FDCWD, native_path(mark.path)
        flags = _MARK_ADD | _MARK_OF[mark.kind] | mark.flags & _MARK_EVICTABLE
        if mark.file != _NAMED:
            where, path = _AT_FDCWD, f"/proc/self/fd/{settling.depot_slot(mark.file)}"
        elif mark.kind == "inode":
            flags |= _MARK_DONT_FOLLOW
        if mark.mask:
            tape.fanotify_mark(group, flags, mark.mask, where, path)
        if mark.ignored:
            kind = 0 if mark.flags & _MARK_IGNORE else _MARK_IGNORED_MASK
            tape.fanotify_mark(group, flags | mark.flags | kind, mark.ignored, where, path)


def _check(file: OpenFile) -> None:
    for mark in file.body.marks:
        path = native_path(mark.path)
        if mark.file == _NAMED and not os.path.lexists(path):
            raise FileMissing(f"{path}, which the job watches, is gone", hint="put it back where it was")


KIND = FileKind("fanotify", Fanotify, _recognise, _capture, _rebuild, _settle, check=_check, links="anon_inode:")
