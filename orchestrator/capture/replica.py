"""Keep the memory of a held process as it is in a copy-on-write child, so that the process can go on at once.

The process clones itself by a tape. The child never runs the program: we trace it from its first instant, it writes the
pages once the job runs again, and is killed. It is made with exit signal 0, so its parent gets no SIGCHLD and no
answer about it from wait(2) without __WALL or __WCLONE; in the end the parent waits for it by one stepped call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

from orchestrator.capture.hold import HeldProcess
from orchestrator.capture.threads import leave_rseq_section
from orchestrator.ids import HostPid, HostTid, Pid, Tid
from orchestrator.kinds.memory.record import PageRun, Vma
from orchestrator.kinds.task.traps import arm, disarm, read_traps
from orchestrator.linux import ptrace, syscalls
from orchestrator.linux.call import machine
from orchestrator.linux.pidfd import pidfd_open
from orchestrator.linux.proc_misc import list_threads, read_auxv, read_children
from orchestrator.linux.proc_status import read_status
from orchestrator.tape.build import Played, Result, Tape, TapeError
from orchestrator.tape.memory import ProcMemory
from orchestrator.tape.tracee import (
    TaskGone,
    Tracee,
    Workspace,
    call_sites,
    hold,
    wait_held,
)

_CLONE_PTRACE = 0x2000
_CLONE_ARGS = _CLONE_PTRACE.to_bytes(88, "little")
"""See struct clone_args in clone(2): a child that we trace, too, with exit signal 0."""
_REAP_SECONDS = 2.0
_LOOK_FOR_STOP = os.WEXITED | os.WSTOPPED | os.WNOWAIT | ptrace.WALL
_TERMINATION = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_GET_NO_NEW_PRIVS = 39
_NOT_IN_CHILD = frozenset(("dc", "wf"))


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let signals that are to end us wait for a few moments."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINATION)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Replica:
    """The child. It stands still from its first instant, and is met when the job runs again."""

    def __init__(self, host: HostPid, pid: Pid, parent: HeldProcess) -> None:
        self.host = host
        self._pid = pid
        self._parent = parent
        self._workspace = parent.workspace
        self._parent_pidfd = os.dup(parent.pidfd)
        self._process: HeldProcess | None = None

    @property
    def process(self) -> HeldProcess:
        """What stands for it as for any held process."""
        if self._process is None:
            self._process = _meet(self.host, self._pid, self._parent, self._workspace)
        return self._process

    def leave_job(self) -> None:
        """Go into a session of its own: whoever signals a process group of the job does not mean the replica."""
        assert self.process.workspace is not None
        tape = Tape(f"{self.process.name}: leave the session")
        tape.setsid(may_fail=True)
        self.process.leader.play(tape, self.process.workspace)

    def end(self) -> None:
        """Kill the child and have its parent wait for it. A signal that is to end us waits for that."""
        with _uninterrupted():
            self._end()

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.host, signal.SIGKILL)
            while os.WIFSTOPPED(os.waitpid(self.host, ptrace.WALL)[1]):
                ptrace.cont(self.host)
        if self._process is not None:
            if self._process.memory is not None:
                self._process.memory.close()
            os.close(self._process.pidfd)
        try:
            if _is_alive(self._parent_pidfd):
                reap_in(self._parent.host, self._pid)
        finally:
            os.close(self._parent_pidfd)


Keep = Callable[[Replica], object]
"""Gets a replica as soon as there is one, to end it when it is not needed any more."""


class Birth(NamedTuple):
    """The entries at the end of a tape by which who plays it clones itself."""

    clone: Result
    only_child: Result


def write_birth(tape: Tape) -> Birth:
    """Let a tape end with a clone of the task.

    The child is stopped before it does anything. Should we be killed before we have met it, it comes behind the clone,
    and must not go on as a second one of the program. Its result of the clone is 0, with which the next call succeeds;
    with any other it fails, and the tape of the parent is at its end.
    """
    clone = tape.clone3(_CLONE_ARGS, len(_CLONE_ARGS))
    only_child = tape.prctl(_PR_GET_NO_NEW_PRIVS, clone, 0, 0, 0)
    tape.exit_group(0)
    return Birth(clone, only_child)


class Cloning:
    """A held process that plays a tape with a birth at its end: many can do so at once. ``keep`` gets the replica."""

    def __init__(self, process: HeldProcess, tape: Tape, birth: Birth, keep: Keep) -> None:
        assert process.workspace is not None
        self._process = process
        self._birth = birth
        self._keep = keep
        self._finished: tuple[Played, Replica | None] | None = None
        process.leader.start(tape, process.workspace)

    @classmethod
    def of(cls, process: HeldProcess, keep: Keep) -> Self:
        """Let a process do nothing else."""
        tape = Tape(f"{process.name}: clone for a snapshot")
        return cls(process, tape, write_birth(tape), keep)

    def finish(self) -> tuple[Played, Replica | None]:
        """Return what the tape returned before, and the replica; again if it was interrupted, or is asked again.

        None if there can be none: limits of the process or its cgroup forbid one more.
        """
        if self._finished is None:
            os.waitid(os.P_PID, self._process.leader.tid, _LOOK_FOR_STOP)  # interrupted here, nothing is lost
            with _uninterrupted():
                self._finished = self._finish()
        return self._finished

    def _finish(self) -> tuple[Played, Replica | None]:
        try:
            self._process.leader.finish()
            raise AssertionError("the parent of a replica has ended")
        except TapeError as error:
            played = error.played
            if error.entry == self._birth.clone.entry:
                return played, None
            if error.entry != self._birth.only_child.entry:
                raise
            replica = self._replica(Pid(played.result(self._birth.clone)))
            self._keep(replica)
            return played, replica

    def _replica(self, pid: Pid) -> Replica:
        process = self._process
        host = HostPid(pid)
        if len(process.status.ns_pid) > 1:
            children = reversed(read_children(process.host, process.leader.tid))
            host = next(HostPid(child) for child in children if read_status(child).ns_pid[-1] == pid)
        return Replica(host, pid, process)


def _meet(host: HostPid, pid: Pid, parent: HeldProcess, workspace: Workspace | None) -> HeldProcess:
    """Wait for the first stop, and have the kernel end the child should we end; its tape would see to that, too."""
    while ptrace.wait_for(host).event != ptrace.PTRACE_EVENT_STOP:
        ptrace.cont(host)
    ptrace.set_options(host, ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_EXITKILL)
    memory = ProcMemory(host)
    leader = parent.leader
    tracee = Tracee(HostTid(host), pid, Tid(pid), memory, leader.syscall_at, leader.stone_at)
    tracee.registers, tracee.xstate, tracee.sigmask = leader.registers, leader.xstate, leader.sigmask
    return HeldProcess(
        host, parent.stat, parent.status, pid, [tracee],
        memory=memory, auxv=parent.auxv, workspace=workspace, owns_workspace=True, pidfd=pidfd_open(host),
    )  # fmt: skip


def may_share(vmas: Sequence[Vma]) -> bool:
    """Say whether a process may have a copy-on-write child for a while.

    Not with private huge pages: what it writes then takes another one from the machine's pool, which may be empty.
    """
    return not any("ht" in vma.flags and not vma.shared for vma in vmas)


def split_runs(vmas: list[Vma], runs: list[PageRun]) -> tuple[list[PageRun], list[PageRun]]:
    """Part runs into those that a child has too, and those of mappings that are kept from it (MADV_DONTFORK, ...)."""
    kept = [vma for vma in vmas if _NOT_IN_CHILD & {*vma.flags}]
    if not kept:
        return runs, []
    inside = [run for run in runs if any(vma.start <= run.start < vma.end for vma in kept)]
    return [run for run in runs if run not in inside], inside


def _is_alive(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except OSError:
        return False
    return True


def reap_in(parent: HostPid, child: Pid) -> bool:
    """Have any thread of a running process wait for a dead child; say whether one did."""
    for tid in list_threads(parent):
        try:
            hold(HostTid(tid))
        except OSError:
            continue
        try:
            wait_held(HostTid(tid), time.monotonic() + _REAP_SECONDS)
        except (TimeoutError, TaskGone):
            continue
        return _wait_by(parent, HostTid(tid), child)
    return False


def _wait_by(parent: HostPid, tid: HostTid, child: Pid) -> bool:
    auxv = read_auxv(tid)
    status = read_status(parent, tid)
    memory = ProcMemory(HostPid(tid))
    try:
        tracee = Tracee(
            tid, Pid(status.ns_tgid[-1]), Tid(status.ns_pid[-1]), memory,
            *call_sites(parent, auxv, memory),
        )  # fmt: skip
        tracee.load()
        leave_rseq_section(memory, tracee)
        if traps := read_traps(tid):
            disarm(tid, traps)
        number = syscalls.numbers(machine())["wait4"]
        reaped = tracee.call(number, child, 0, ptrace.WALL | os.WNOHANG, 0) == child
        if traps:
            arm(tid, traps)
        tracee.release()
    except TaskGone:
        return False
    finally:
        memory.close()
    return reaped
