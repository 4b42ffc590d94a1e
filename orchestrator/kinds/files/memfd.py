"""Memory with a descriptor. See memfd_create(2)."""

from __future__ import annotations

from orchestrator.ids import ObjectId
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import reopen
from orchestrator.kinds.memory.shared import SharedMemory, memory_object, open_shared
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope


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
    reopen(depot, open_shared(file.body.object, depot), file)


KIND = FileKind("memfd", MemFd, _recognise, _capture, _rebuild, objects=(SharedMemory,))
