"""Watches of files and directories. See inotify(7)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from orchestrator.errors import FileMissing
from orchestrator.ids import ObjectId
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.files.watched import device_of, hex_fields, open_file_of, path_of
from orchestrator.kinds.record import Record, native_path
from orchestrator.kinds.scope import Scope

_IN_DONT_FOLLOW, _IN_DELETE_SELF = 0x02000000, 0x400
_USER_BITS = 0x85000FFF
"""What inotify_add_watch takes and fdinfo shows: events, IN_ONLYDIR, IN_EXCL_UNLINK, IN_ONESHOT."""
_HIGHEST = 100_000
_EVENT_BYTES = 16
_BATCH = 1024
_NAMED = ObjectId(-1)
INOTIFY = "inotify"
"""How --external allows that events are lost."""


class Watch(Record, frozen=True, array_like=True):
    """One watch, by the number that events carry."""

    number: int
    path: str
    """Empty for a file without a name, as one that was unlinked."""
    mask: int
    file: ObjectId = _NAMED
    """The open file of the job that leads there, if no name does."""


class Inotify(Record, frozen=True, tag="inotify"):
    """An inotify instance without unread events."""

    watches: list[Watch]
    """In any order."""


class WatchLine(NamedTuple):
    """One "inotify" line of fdinfo."""

    number: int
    inode: int
    device: int
    mask: int
    handle_type: int
    handle: bytes


def parse_watch(text: str) -> WatchLine:
    """Parse such a line: "wd:2 ino:20c03c sdev:fe00000 mask:fff fhandle-type:1 f_handle:3c...", in hex."""
    field = hex_fields(text)
    return WatchLine(
        int(field["wd"], 16),
        int(field["ino"], 16),
        device_of(field["sdev"]),
        int(field["mask"], 16),
        int(field.get("fhandle-type", "0"), 16),
        bytes.fromhex(field.get("f_handle", "")),
    )


def _recognise(view: FdView) -> bool:
    return view.link in ("anon_inode:inotify", "anon_inode:[inotify]")


def _capture(view: FdView, scope: Scope) -> Inotify | None:
    unread = view.unread
    if unread and INOTIFY not in scope.externals:
        scope.unsupported(
            view.pid,
            view.what,
            f"{unread} bytes of events that were not read yet cannot be put into another inotify",
            f"try again when the job has read them; with --external {INOTIFY} a restored job does not get them",
        )
        return None
    watches: list[Watch] = []
    for text in view.info.all("inotify"):
        line = parse_watch(text)
        if line.number > _HIGHEST:
            scope.unsupported(view.pid, view.what, f"its watches have numbers above {_HIGHEST}")
            return None
        path = path_of(view, line)
        if path is None:  # an open file may lead there, which is known when all are
            scope.finishers.append(partial(_find_file, watches, view, line, scope))
        else:
            watches.append(Watch(line.number, path, line.mask & _USER_BITS))
    return Inotify(watches)


def _find_file(watches: list[Watch], view: FdView, line: WatchLine, scope: Scope) -> None:
    of = open_file_of(view, line)
    if of is None:
        scope.unsupported(view.pid, view.what, f"watch {line.number} is on inode {line.inode}, to which no path leads")
    else:
        watches.append(Watch(line.number, "", line.mask & _USER_BITS, of))


def _rebuild(file: OpenFile, depot: Depot) -> None:
    depot.tape.inotify_init1(O_CLOEXEC | os.O_NONBLOCK)
    set_status(depot.tape, 0, file.flags, os.O_NONBLOCK)
    depot.keep(0, depot.slot(file.id))


def _connect(file: OpenFile, depot: Depot) -> None:
    """Add the watches when all files are open, or they would tell of that."""
    tape, standing = depot.tape, depot.slot(file.id)
    buffer = tape.space(_BATCH * _EVENT_BYTES)
    used_up = 0
    following = 1
    for watch in sorted(file.body.watches, key=lambda watch: watch.number):
        # Numbers are given out in turn: those in between go to something that nobody watches.
        for number in range(following, watch.number):
            tape.inotify_add_watch(standing, f"{depot.proc}/self/task", _IN_DELETE_SELF)
            tape.inotify_rm_watch(standing, number)
            used_up += 1
            if used_up % _BATCH == 0:
                tape.read(standing, buffer, _BATCH * _EVENT_BYTES)  # an IN_IGNORED of each
        if watch.file == _NAMED:
            tape.inotify_add_watch(standing, native_path(watch.path), watch.mask | _IN_DONT_FOLLOW)
        else:
            tape.inotify_add_watch(standing, f"{depot.proc}/self/fd/{depot.slot(watch.file)}", watch.mask)
        following = watch.number + 1
    if used_up % _BATCH:
        tape.read(standing, buffer, _BATCH * _EVENT_BYTES)


def _check(file: OpenFile) -> None:
    for watch in file.body.watches:
        path = native_path(watch.path)
        if watch.file == _NAMED and not os.path.lexists(path):
            raise FileMissing(f"{path}, which the job watches, is gone", hint="put it back where it was")


def _others(file: OpenFile, _objects: Sequence[Any]) -> list[ObjectId]:
    return [watch.file for watch in file.body.watches if watch.file != _NAMED]


KIND = FileKind(
    "inotify",
    Inotify,
    _recognise,
    _capture,
    _rebuild,
    check=_check,
    connect=_connect,
    order=5,
    others=_others,
    links="anon_inode:",
)
