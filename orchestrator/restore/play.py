"""Play the tapes of a restore: many tasks at once, every child caught at its birth.

All tasks are traced from their first instant, with PTRACE_O_EXITKILL: if orch dies, so does the
half-made job. Stops are collected without WEXITED, so that no other child's exit status is taken.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from orchestrator.errors import NotPermitted, RebuildFailed
from orchestrator.ids import FarAddr, HostPid, HostTid, Pid, Tid
from orchestrator.kinds.task.sleeps import Sleep
from orchestrator.linux import ptrace
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.proc_stat import read_stat
from orchestrator.restore.patience import Patience
from orchestrator.tape.build import Played, Tape, TapeError
from orchestrator.tape.memory import Arena
from orchestrator.tape.tracee import MASK_ALL_BUT_TAPE_SIGNAL, TaskGone, Tracee

OPTIONS = (
    ptrace.PTRACE_O_TRACESYSGOOD
    | ptrace.PTRACE_O_TRACEFORK
    | ptrace.PTRACE_O_TRACEVFORK
    | ptrace.PTRACE_O_TRACECLONE
    | ptrace.PTRACE_O_TRACEEXIT
    | ptrace.PTRACE_O_EXITKILL
)
_WITHIN = 10.0
_RECENT = 4
_BIRTHS = (ptrace.PTRACE_EVENT_FORK, ptrace.PTRACE_EVENT_VFORK, ptrace.PTRACE_EVENT_CLONE)


class Birth:
    """A task that a clone3 entry of some tape will make, and what it shall play first."""

    __slots__ = ("born", "pid", "tape", "tid")

    def __init__(self, pid: Pid, tid: Tid, tape: Tape, born: Callable[[Actor], list[Birth]]) -> None:
        self.pid = pid
        self.tid = tid
        self.tape = tape
        self.born = born
        """Called with the new task; returns the births of its own tape, in order."""


class Actor(msgspec.Struct, eq=False):
    """A task of the restored job while it is made."""

    tracee: Tracee
    tape: Tape | None = None
    births: deque[Birth] = msgspec.field(default_factory=deque)
    played: Played | None = None
    ended: bool = False


class Stage:
    """The tasks of a restore, and the loop that waits for them."""

    def __init__(
        self,
        arena: Arena,
        loop: FarAddr,
        registers: list[int],
        syscall_at: FarAddr,
        patience: Patience | None = None,
    ) -> None:
        self.arena = arena
        self.actors: dict[HostTid, Actor] = {}
        self._loop = loop
        self._registers = registers
        self._syscall_at = syscall_at
        self._busy = 0
        self._patience = patience or Patience()
        self._recent: deque[HostTid] = deque(maxlen=_RECENT)
        self._orphans: dict[int, None] = {}
        self._expected: dict[int, Birth] = {}
        self._scratch = FarAddr(arena.reserve(4096) + 2048)

    def adopt(self, tid: HostTid, pid: Pid, vtid: Tid) -> Actor:
        """Take a stopped task in."""
        tracee = Tracee(tid, pid, vtid, self.arena, self._syscall_at)
        tracee.registers = self._registers
        actor = Actor(tracee)
        self.actors[tid] = actor
        return actor

    def start(self, actor: Actor, tape: Tape, births: Iterable[Birth] = ()) -> None:
        """Let a task begin to play; :meth:`run` waits for it and for all it gives birth to."""
        actor.tape = tape
        actor.births = deque(births)
        actor.played = None
        at = self.arena.reserve(tape.size)
        tracee = actor.tracee
        self.arena.write(at, tape.encode(at, tracee.pid, tracee.vtid))
        self._busy += 1
        tracee.enter(tape, at, self._loop, self._scratch)
        self._recent.append(tracee.tid)

    def play(self, actor: Actor, tape: Tape, births: Iterable[Birth] = ()) -> Played:
        """Play one tape, and those of the tasks born by it, to the end."""
        self.start(actor, tape, births)
        self.run()
        assert actor.played is not None
        return actor.played

    def run(self) -> None:
        """Wait until every started tape is at its end.

        That takes as long as the calls do: files may be large, and disks slow. But if none of the tasks gets on any
        more, RestoreStalled is raised.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        try:
            while self._busy:
                event = self._next_of_recent() or self._next_of_all()
                self._handle(ptrace.Stop(event.si_pid, event.si_status << 8 | 0x7F))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _next_of_all(self) -> os.waitid_result:
        """Wait for any task. SIGCHLD tells of a stop, and waits for us as long as it is blocked."""
        self._patience.restart()
        while (event := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG | ptrace.WALL)) is None:
            if signal.sigtimedwait({signal.SIGCHLD}, self._patience.tick) is None:
                self._patience.look(tid for tid, actor in self.actors.items() if actor.tape is not None)
        return event

    def _next_of_recent(self) -> os.waitid_result | None:
        """Look after the tasks that were let go last: to wait for any, the kernel goes through all of them."""
        for tid in [*self._recent]:
            try:
                event = os.waitid(os.P_PID, tid, os.WSTOPPED | os.WNOHANG | ptrace.WALL)
            except ChildProcessError:
                self._recent.remove(tid)
                continue
            if event is not None:
                self._recent.remove(tid)
                return event
        return None

    def _handle(self, stop: ptrace.Stop) -> None:
        tid = HostTid(stop.tid)
        actor = self.actors.get(tid)
        if actor is None:
            birth = self._expected.pop(tid, None)
            if birth is None:
                self._orphans[tid] = None  # born before its parent's event was seen
            else:
                self._begin(tid, birth)
            return
        if stop.event in _BIRTHS:
            child = ptrace.event_message(tid)
            birth = actor.births.popleft()
            self._busy += 1  # the child counts from here on
            ptrace.cont(tid)
            self._recent += (tid, HostTid(child))
            if child in self._orphans:
                del self._orphans[child]
                self._begin(HostTid(child), birth)
            else:
                self._expected[child] = birth
        elif stop.event == ptrace.PTRACE_EVENT_EXIT:
            self._ending(tid, actor)
        elif actor.tape is not None and actor.tracee.stopped_at_end(stop):
            actor.played = self._results(actor)
            actor.tape = None
            self._busy -= 1

    def _begin(self, tid: HostTid, birth: Birth) -> None:
        actor = self.adopt(tid, birth.pid, birth.tid)
        births = birth.born(actor)
        self._busy -= 1  # start counts it again
        self.start(actor, birth.tape, births)

    def _ending(self, tid: HostTid, actor: Actor) -> None:
        status = ptrace.event_message(tid)
        tape = actor.tape
        wanted = tape is not None and tape.ends_task
        ptrace.cont(tid)
        os.waitpid(tid, ptrace.WALL)
        del self.actors[tid]
        actor.ended = True
        if not wanted:
            raise RebuildFailed(
                f"task {actor.tracee.vtid} of the restored job ended with wait status {status:#x}"
                + (f" while it played '{tape.label}'" if tape else "")
            )
        self._busy -= 1

    def _results(self, actor: Actor) -> Played:
        try:
            return actor.tracee.read_results()
        except TapeError as error:
            raise RebuildFailed(
                f"task {actor.tracee.vtid} of the restored job could not be rebuilt: {error.tape.label}: {error}",
            ) from error

    def kill(self) -> None:
        """End every task that was made and see to it that nothing is left of them."""
        tids = [*self.actors, *(HostTid(t) for t in self._orphans), *(HostTid(t) for t in self._expected)]
        for tid in tids:
            with contextlib.suppress(OSError):
                os.kill(tid, signal.SIGKILL)
        left = tids[::-1]
        deadline = time.monotonic() + _WITHIN
        while left and time.monotonic() < deadline:  # what waits in the kernel ends once that answers
            waiting = [tid for tid in left if not _is_over(tid)]
            if len(waiting) == len(left):
                time.sleep(0.0005)
            left = waiting
        self.actors.clear()


