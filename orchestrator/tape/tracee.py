"""A task under our ptrace that plays tapes.

A played tape heals itself: it ends by sending its own task a SIGWINCH, where we take over again, and
behind that stands rt_sigreturn with a frame of the task's own registers. Should orch die meanwhile,
the signal passes unnoticed (or reaches the task's handler for window changes) and the frame resumes
the task where it was.
"""

from __future__ import annotations

import errno
import mmap
import signal
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from orchestrator.ids import FarAddr, HostTid, Pid, Tid
from orchestrator.linux import ptrace, vdso
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.proc_maps import read_maps
from orchestrator.tape.build import TAPE_SIGNAL, Played, Tape, TapeError
from orchestrator.tape.memory import Memory

MASK_ALL_BUT_TAPE_SIGNAL = (1 << 64) - 1 & ~(1 << TAPE_SIGNAL - 1)
_SI_TKILL = -6
_CODE_SPACE = 4096
_HANDLER_STACK = 32 * 1024
_SIGINFO_HEAD = struct.Struct("<iiiiii")  # si_signo, si_errno, si_code, pad, si_pid, si_uid
_SEARCHED_AT_ONCE = 1 << 20
_STOP_SIGNALS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


_NOWHERE = FarAddr(0)


class TaskGone(Exception):
    """A task ended while it was traced."""

    def __init__(self, tid: HostTid, status: int) -> None:
        super().__init__(f"task {tid} ended with wait status {status:#x}")
        self.tid = tid
        self.status = status


class Workspace(NamedTuple):
    """Memory in a task for the loop, a signal frame and tapes."""

    base: FarAddr
    size: int

    @property
    def frame(self) -> FarAddr:
        """Where the signal frame lies; below it there is room for a handler's stack."""
        return FarAddr(self.base + _CODE_SPACE + _HANDLER_STACK)


def workspace_size(tape_bytes: int, xstate: bytes) -> int:
    """Return the bytes of a workspace for tapes of up to ``tape_bytes``, in whole pages."""
    needed = _CODE_SPACE + _HANDLER_STACK + arch.sigframe_size(xstate) + 64 + tape_bytes
    return needed + 4095 & ~4095


