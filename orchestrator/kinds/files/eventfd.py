"""Event counters. See eventfd(2)."""

from __future__ import annotations

import os
import struct

from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile, anybody
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope

_EFD_SEMAPHORE = 1
_u64 = struct.Struct("=Q")


class EventFd(Record, frozen=True, tag="eventfd"):
    """A counter; in a semaphore a read takes one, else all."""

    count: int
    semaphore: bool


def _recognise(view: FdView) -> bool:
    return view.link == "anon_inode:[eventfd]"


def _capture(view: FdView, scope: Scope) -> EventFd:  # noqa: ARG001 - the signature of all kinds
    count = int(view.info.get("eventfd-count") or "", 16)
    semaphore = view.info.get("eventfd-semaphore")
    return EventFd(count, semaphore == "1" if semaphore is not None else try_semaphore(view.local, count))


def try_semaphore(fd: int, count: int) -> bool:
    """Find out whether an eventfd is a semaphore by using it, and leave it as it was.

    For kernels before 6.5, whose fdinfo does not tell. The job is held and does not see it.
    """
    flags = os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        if count < 2:
            os.write(fd, _u64.pack(2))
        (taken,) = _u64.unpack(os.read(fd, 8))
        left = count - taken + (2 if count < 2 else 0)
        if left > count:
            _u64.unpack(os.read(fd, 8))  # a semaphore gives one at a time
        elif left < count:
            os.write(fd, _u64.pack(count - left))
        return bool(taken == 1)
    finally:
        os.set_blocking(fd, flags)


def _rebuild(file: OpenFile, depot: Depot) -> None:
    body: EventFd = file.body
    small = body.count if body.count <= 0xFFFFFFFF else 0
    depot.tape.eventfd2(small, O_CLOEXEC | (_EFD_SEMAPHORE if body.semaphore else 0))
    if body.count != small:
        depot.tape.write(0, _u64.pack(body.count), 8)
    set_status(depot.tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


KIND = FileKind("eventfd", EventFd, _recognise, _capture, _rebuild, may_open=anybody, links="anon_inode:")
