"""What the threads of a held job are asked, each by one tape."""

from __future__ import annotations

import errno
import mmap
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from orchestrator.capture.hold import HeldProcess
from orchestrator.capture.replica import Birth, write_birth
from orchestrator.ids import Pid, Tid
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task import (
    attributes,
    barriers,
    credentials,
    keyrings,
    limits,
    refused,
    scheduling,
    signals,
    timers,
    userspace,
)
from orchestrator.linux.proc_misc import PosixTimerLine, read_timers
from orchestrator.linux.proc_stat import read_stat
from orchestrator.linux.proc_status import Status
from orchestrator.tape.build import Played, Tape
from orchestrator.tape.tracee import Tracee

_OF_ONE_TASK: dict[str, Any] = {
    "umask": 0, "state": "", "tgid": 0, "pid": 0, "ppid": 0, "tracer_pid": 0, "ns_tgid": (), "ns_pid": (),
    "ns_pgid": (), "ns_sid": (), "threads": 0, "sig_pnd": 0, "shd_pnd": 0, "sig_blk": 0, "sig_ign": 0, "sig_cgt": 0,
    "vm_rss_kib": 0, "vm_locked_kib": 0,
}  # fmt: skip
"""What of a status has no part in what its task is asked, and in what is made of the answers."""
_MOST_ASKED = 64
_UNUSED = mmap.PAGESIZE
"""A page of a workspace in which nothing lies while somebody traces the process, see Workspace."""
_IO_FLUSHER = 0x0008_0000 | 0x0010_0000  # PF_MEMALLOC_NOIO, PF_LOCAL_THROTTLE


class Asked(msgspec.Struct):
    """The questions of one tape and how to read their answers."""

    tape: Tape
    answers: dict[str, Callable[[Played], object]] = msgspec.field(default_factory=dict)
    birth: Birth | None = None
    """Of a replica, if the tape ends with one."""
    _last: tuple[object, Mapping[str, Any]] | None = None

    def read(self, played: Played) -> Mapping[str, Any]:
        """Return the answers; processes that were forked mostly give the same."""
        entries = len(self.tape) if self.birth is None else self.birth.clone.entry
        outcome = played.outcome(entries)
        if self._last is None or self._last[0] != outcome:
            self._last = outcome, {what: answer(played) for what, answer in self.answers.items()}
        return self._last[1]


class Questions:
    """Processes that were forked are asked the same, and a job waits while some hundred calls are written down."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._keys = keyrings.Lookout()
        self._clocks_asked = False
        self._asked: dict[object, Asked] = {}

    def of(self, process: HeldProcess, thread: Tracee, status: Status, *, walked: bool, replica: bool) -> Asked:
        """Write down what to ask a thread, or take what one was asked of whom nothing else is known.

        With ``walked`` the kernel walks through the page tables meanwhile, with ``replica`` the thread is to have one.
        """
        lines = read_timers(process.seen) if thread is process.leader else []
        flushes = _flushes(process, thread)
        alike = (
            thread is process.leader, walked, len(process.threads), flushes, len(status.ns_pid),
            process.workspace if replica else None, status._replace(**_OF_ONE_TASK),
        )  # fmt: skip
        asked = self._asked.get(alike)
        if asked is None or lines:
            asked = Asked(Tape())
            answers, tape = asked.answers, asked.tape
            answers["attributes"] = attributes.ask_thread(tape, status, status.name, io_flusher=flushes)
            answers["landlock"] = refused.ask_landlock(tape, status)
            answers["keyrings"] = keyrings.ask_keyrings(tape, self._keys, status.uids[3])
            answers["credentials"] = credentials.ask_credentials(tape, status)
            answers["scheduling"] = scheduling.ask_scheduling(tape)
            answers["addresses"] = userspace.ask_addresses(tape)
            if thread is process.leader:
                self._ask_process(process, asked, lines, walked=walked)
            if replica:
                _ask_for_replica(process, asked)
            if "clocks" not in answers and not lines:
                tape.is_repeated = True
                if len(self._asked) >= _MOST_ASKED:
                    self._asked.clear()
                self._asked[alike] = asked
        asked.tape.label = f"{process.name}: ask"
        return asked

    def _ask_process(self, process: HeldProcess, asked: Asked, lines: list[PosixTimerLine], *, walked: bool) -> None:
        answers, tape = asked.answers, asked.tape
        answers["actions"] = signals.ask_actions(tape)
        answers["limits"] = limits.ask_limits(tape)
        answers["process"] = attributes.ask_process(tape, len(process.threads))
        answers["refused"] = refused.ask_refused(tape)
        answers["barriers"] = barriers.ask_barriers(tape)
        answers["interval timers"] = timers.ask_interval_timers(tape)
        tids = {int(thread.tid): Tid(thread.vtid) for thread in process.threads}
        for line in lines:
            owner = timers.clock_owner(line.clock_id)
            if owner and owner not in tids.values() and Pid(owner) not in self._scope.pids.values():
                reason = f"it runs by the CPU time of task {owner}, which is not in the job"
                self._scope.unsupported(process.host, f"timer {line.id}", reason)
        answers["posix timers"] = timers.ask_posix_timers(tape, lines, tids)
        if not walked:  # else the kernel has this call wait, and what comes behind
            brk = tape.brk(0)
            answers["brk"] = lambda played: played.result(brk)
        if not self._clocks_asked:
            self._clocks_asked = True
            spaces = [tape.space(16) for _ in range(2)]
            for clock, space in zip((time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME), spaces, strict=True):
                tape.clock_gettime(clock, space)
            answers["clocks"] = lambda played: [_nanoseconds(played.data(space)) for space in spaces]


def _ask_for_replica(process: HeldProcess, asked: Asked) -> None:
    """Ask whether mappings to come are locked (mlockall), as ours is then: so is no replica's."""
    assert process.workspace is not None
    locked = asked.tape.madvise(process.workspace.base + _UNUSED, mmap.PAGESIZE, mmap.MADV_DONTNEED, may_fail=True)
    asked.answers["locks future"] = lambda played: played.result(locked) == -errno.EINVAL
    asked.birth = write_birth(asked.tape)


def ask_break(process: HeldProcess) -> int:
    """Ask where the heap of a process ends."""
    assert process.workspace is not None
    tape = Tape(f"{process.name}: ask")
    brk = tape.brk(0)
    return process.leader.play(tape, process.workspace).result(brk)


def _flushes(process: HeldProcess, thread: Tracee) -> bool:
    """Say whether a thread has PR_SET_IO_FLUSHER; not of one whose main thread has not."""
    if process.stat.flags & _IO_FLUSHER != _IO_FLUSHER:
        return False
    return thread is process.leader or read_stat(process.host, thread.tid).flags & _IO_FLUSHER == _IO_FLUSHER


def _nanoseconds(timespec: bytes) -> int:
    return int.from_bytes(timespec[:8], "little") * 1_000_000_000 + int.from_bytes(timespec[8:16], "little")
