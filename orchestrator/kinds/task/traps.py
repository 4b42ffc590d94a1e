"""What makes a thread trap: syscall user dispatch, and breakpoints in the processor's debug registers.

Either would catch what orch lets the thread do. So both are switched off while the thread is held, and on again
last of all; no file of /proc shows them. See PR_SET_SYSCALL_USER_DISPATCH in prctl(2), PTRACE_POKEUSER in ptrace(2).
"""

from __future__ import annotations

from orchestrator.kinds.record import Record
from orchestrator.linux import ptrace

_DISPATCH_OFF = ptrace.DispatchConfiguration(0, 0, 0, 0)
_EXCLUSIVE, _INCLUSIVE = 1, 2
_WORD = 1 << 64
_ADDRESSES = range(4)
_CONTROL = 7
_ENABLED = 0xFF


class Traps(Record, frozen=True):
    """What a thread traps at."""

    dispatch: tuple[int, int, int, int] | None
    """Mode, address of the selector, start and length of the range, as prctl(2) takes them."""
    breakpoints: tuple[int, int, int, int, int] | None
    """The debug registers 0 to 3, and 7."""


def read_traps(tid: int) -> Traps | None:
    """Ask about a stopped thread; None if it traps nowhere."""
    dispatch = ptrace.dispatch_configuration(tid)
    control = ptrace.debug_register(tid, _CONTROL)
    if not dispatch.mode and not control & _ENABLED:
        return None
    return Traps(
        _as_asked(dispatch) if dispatch.mode else None,
        (*(ptrace.debug_register(tid, number) for number in _ADDRESSES), control) if control & _ENABLED else None,  # type: ignore[arg-type]
    )


def _as_asked(seen: ptrace.DispatchConfiguration) -> tuple[int, int, int, int]:
    """Return what the thread asked for: a range to be dispatched is shown as its complement (Linux 6.17)."""
    if seen.start and (seen.start + seen.length) % _WORD <= seen.start:
        return _INCLUSIVE, seen.selector, (seen.start + seen.length) % _WORD, -seen.length % _WORD
    return _EXCLUSIVE, seen.selector, seen.start, seen.length


def disarm(tid: int, traps: Traps) -> None:
    """Let a stopped thread trap nowhere."""
    if traps.dispatch is not None:
        ptrace.set_dispatch(tid, _DISPATCH_OFF)
    if traps.breakpoints is not None:
        ptrace.set_debug_register(tid, _CONTROL, 0)


def arm(tid: int, traps: Traps) -> None:
    """Let a stopped thread trap where it did; nothing may be played in it from here on."""
    if traps.breakpoints is not None:
        *addresses, control = traps.breakpoints
        for number, address in zip(_ADDRESSES, addresses, strict=True):
            ptrace.set_debug_register(tid, number, address)
        ptrace.set_debug_register(tid, _CONTROL, control)
    if traps.dispatch is not None:
        ptrace.set_dispatch(tid, ptrace.DispatchConfiguration(*traps.dispatch))
