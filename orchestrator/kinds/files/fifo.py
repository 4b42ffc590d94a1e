"""Named pipes, with their contents. See fifo(7)."""

from __future__ import annotations

import os
import stat

from orchestrator.ids import ObjectId
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.pipe import buffer_object, refill
from orchestrator.kinds.files.regular import check_named, named
from orchestrator.kinds.files.reopening import AT_FDCWD, reopen
from orchestrator.kinds.record import Record, native_path, portable_path
from orchestrator.kinds.scope import Scope


class Fifo(Record, frozen=True, tag="fifo"):
    """An open file description of a FIFO; what is in it is a PipeBuffer."""

    path: str
    object: ObjectId


def _recognise(view: FdView) -> bool:
    return view.link.startswith("/") and stat.S_ISFIFO(view.stat.st_mode) and not view.info.flags & os.O_PATH


def _capture(view: FdView, scope: Scope) -> Fifo | None:
    return Fifo(portable_path(view.link), buffer_object(view, scope)) if named(view, scope) else None


def _rebuild(file: OpenFile, depot: Depot) -> None:
    """Open a FIFO and all its ends with the first of them."""
    ends = depot.users(file.body.object)
    if ends[0].id != file.id:
        return
    # O_RDWR never blocks, and while it is open nothing else does. See fifo(7).
    depot.tape.openat(AT_FDCWD, native_path(file.body.path), os.O_RDWR | O_CLOEXEC, 0)
    refill(depot.tape, 0, depot.objects[file.body.object], ends)
    for end in ends:
        reopen(depot, 0, end, scratch=1)
    depot.tape.close(0)


def _check(file: OpenFile) -> None:
    check_named(file.body.path, stat.S_IFIFO)


KIND = FileKind("FIFO", Fifo, _recognise, _capture, _rebuild, check=_check, links="/")
