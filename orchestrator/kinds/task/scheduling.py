"""How a thread is scheduled: policy, nice value, affinity, I/O priority, timer slack. See sched(7)."""

from __future__ import annotations

import struct

from orchestrator.kinds.record import Record
from orchestrator.kinds.task.kind import Answer
from orchestrator.tape.build import Played, Tape

_SCHED_ATTR = struct.Struct("<IIQiIQQQII")  # struct sched_attr, SCHED_ATTR_SIZE_VER1
assert _SCHED_ATTR.size == 56
_AFFINITY_BYTES = 128
_IOPRIO_WHO_PROCESS = 1
_PRIO_PROCESS = 0
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30


class Scheduling(Record, frozen=True):
    """A thread's scheduling."""

    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int
    util_min: int
    util_max: int
    affinity: bytes
    """A bit mask of CPUs, little end first, without trailing zeros."""
    io_priority: int
    timer_slack_ns: int


def ask_scheduling(tape: Tape) -> Answer[Scheduling]:
    """Ask a thread for its scheduling."""
    attributes = tape.space(_SCHED_ATTR.size)
    tape.sched_getattr(0, attributes, _SCHED_ATTR.size, 0)
    mask = tape.space(_AFFINITY_BYTES)
    tape.sched_getaffinity(0, _AFFINITY_BYTES, mask)
    io_priority = tape.ioprio_get(_IOPRIO_WHO_PROCESS, 0)
    nice = tape.getpriority(_PRIO_PROCESS, 0)  # sched_getattr has it for the fair policies alone
    slack = tape.prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)

    def read(played: Played) -> Scheduling:
        _, policy, flags, _, priority, runtime, deadline, period, low, high = _SCHED_ATTR.unpack(
            played.data(attributes)
        )
        return Scheduling(
            policy, flags, 20 - played.result(nice), priority, runtime, deadline, period, low, high,
            played.data(mask).rstrip(b"\0"), played.result(io_priority), played.result(slack),
        )  # fmt: skip

    return read


def tell_scheduling(tape: Tape, wanted: Scheduling, before: Scheduling) -> None:
    """Set what differs."""
    if wanted.nice != before.nice:
        tape.setpriority(_PRIO_PROCESS, 0, wanted.nice)
    if _attributes(wanted) != _attributes(before):
        tape.sched_setattr(0, _attributes(wanted), 0)
    if wanted.affinity != before.affinity:
        tape.sched_setaffinity(0, len(wanted.affinity.ljust(8, b"\0")), wanted.affinity.ljust(8, b"\0"))
    if wanted.io_priority != before.io_priority:
        tape.ioprio_set(_IOPRIO_WHO_PROCESS, 0, wanted.io_priority)
    if wanted.timer_slack_ns != before.timer_slack_ns:
        tape.prctl(_PR_SET_TIMERSLACK, wanted.timer_slack_ns, 0, 0, 0)


def _attributes(s: Scheduling) -> bytes:
    return _SCHED_ATTR.pack(
        _SCHED_ATTR.size, s.policy, s.flags, s.nice, s.priority, s.runtime, s.deadline, s.period, s.util_min, s.util_max
    )
