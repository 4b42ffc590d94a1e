"""Descriptors of processes and threads. See pidfd_open(2)."""

from __future__ import annotations

from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile, Settling
from orchestrator.kinds.files.late import hold_place, open_in_place
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.pidfd import PIDFD_NONBLOCK, PIDFD_THREAD, exit_status
from orchestrator.linux.proc_status import read_status
from orchestrator.linux.statfs import PID_FS_MAGIC, filesystem_magic
from orchestrator.tape.build import Tape

_RLIMIT_CORE = 4
_SIG_UNBLOCK = 1


class PidFd(Record, frozen=True, tag="pidfd"):
    """A process or thread by the job's own number. All pidfds of one process are alike but for O_NONBLOCK."""

    pid: int
    """0 for one that has ended and was waited for."""
    exit_status: int = 0
    """The wait status of such a one, which PIDFD_GET_INFO tells."""
    ended: int = 0
    """What tells such processes apart: the inode number of all pidfds of one (since Linux 6.9); 0 if unknown."""


def _recognise(view: FdView) -> bool:
    return view.link == "anon_inode:[pidfd]" or view.link.startswith("pidfd:[")


def _capture(view: FdView, scope: Scope) -> PidFd | None:
    host = int(view.info.get("Pid") or "-1")
    if host <= 0:
        tells_apart = filesystem_magic(view.path) == PID_FS_MAGIC
        return PidFd(0, exit_status(view.local) or 0, view.stat.st_ino if tells_apart else 0)
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


def _rebuild(file: OpenFile, depot: Depot) -> None:
    """Let a child open all pidfds of one that has ended, and end. Any other is opened when all processes are there."""
    body: PidFd = file.body
    if body.pid:
        hold_place(file, depot)
        return
    alike = [file]
    if body.ended:
        bodies = ((other, other.body) for other in depot.files.values())
        alike = [other for other, its in bodies if isinstance(its, PidFd) and not its.pid and its.ended == body.ended]
    if file.id != min(other.id for other in alike):
        return
    helper = Tape("end as one whose pidfds are left")
    for other in alike:
        helper.pidfd_open(helper.getpid(), 0)
        set_status(helper, 0, other.flags & ~PIDFD_THREAD)
        helper.dup3(0, depot.slot(other.id), O_CLOEXEC)
        helper.close(0)
    end_with(helper, body.exit_status)
    depot.let_child_play(helper)


def end_with(tape: Tape, status: int) -> None:
    """End the calling process with a wait status."""
    tape.ends_task = True
    number = status & 0x7F
    if number:
        tape.setsid()  # alone in its group, it can be named by 0
        tape.prlimit64(0, _RLIMIT_CORE, bytes(16), 0)
        tape.rt_sigprocmask(_SIG_UNBLOCK, (1 << number - 1).to_bytes(8, "little"), 0, 8)
        tape.kill(0, number)
    tape.exit_group(status >> 8 & 0xFF)


def _settle(file: OpenFile, settling: Settling) -> None:
    if not file.body.pid:
        return
    flags = file.flags & (PIDFD_NONBLOCK | PIDFD_THREAD)

    def write_open(tape: Tape) -> None:
        tape.pidfd_open(file.body.pid, flags)
        set_status(tape, settling.free, file.flags, flags)

    open_in_place(file, settling, write_open)


KIND = FileKind("pidfd", PidFd, _recognise, _capture, _rebuild, _settle)
