"""Who is told by a signal that a file is ready. See fcntl(2), F_SETOWN_EX, F_SETSIG, O_ASYNC."""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import FdView, OpenFile, Owner
from orchestrator.kinds.files.reopening import FASYNC, set_async
from orchestrator.kinds.scope import Scope
from orchestrator.linux.proc_status import read_status
from orchestrator.tape.build import Tape

_F_SETSIG, _F_GETSIG, _F_SETOWN_EX, _F_GETOWN_EX = 10, 11, 15, 16
_F_OWNER_TID, _F_OWNER_PID, _F_OWNER_PGRP = 0, 1, 2
_f_owner_ex = struct.Struct("=ii")


def has_owner(link: str, flags: int) -> bool:
    """Whether somebody may be told: an eventfd and its like send no signals."""
    return not flags & os.O_PATH and not link.startswith("anon_inode:[")


def ask_signals(fd: int) -> tuple[int, int, int]:
    """Return who is told (F_OWNER_*, and its number for us; 0 is nobody), and by which signal."""
    type_, host = _f_owner_ex.unpack(fcntl.fcntl(fd, _F_GETOWN_EX, bytes(_f_owner_ex.size)))
    return type_, host, fcntl.fcntl(fd, _F_GETSIG)


def capture_owner(view: FdView, scope: Scope) -> Owner | None:
    """Ask who gets a file's signals; None if nobody does."""
    foretold = view.foretold.signals if view.foretold is not None else None
    type_, host, signal = foretold or ask_signals(view.local)
    if not host:
        return Owner(type_, 0, signal) if signal else None
    number = _in_job(type_, host, scope)
    if stat.S_ISDIR(view.stat.st_mode):  # it has no other use for one
        reason = "it may be watched with F_NOTIFY, and the kernel does not show for what"
        scope.unsupported(view.pid, view.what, reason)
        return None
    if number is None:
        scope.outside(view.pid, view.what, f"its signals go to {host}, which is outside of the job or has ended")
        return None
    return Owner(type_, number, signal)


def _in_job(type_: int, host: int, scope: Scope) -> int | None:
    """Translate a host number of an owner into the job's own."""
    if type_ == _F_OWNER_PID:
        return scope.pids.get(HostPid(host))
    if type_ == _F_OWNER_PGRP:
        for pid in scope.pids:
            status = read_status(pid)
            if status.ns_pgid[0] == host:
                return status.ns_pgid[-1]
        return None
    try:
        status = read_status(host)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return status.ns_pid[-1] if status.tgid in scope.pids else None


def tell_owner(tape: Tape, fd: int, file: OpenFile) -> None:
    """Name the owner again, in a process that has the file, once all processes are there."""
    if file.owner is not None:
        if file.owner.pid:
            tape.fcntl(fd, _F_SETOWN_EX, _f_owner_ex.pack(file.owner.type, file.owner.pid))
        if file.owner.signal:
            tape.fcntl(fd, _F_SETSIG, file.owner.signal)
    if file.flags & FASYNC:
        set_async(tape, fd, file.flags)