def _is_over(tid: HostTid) -> bool:
    """Whether a killed task has ended and is reaped; one that stopped on its way is let go on."""
    try:
        stop = ptrace.poll_for(tid)
    except ChildProcessError:
        return True
    if stop is not None and stop.is_stop:
        with contextlib.suppress(OSError):
            ptrace.cont(tid)
    return stop is not None and not stop.is_stop


def resume(tracee: Tracee, registers: bytes, xstate: bytes, sigmask: int, unmap: tuple[int, int, int] | None) -> None:
    """Give a task the registers of the image; it still stands still.

    ``unmap``: (address of a system-call instruction that stays mapped, start, size): the arena is
    taken away by one stepped call, the last thing done from outside.
    """
    tid = tracee.tid
    if unmap is not None:
        at, start, size = unmap
        step = tracee.registers.copy()
        arch.set_call(step, at, arch.MUNMAP, (start, size))
        ptrace.set_sigmask(tid, (1 << 64) - 1)
        ptrace.set_regset(tid, ptrace.NT_PRSTATUS, arch.pack_registers(step))
        # not PTRACE_SINGLESTEP: its SIGTRAP would reset the job's own handler for it
        for _ in ("entry", "exit"):
            ptrace.syscall_step(tid)
            stop = ptrace.wait_for(tid)
            if not stop.is_stop:
                raise TaskGone(tid, stop.status)
        after = arch.unpack_registers(ptrace.get_regset(tid, ptrace.NT_PRSTATUS))
        if arch.call_result(after) != 0:
            raise RebuildFailed(f"task {tracee.vtid}: the arena could not be unmapped: {arch.call_result(after)}")
    ptrace.set_regset(tid, ptrace.NT_PRSTATUS, registers)
    if xstate:
        ptrace.set_regset(tid, ptrace.NT_X86_XSTATE, xstate)
    ptrace.set_sigmask(tid, sigmask)


