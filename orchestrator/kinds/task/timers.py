"""Interval timers and POSIX timers. See setitimer(2), timer_create(2)."""

from __future__ import annotations

import struct

from orchestrator.ids import Pid, Tid
from orchestrator.kinds.record import Record
from orchestrator.kinds.task.kind import Answer
from orchestrator.linux.proc_misc import PosixTimerLine
from orchestrator.tape.build import Played, Tape

_ITIMERVAL = struct.Struct("<4q")  # interval sec/usec, value sec/usec
_ITIMERSPEC = struct.Struct("<4q")
_SIGEVENT = struct.Struct("<QiiI44x")  # sigev_value, signo, notify, tid
assert _SIGEVENT.size == 64
_NOTIFY = {"signal": 0, "none": 1, "thread": 2}
_SIGEV_THREAD_ID = 4
_PR_TIMER_CREATE_RESTORE_IDS = 77
_PER_THREAD, _SCHED = 4, 2
_ITIMERS = (0, 1, 2)  # ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF


class IntervalTimers(Record, frozen=True):
    """ITIMER_REAL, ITIMER_VIRTUAL and ITIMER_PROF as (interval s, us, value s, us)."""

    values: tuple[tuple[int, int, int, int], ...]


class PosixTimer(Record, frozen=True):
    """One timer_create(2) timer with the time left."""

    id: int
    clock: int
    notify: int
    signal: int
    value: int
    """sigev_value, as the 64 bits of a pointer."""
    target: Tid | None
    """The thread of SIGEV_THREAD_ID."""
    left: tuple[int, int, int, int]
    """Interval s, ns; time left s, ns."""


def ask_interval_timers(tape: Tape) -> Answer[IntervalTimers]:
    """Ask for the three interval timers."""
    spaces = [tape.space(_ITIMERVAL.size) for _ in _ITIMERS]
    for which, space in zip(_ITIMERS, spaces, strict=True):
        tape.getitimer(which, space)
    return lambda played: IntervalTimers(tuple(_ITIMERVAL.unpack(played.data(space)) for space in spaces))


def tell_interval_timers(tape: Tape, timers: IntervalTimers) -> None:
    """Start the interval timers that ran."""
    for which, value in zip(_ITIMERS, timers.values, strict=True):
        if any(value):
            if not any(value[2:]):  # it ran out, and waits for its signal to be taken before it starts again
                value = (*value[:2], 0, 1)
            tape.setitimer(which, _ITIMERVAL.pack(*value), 0)


def ask_posix_timers(tape: Tape, lines: list[PosixTimerLine], tids: dict[int, Tid]) -> Answer[list[PosixTimer]]:
    """Ask for the time left of the timers that /proc/PID/timers lists; ``tids`` maps its thread ids to the job's."""
    spaces = [tape.space(_ITIMERSPEC.size) for _ in lines]
    for line, space in zip(lines, spaces, strict=True):
        tape.timer_gettime(line.id, space)

    def read(played: Played) -> list[PosixTimer]:
        timers = []
        for line, space in zip(lines, spaces, strict=True):
            notify = _NOTIFY[line.notify] | (_SIGEV_THREAD_ID if line.notify_pid_kind == "tid" else 0)
            target = tids.get(line.notify_target) if line.notify_pid_kind == "tid" else None
            left = _ITIMERSPEC.unpack(played.data(space))
            timers.append(PosixTimer(line.id, line.clock_id, notify, line.signo, line.sigval, target, left))
        return timers

    return read


def tell_posix_timers(tape: Tape, pid: Pid, timers: list[PosixTimer]) -> None:
    """Make the timers under their own ids and start those that ran.

    The prctl (Linux 6.15, kernel commit ec2d0c04624b) lets timer_create take the id from its third argument.
    """
    if not timers:
        return
    tape.prctl(_PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0)
    for timer in timers:
        event = _SIGEVENT.pack(timer.value, timer.signal, timer.notify, timer.target or pid)
        tape.timer_create(_clock(timer), event, timer.id.to_bytes(8, "little"))
    tape.prctl(_PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0)
    for timer in timers:
        if any(timer.left[2:]):
            tape.timer_settime(timer.id, 0, _ITIMERSPEC.pack(*timer.left), 0)


def clock_owner(clock: int) -> int | None:
    """Return the process or thread, as the job sees it, that a CPU clock names; 0 for the caller, None for others."""
    return ~(clock >> 3) if clock < 0 else None


def _clock(timer: PosixTimer) -> int:
    """Return the clock with which the main thread makes a timer.

    The kernel does not show which thread's CPU time CLOCK_THREAD_CPUTIME_ID is. It is taken for that of the thread
    that gets the signal, or else of the main thread.
    """
    if clock_owner(timer.clock) == 0 and timer.clock & _PER_THREAD and timer.target:
        return (~timer.target << 3 | _PER_THREAD | _SCHED) & 0xFFFF_FFFF
    return timer.clock & 0xFFFF_FFFF
