"""Descriptors of processes and threads. See pidfd_open(2)."""

from __future__ import annotations

from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import FdView, FileKind, OpenFile, Settling
from orchestrator.kinds.files.late import hold_place, open_in_place
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.pidfd import PIDFD_NONBLOCK, PIDFD_THREAD
from orchestrator.linux.proc_status import read_status
from orchestrator.tape.build import Tape


class PidFd(Record, frozen=True, tag="pidfd"):
    """A process or thread by the job's own number. All pidfds of one process are alike but for O_NONBLOCK."""

    pid: int


def _recognise(view: FdView) -> bool:
    return view.link == "anon_inode:[pidfd]" or view.link.startswith("pidfd:[")


def _capture(view: FdView, scope: Scope) -> PidFd | None:
    host = int(view.info.get("Pid") or "-1")
    if host <= 0:
        scope.unsupported(view.pid, view.what, "the process it stands for has ended and was waited for")
        return None
    number: int | None = scope.pids.get(HostPid(host))
    if number is None and view.info.flags & PIDFD_THREAD:
        try:
            status = read_status(host)
        except (FileNotFoundError, ProcessLookupError):
            status = None
        number = status.ns_pid[-1] if status and status.tgid in scope.pids else None
    if number is None:
        scope.outside(view.pid, view.what, f"it stands for process {host}, which is not in the job")
        return None
    return PidFd(number)


def _settle(file: OpenFile, settling: Settling) -> None:
    flags = file.flags & (PIDFD_NONBLOCK | PIDFD_THREAD)

    def write_open(tape: Tape) -> None:
        tape.pidfd_open(file.body.pid, flags)
        set_status(tape, settling.free, file.flags, flags)

    open_in_place(file, settling, write_open)


KIND = FileKind("pidfd", PidFd, _recognise, _capture, hold_place, _settle)