def begin_sleep(stage: Stage, actor: Actor, sleep: Sleep, syscall_at: int) -> bool:
    """Let a thread sleep and interrupt it at once: its restart block then knows when it is to wake up.

    Say whether it has one: a sleep that is over by now has none.
    """
    tracee = actor.tracee
    at = stage.arena.reserve(16)
    stage.arena.write(at, struct.pack("<qq", *sleep.left))
    values = tracee.registers.copy()
    arch.set_call(values, syscall_at, arch.CLOCK_NANOSLEEP, (sleep.clock, 0, at, sleep.tells))
    ptrace.set_sigmask(tracee.tid, (1 << 64) - 1)
    ptrace.set_regset(tracee.tid, ptrace.NT_PRSTATUS, arch.pack_registers(values))
    for asleep in (False, True):
        ptrace.syscall_step(tracee.tid)
        if asleep:
            ptrace.interrupt(tracee.tid)
        stop = ptrace.wait_for(tracee.tid)
        if not stop.is_stop:
            raise TaskGone(tracee.tid, stop.status)
    after = arch.unpack_registers(ptrace.get_regset(tracee.tid, ptrace.NT_PRSTATUS))
    return arch.call_result(after) == -arch.ERESTART_RESTARTBLOCK


def behead(stage: Stage, main: Actor, syscall_at: int, exit_status: int) -> None:
    """Let the main thread of a process end, and wait until it has; the others stand still and live on.

    It is let go first: to a tracer its end would be told only when the last of its threads has ended.
    """
    tracee = main.tracee
    values = tracee.registers.copy()
    arch.set_call(values, syscall_at, arch.EXIT, (exit_status >> 8,))
    ptrace.set_regset(tracee.tid, ptrace.NT_PRSTATUS, arch.pack_registers(values))
    ptrace.set_sigmask(tracee.tid, (1 << 64) - 1)
    ptrace.detach(tracee.tid)
    del stage.actors[tracee.tid]
    if not await_state(tracee.tid, "Z"):
        raise RebuildFailed(f"the main thread of process {tracee.pid} does not end")


def await_state(tid: HostTid, state: str) -> bool:
    """Wait, at most some seconds, until a task that was let go is in a state of /proc/PID/stat; say whether it is."""
    deadline = time.monotonic() + _WITHIN
    while read_stat(tid).state != state:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0001)
    return True


def first_stop(pid: HostPid, *, suspend_seccomp: bool = False) -> None:
    """Seize a fresh seed and wait until it stands still.

    With ``suspend_seccomp`` no filter holds for it and all that it begets, until they are let go.
    """
    try:
        ptrace.seize(pid, OPTIONS | (ptrace.PTRACE_O_SUSPEND_SECCOMP if suspend_seccomp else 0))
    except PermissionError as error:
        if not suspend_seccomp:
            raise
        raise NotPermitted(
            "the job has seccomp filters, and orch may not suspend them while it rebuilds the job",
            hint="run orch as root, and without a seccomp filter of its own",
        ) from error
    ptrace.interrupt(pid)
    while True:
        stop = ptrace.wait_for(pid)
        if not stop.is_stop:
            raise RebuildFailed(f"the first process ended with wait status {stop.status:#x}")
        if stop.event == ptrace.PTRACE_EVENT_STOP:
            break
        ptrace.cont(pid)
    ptrace.set_sigmask(pid, MASK_ALL_BUT_TAPE_SIGNAL)