class Tracee:
    """A stopped task. ``registers`` and ``sigmask`` are the task's own, not those of a tape."""

    __slots__ = (
        "_extra_signals", "_playing", "memory", "pid", "registers", "sigmask", "stone_at",
        "stopped_by", "syscall_at", "tid", "vtid", "xstate",
    )  # fmt: skip

    def __init__(
        self, tid: HostTid, pid: Pid, vtid: Tid, memory: Memory, syscall_at: FarAddr, stone_at: FarAddr = _NOWHERE
    ) -> None:
        self.tid = tid
        self.pid = pid
        self.vtid = vtid
        self.memory = memory
        self.syscall_at = syscall_at
        self.stone_at = stone_at
        self.registers: list[int] = []
        self.xstate = b""
        self.sigmask = 0
        self.stopped_by = 0
        self._extra_signals: list[bytes] = []
        self._playing: tuple[Tape, FarAddr] | None = None

    def load(self) -> None:
        """Read registers, extended state and signal mask of the stopped task."""
        self.registers = arch.unpack_registers(ptrace.get_regset(self.tid, ptrace.NT_PRSTATUS))
        self.xstate = ptrace.get_regset(self.tid, ptrace.NT_X86_XSTATE)
        self.sigmask = ptrace.get_sigmask(self.tid)

    def call(self, number: int, *arguments: int) -> int:
        """Make one system call outside of any workspace; return its result or -errno.

        It heals itself where there is room for a stepping stone.
        """
        self._begin_call(number, *arguments)
        self._enter_call()
        result = self._end_call()
        self.put_back()
        return result

    def _begin_call(self, number: int, *arguments: int) -> None:
        registers = self.registers.copy()
        at = self.syscall_at
        if self.stone_at:
            at = self.stone_at
            self.memory.write(at, arch.stepping_stone(self._resumable_registers(), self.sigmask))
        arch.set_call(registers, at, number, arguments)
        # code first, mask second, and back the other way round: the code puts the mask right, nothing else would
        ptrace.set_regset(self.tid, ptrace.NT_PRSTATUS, arch.pack_registers(registers))
        ptrace.set_sigmask(self.tid, (1 << 64) - 1)
        ptrace.syscall_step(self.tid)

    def _enter_call(self) -> None:
        self._wait_syscall()
        ptrace.syscall_step(self.tid)

    def _end_call(self) -> int:
        self._wait_syscall()
        after = arch.unpack_registers(ptrace.get_regset(self.tid, ptrace.NT_PRSTATUS))
        return arch.call_result(after)

    def _wait_syscall(self) -> None:
        # It takes as long as the call does, or the task lives. Whoever waits may be interrupted or killed.
        while True:
            stop = ptrace.wait_for(self.tid)
            if not stop.is_stop:
                raise TaskGone(self.tid, stop.status)
            if stop.signal == ptrace.SIGTRAP_SYSCALL:
                return
            ptrace.syscall_step(self.tid, 0 if stop.event else stop.signal)

    def play(self, tape: Tape, workspace: Workspace) -> Played:
        """Play a tape to its end."""
        self.start(tape, workspace)
        return self.finish()

    def start(self, tape: Tape, workspace: Workspace) -> None:
        """Let the task begin to play; :meth:`finish` takes the results."""
        frame_at = workspace.frame
        registers = self._resumable_registers()
        frame = arch.build_sigframe(frame_at, registers, self.xstate, self.sigmask)
        frame += bytes(-len(frame) % 64)
        first = FarAddr(frame_at + len(frame))
        if first + tape.size > workspace.base + workspace.size:
            raise ValueError(f"a tape of {tape.size} bytes does not fit its workspace")
        self.memory.write(frame_at, frame + tape.encode(first, self.pid, self.vtid))
        self.enter(tape, first, workspace.base, frame_at)

    def enter(self, tape: Tape, first: FarAddr, loop: FarAddr, frame: FarAddr) -> None:
        """Let the task play a tape that lies encoded at ``first``; the machine code is at ``loop``."""
        registers = self.registers.copy()
        arch.enter_tape(registers, loop, first, tape.closing_at(first), frame)
        ptrace.set_regset(self.tid, ptrace.NT_PRSTATUS, arch.pack_registers(registers))
        ptrace.set_sigmask(self.tid, MASK_ALL_BUT_TAPE_SIGNAL)
        self._playing = (tape, first)
        ptrace.cont(self.tid)

    def finish(self) -> Played:
        """Wait for the end of the tape, put the task's own registers back, and read the results."""
        # It takes as long as the calls do: a tape may write a hundred GiB, or to a disk that does not answer for a
        # while. Whoever waits may be interrupted or killed, and the tape heals.
        while True:
            stop = ptrace.wait_for(self.tid)
            if self.stopped_at_end(stop):
                self.put_back()  # a tape that comes to lie there is not to be what the task stands in
                return self.read_results()

    def pause(self) -> Played:
        """Wait until a tape stops itself amid its entries, and read what it returned so far; :meth:`go_on` continues.

        It does so by an entry like the one at its end. Raises TapeError if it has failed before.
        """
        while not self.stopped_at_end(ptrace.wait_for(self.tid)):
            pass
        assert self._playing is not None
        tape, at = self._playing
        try:
            return tape.read_back(self.memory.read(at, tape.size))
        except TapeError:
            self.put_back()
            raise

    def go_on(self) -> None:
        """Let a tape that pauses go on."""
        ptrace.cont(self.tid)

    def stopped_at_end(self, stop: ptrace.Stop) -> bool:
        """Judge a stop reported while a tape plays; let the task go on if it is not the tape's end."""
        if not stop.is_stop:
            raise TaskGone(self.tid, stop.status)
        if stop.event or stop.signal != TAPE_SIGNAL:
            ptrace.cont(self.tid, 0 if stop.event else stop.signal)
            return False
        info = ptrace.get_siginfo(self.tid)
        _, _, code, _, sender, _ = _SIGINFO_HEAD.unpack_from(info)
        if code != _SI_TKILL or sender not in (self.pid, 0):
            self._extra_signals.append(info)
            ptrace.cont(self.tid)
            return False
        return True

    def read_results(self) -> Played:
        """Read what the finished tape returned; raises TapeError if it stopped early."""
        assert self._playing is not None
        tape, at = self._playing
        self._playing = None
        return tape.read_back(self.memory.read(at, tape.size))

    def _resumable_registers(self) -> list[int]:
        """Return registers for the frame: interrupted calls are made again, as nobody else would restart them."""
        registers = self.registers.copy()
        call = arch.interrupted_call(registers)
        if call is not None and call[1] in _RESTARTED:
            arch.rewind_call(registers)
        return registers

    def put_back(self) -> None:
        """Set signal mask and registers to the task's own, changed as we may have changed them."""
        ptrace.set_sigmask(self.tid, self.sigmask)
        ptrace.set_regset(self.tid, ptrace.NT_PRSTATUS, arch.pack_registers(self.registers))

    def release(self, sig: int = 0) -> None:
        """Detach; the task goes on as it was, with ``sig`` or any window-change signal that came meanwhile."""
        self.put_back()
        if sig == 0 and self._extra_signals:
            ptrace.set_siginfo(self.tid, self._extra_signals[-1])
            sig = TAPE_SIGNAL
        ptrace.detach(self.tid, sig)


