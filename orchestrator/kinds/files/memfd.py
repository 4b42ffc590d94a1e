"""Memory with a descriptor. See memfd_create(2)."""

from __future__ import annotations

import os

from orchestrator.ids import ObjectId
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import O_LARGEFILE, SETTABLE, reopen, set_status
from orchestrator.kinds.memory.shared import SharedMemory, memory_object, open_shared
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope

_CREATED = os.O_RDWR | O_LARGEFILE
"""The flags of a new memfd."""


class MemFd(Record, frozen=True, tag="memfd"):
    """An open file description of shared memory."""

    object: ObjectId


def _recognise(view: FdView) -> bool:
    # Whoever opens /proc/PID/map_files gets a descriptor of MAP_ANONYMOUS memory, too.
    return view.link.startswith(("/memfd:", "/dev/zero (deleted)")) and view.stat.st_nlink == 0


def _capture(view: FdView, scope: Scope) -> MemFd | None:
    of = memory_object(scope, view.pid, view.path, view.what, view.stat.st_dev, view.stat.st_ino)
    return MemFd(of) if of >= 0 else None


def _rebuild(file: OpenFile, depot: Depot) -> None:
    standing = open_shared(file.body.object, depot)
    if _is_original(file, depot):
        # Unlike one that was opened, the first descriptor of a memfd does not keep it from being executed.
        depot.tape.dup3(standing, depot.slot(file.id), O_CLOEXEC)
        set_status(depot.tape, standing, file.flags)
        depot.tape.lseek(standing, file.position, os.SEEK_SET)
    else:
        reopen(depot, standing, file)


def _is_original(file: OpenFile, depot: Depot) -> bool:
    """Tell the open file that memfd_create(2) itself may have given: it shows no difference from another."""
    first = next((user for user in depot.users(file.body.object) if user.flags & ~SETTABLE == _CREATED), None)
    return first is not None and first.id == file.id and depot.objects[file.body.object].name is not None


KIND = FileKind("memfd", MemFd, _recognise, _capture, _rebuild, objects=(SharedMemory,), links="/")
