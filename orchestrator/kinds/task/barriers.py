"""Which commands of membarrier(2) an address space has registered for."""

from __future__ import annotations

from orchestrator.kinds.task.kind import Answer
from orchestrator.tape.build import Tape

_GET_REGISTRATIONS = 1 << 9
_COMMANDS = 10


def ask_barriers(tape: Tape) -> Answer[int]:
    """Ask any thread of a process; the answer has a bit for each command that registers (since Linux 6.3)."""
    registered = tape.membarrier(_GET_REGISTRATIONS, 0, 0, may_fail=True)
    return lambda played: max(played.result(registered), 0)


def tell_barriers(tape: Tape, wanted: int) -> None:
    """Register, in a process without other threads: with them each command waits for all processors."""
    for bit in range(_COMMANDS):
        if wanted >> bit & 1:
            tape.membarrier(1 << bit, 0, 0)
