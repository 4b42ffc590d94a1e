"""Resource limits. See prlimit(2)."""

from __future__ import annotations

import struct

from orchestrator.kinds.record import Record
from orchestrator.kinds.task.kind import Answer
from orchestrator.tape.build import Tape

_RLIMIT = struct.Struct("<QQ")
_COUNT = 16


class Limits(Record, frozen=True):
    """(soft, hard) of the sixteen limits in the kernel's order; RLIM_INFINITY is 2**64-1."""

    values: tuple[tuple[int, int], ...]


def ask_limits(tape: Tape) -> Answer[Limits]:
    """Ask for all limits. From outside, prlimit on another uid's task would need CAP_SYS_RESOURCE."""
    space = tape.space(_RLIMIT.size * _COUNT)
    for resource in range(_COUNT):
        tape.prlimit64(0, resource, 0, space.at(resource * _RLIMIT.size))
    return lambda played: Limits(tuple(_RLIMIT.iter_unpack(played.data(space))))


def tell_limits(tape: Tape, wanted: Limits, before: Limits) -> None:
    """Set the limits that differ."""
    for resource, (now, then) in enumerate(zip(wanted.values, before.values, strict=True)):
        if now != then:
            tape.prlimit64(0, resource, _RLIMIT.pack(*now), 0)