class Call(NamedTuple):
    """A system call that a task is to make."""

    task: Tracee
    number: int
    arguments: tuple[int, ...]


def call_together(calls: Sequence[Call]) -> list[int | TaskGone | OSError]:
    """Have each task make its call while we see to the others; return results or -errno, or why there is none.

    Each is of a process of its own, and stands behind its call until it is let do something else, or go.
    """
    found: list[int | TaskGone | OSError] = [0] * len(calls)
    left = list(range(len(calls)))
    steps: tuple[Callable[[Call], int | None], ...] = (
        lambda call: call.task._begin_call(call.number, *call.arguments),
        lambda call: call.task._enter_call(),
        lambda call: call.task._end_call(),
    )
    for step in steps:
        for at in left.copy():
            try:
                found[at] = step(calls[at]) or 0
            except (TaskGone, OSError) as error:
                found[at] = error
                left.remove(at)
    return found


_RESTARTED = (arch.ERESTARTSYS, arch.ERESTARTNOINTR, arch.ERESTARTNOHAND, arch.ERESTART_RESTARTBLOCK)


def hold(tid: HostTid) -> None:
    """Seize a task and ask it to stop. Raises PermissionError if somebody else traces it."""
    ptrace.seize(tid, ptrace.PTRACE_O_TRACESYSGOOD)
    ptrace.interrupt(tid)


def suspend_seccomp(tid: HostTid) -> None:
    """Let a held task make any system call, in spite of its filters, until it is let go.

    Raises PermissionError without CAP_SYS_ADMIN, or in a tracer that has filters itself.
    """
    ptrace.set_options(tid, ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_SUSPEND_SECCOMP)


def wait_held(tid: HostTid, deadline: float) -> int:
    """Wait until a task asked to stop has stopped; return the signal of its group stop, or 0.

    A signal that was just being delivered when the task stopped is delivered first. Raises TimeoutError
    after ``deadline`` (time.monotonic): a task may wait in the kernel for what never comes.
    """
    pause = 0.00005
    while True:
        stop = ptrace.poll_for(tid)
        if stop is None:
            if time.monotonic() > deadline:
                raise TimeoutError(tid)
            time.sleep(pause)  # it has been told to stop: mostly it does within microseconds
            pause = min(pause * 2, 0.01)
            continue
        if not stop.is_stop:
            raise TaskGone(tid, stop.status)
        if stop.event == ptrace.PTRACE_EVENT_STOP:
            return stop.signal if stop.signal in _STOP_SIGNALS else 0
        try:
            ptrace.interrupt(tid)
            ptrace.cont(tid, stop.signal)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise


def stepping_stone_address(auxv: bytes) -> FarAddr:
    """Return an address in a task's vDSO where code fits that nobody else uses, 0 without one.

    Writing there gives the process a copy of that page of its own; the code stays behind, and unused.
    """
    base = vdso.base_from_auxv(auxv)
    offset = vdso.slack_offset(arch.STONE_SIZE)
    return FarAddr(base + offset if base and offset >= 0 else 0)


def vdso_syscall_address(auxv: bytes) -> FarAddr:
    """Return the address of a system-call instruction in a task's vDSO, 0 without one."""
    base = vdso.base_from_auxv(auxv)
    offset = vdso.syscall_offset(arch.SYSCALL_INSTRUCTION)
    return FarAddr(base + offset if base and offset >= 0 else 0)


def call_sites(pid: int, auxv: bytes, memory: Memory) -> tuple[FarAddr, FarAddr]:
    """Return where a held process has a system-call instruction, and where code of ours fits (0 for none).

    Both are in its vDSO. One that has unmapped or moved it has the first elsewhere, and not the second.
    """
    if vdso.is_mapped_at(vdso.base_from_auxv(auxv), lambda at, size: memory.read(FarAddr(at), size)):
        return vdso_syscall_address(auxv), stepping_stone_address(auxv)
    return find_call_site(pid, memory), _NOWHERE


def find_call_site(pid: int, memory: Memory) -> FarAddr:
    """Return the address of a system-call instruction in any code of a held process, 0 without one."""
    for line in read_maps(pid):
        if not line.prot & mmap.PROT_EXEC:
            continue
        for at in range(line.start, line.end, _SEARCHED_AT_ONCE):
            try:
                code = memory.read(FarAddr(at), min(_SEARCHED_AT_ONCE, line.end - at))
            except OSError:  # as [vsyscall], or behind the end of its file
                break
            found = code.find(arch.SYSCALL_INSTRUCTION)
            if found >= 0:
                return FarAddr(at + found)
    return _NOWHERE
