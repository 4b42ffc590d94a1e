"""Pipes, with what was written to them and not yet read. See pipe(7)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from orchestrator.ids import ObjectId
from orchestrator.kinds.files.external import external_key
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile, anybody
from orchestrator.kinds.files.reopening import O_LARGEFILE, reopen, set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope, Shared
from orchestrator.linux.pipes import peek_pipe
from orchestrator.tape.build import Tape

F_SETPIPE_SZ = 1031
F_GETPIPE_SZ = 1032
PIPE_BUF = 4096
_READ_END, _WRITE_END = 0, 1


class PipeBuffer(Record, frozen=True, tag="pipe-buffer"):
    """What is between the ends of a pipe or FIFO."""

    capacity: int
    """In bytes. See F_SETPIPE_SZ."""
    contents: list[bytes]
    """One piece, or several that were written in packet mode (O_DIRECT) and are read one by one."""


class PipeEnd(Record, frozen=True, tag="pipe"):
    """An open file description of a pipe; its flags say which end."""

    object: ObjectId


def capture_buffer(view: FdView) -> PipeBuffer:
    """Read a pipe's contents without taking them out."""
    capacity = fcntl.fcntl(view.local, F_GETPIPE_SZ)
    waiting = view.unread
    if not waiting:
        return PipeBuffer(capacity, [])
    if view.info.flags & os.O_ACCMODE == os.O_WRONLY:
        # Whoever reads is not known yet: read by an end of our own, which is gone before anybody is released.
        fd = os.open(view.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            contents = peek_pipe(fd, capacity)
        finally:
            os.close(fd)
    else:
        contents = peek_pipe(view.local, capacity)
    if sum(map(len, contents)) != waiting:
        raise OSError(f"{view.what} of {view.pid}: read {sum(map(len, contents))} of {waiting} bytes")
    return PipeBuffer(capacity, contents)


def _recognise(view: FdView) -> bool:
    return view.link.startswith("pipe:[")


def _capture(view: FdView, scope: Scope) -> PipeEnd:
    return PipeEnd(buffer_object(view, scope))


def buffer_object(view: FdView, scope: Scope) -> ObjectId:
    """Return the shared object between the ends of a pipe or FIFO, reading its contents on first sight."""
    status = view.stat
    identity = (status.st_dev, status.st_ino)
    scope.shared.setdefault(identity, Shared(view.pid, view.what, external_key(view)))
    return scope.object("pipe", identity, lambda _: capture_buffer(view))


def refill(tape: Tape, fd: int, buffer: PipeBuffer, ends: Sequence[OpenFile]) -> None:
    """Give a fresh pipe its capacity and contents through its write end, which does not block."""
    tape.fcntl(fd, F_SETPIPE_SZ, buffer.capacity)
    if not buffer.contents:
        return
    packets = len(buffer.contents) > 1 or any(end.flags & os.O_DIRECT and end.flags & os.O_ACCMODE for end in ends)
    for piece in buffer.contents:
        direct = os.O_DIRECT if packets and len(piece) <= PIPE_BUF else 0
        tape.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | direct)
        tape.write(fd, piece, len(piece))
    tape.fcntl(fd, fcntl.F_SETFL, 0)


def _rebuild(file: OpenFile, depot: Depot) -> None:
    """Make a pipe and all its ends with the first of them."""
    ends = depot.users(file.body.object)
    if ends[0].id != file.id:
        return
    tape = depot.tape
    tape.pipe2(tape.space(8), O_CLOEXEC)
    refill(tape, _WRITE_END, depot.objects[file.body.object], ends)
    native: dict[int, int] = {}
    for end in ends:
        # pipe2 makes ends without O_LARGEFILE; whatever was opened by a path has it.
        side = {os.O_RDONLY: _READ_END, os.O_WRONLY: _WRITE_END}.get(end.flags & (os.O_ACCMODE | O_LARGEFILE), -1)
        if side >= 0 and side not in native:
            native[side] = end.id
            set_status(tape, side, end.flags)
            tape.dup3(side, depot.slot(end.id), O_CLOEXEC)
        else:
            reopen(depot, _READ_END, end, scratch=2)
    tape.close(_READ_END)
    tape.close(_WRITE_END)


KIND = FileKind("pipe", PipeEnd, _recognise, _capture, _rebuild, objects=(PipeBuffer,), may_open=anybody, links="pipe:")
