"""What a thread lets the processor guess. See PR_SET_SPECULATION_CTRL in prctl(2).

/proc/PID/status tells in words what a thread may do about it; where the machine decides, there is nothing to keep.
"""

from __future__ import annotations

from functools import cache

from orchestrator.errors import CannotHonour
from orchestrator.kinds.task.kind import Answer
from orchestrator.linux.call import machine, syscall
from orchestrator.linux.proc_status import Status
from orchestrator.linux.syscalls import numbers
from orchestrator.tape.build import Tape

_PR_GET_SPECULATION_CTRL, _PR_SET_SPECULATION_CTRL = 52, 53
_STORE_BYPASS, _INDIRECT_BRANCH, _L1D_FLUSH = 0, 1, 2
_NOT_AFFECTED, _PER_THREAD, _ENABLE, _DISABLE, _FORCE_DISABLE, _DISABLE_NOEXEC = 0, 1, 2, 4, 8, 16
_WORDS = {
    b"thread force mitigated": _FORCE_DISABLE,
    b"thread mitigated": _DISABLE,
    b"thread vulnerable": _ENABLE,
    b"conditional force disabled": _FORCE_DISABLE,
    b"conditional disabled": _DISABLE,
    b"conditional enabled": _ENABLE,
}
_UNTIL_EXEC = b"vulnerable"
"""So status calls PR_SPEC_DISABLE_NOEXEC, and also what the machine decides."""

Speculation = tuple[int, int, int]
"""PR_SPEC_* for store bypass, indirect branches, and the flush of the L1D cache; 0 where the machine decides."""
MACHINE_DECIDES: Speculation = (0, 0, 0)


@cache
def own_state(which: int) -> int:
    """Return what PR_GET_SPECULATION_CTRL says of orch; -1 from a kernel that does not know."""
    try:
        return syscall(numbers(machine())["prctl"], _PR_GET_SPECULATION_CTRL, which)
    except OSError:
        return -1


def _is_per_thread(which: int) -> bool:
    state = own_state(which)
    return state >= 0 and bool(state & _PER_THREAD)


def ask_speculation(tape: Tape, status: Status) -> Answer[Speculation]:
    """Take two from status, and ask for the third where threads may choose."""
    bypass = _WORDS.get(status.store_bypass, 0)
    if status.store_bypass == _UNTIL_EXEC and _is_per_thread(_STORE_BYPASS):
        bypass = _DISABLE_NOEXEC
    branch = _WORDS.get(status.indirect_branch, 0)
    if not _is_per_thread(_L1D_FLUSH):
        return lambda _: (bypass, branch, 0)
    flush = tape.prctl(_PR_GET_SPECULATION_CTRL, _L1D_FLUSH, 0, 0, 0)
    return lambda played: (bypass, branch, played.result(flush) & ~_PER_THREAD)


def tell_speculation(tape: Tape, wanted: Speculation, before: Speculation) -> None:
    """Set what differs; it cannot be undone in the thread."""
    for which, (now, then) in enumerate(zip(wanted, before, strict=True)):
        if now and then and now != then:
            tape.prctl(_PR_SET_SPECULATION_CTRL, which, now, 0, 0)


def check_speculation(wanted: Speculation) -> None:
    """Raise CannotHonour if a thread is guarded against what this machine leaves open for all."""
    for which, now in enumerate(wanted):
        guarded = now == _ENABLE if which == _L1D_FLUSH else now & (_DISABLE | _FORCE_DISABLE | _DISABLE_NOEXEC)
        if guarded and not _is_per_thread(which) and own_state(which) not in (_NOT_AFFECTED, _DISABLE):
            raise CannotHonour(
                "a thread of the job is guarded against speculation (PR_SET_SPECULATION_CTRL), "
                "which cannot be done by thread on this machine"
            )
