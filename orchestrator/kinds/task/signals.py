"""Signal handlers, masks and queues. See sigaction(2), rt_sigqueueinfo(2)."""

from __future__ import annotations

import signal
import struct
from functools import lru_cache

from orchestrator.ids import ObjectId, Pid, Tid
from orchestrator.kinds.record import Record
from orchestrator.kinds.task.kind import Answer
from orchestrator.tape.build import Tape

_KERNEL_SIGACTION = struct.Struct("<QQQQ")  # handler, flags, restorer, mask
SIGSET_SIZE = 8
_SIG_DFL = 0
_SIG_IGN = 1
_SA_NOCLDSTOP = 1
_WNOHANG, _WUNTRACED, _WALL = 1, 2, 0x4000_0000
_ONE_SECOND = struct.pack("<qq", 1, 0)
_NSIG = 64
_ASKED = tuple(n for n in range(1, _NSIG + 1) if n not in (signal.SIGKILL, signal.SIGSTOP))


class Action(Record, frozen=True, array_like=True):
    """One signal's action: a kernel_sigaction. ``handler`` 0 is the default, 1 is ignore."""

    signal: int
    handler: int
    flags: int
    restorer: int
    mask: int


class SignalActions(Record, frozen=True):
    """The actions of a process that are not the default; shared with CLONE_SIGHAND."""

    id: ObjectId
    actions: list[Action]


def ask_actions(tape: Tape) -> Answer[list[Action]]:
    """Ask for every action: the default one may have flags (SA_NOCLDWAIT), which /proc does not show."""
    space = tape.space(_KERNEL_SIGACTION.size * len(_ASKED))
    for place, number in enumerate(_ASKED):
        tape.rt_sigaction(number, 0, space.at(place * _KERNEL_SIGACTION.size), SIGSET_SIZE)
    return lambda played: [*_actions(played.data(space))]


@lru_cache(maxsize=64)  # processes that were forked have the same
def _actions(contents: bytes) -> list[Action]:
    found = zip(_ASKED, _KERNEL_SIGACTION.iter_unpack(contents), strict=True)
    return [Action(number, *fields) for number, fields in found if any(fields)]


def tell_actions(tape: Tape, actions: list[Action], before: list[Action]) -> None:
    """Set the recorded actions, and the default where one was inherited."""
    inherited = {action.signal: action for action in before}
    for action in actions:
        if inherited.pop(action.signal, None) != action:
            _set(tape, action)
    for number in inherited:
        _set(tape, Action(number, _SIG_DFL, 0, 0, 0))


def _set(tape: Tape, action: Action) -> None:
    content = _KERNEL_SIGACTION.pack(action.handler, action.flags, action.restorer, action.mask)
    tape.rt_sigaction(action.signal, content, 0, SIGSET_SIZE)


def tell_pending(tape: Tape, pid: Pid, tid: Tid | None, queue: list[bytes]) -> None:
    """Queue signals again, oldest first: to the process, or to one thread. They must be blocked meanwhile.

    A task may send itself any siginfo, also one that only the kernel makes.
    """
    for info in queue:
        number = int.from_bytes(info[:4], "little")
        if tid is None:
            tape.rt_sigqueueinfo(pid, number, info)
        else:
            tape.rt_tgsigqueueinfo(pid, tid, number, info)


def tell_stop_known(tape: Tape, child: Pid, actions: list[Action], pending: list[bytes], *, waited: bool) -> None:
    """Take the news of a child's stop that has just been told once more: its SIGCHLD, and if ``waited`` its status.

    The signal comes a moment after the stop. One that was pending is not sent twice, and stays.
    """
    action = next((one for one in actions if one.signal == signal.SIGCHLD), None)
    told = action is None or not (action.handler == _SIG_IGN or action.flags & _SA_NOCLDSTOP)
    if told and all(int.from_bytes(info[:4], "little") != signal.SIGCHLD for info in pending):
        mask = (1 << signal.SIGCHLD - 1).to_bytes(8, "little")
        tape.rt_sigtimedwait(mask, 0, _ONE_SECOND, SIGSET_SIZE, may_fail=True)
    if waited:
        tape.wait4(child, 0, _WNOHANG | _WUNTRACED | _WALL, 0, may_fail=True)


def mask_of(queue: list[bytes]) -> int:
    """Return which signals are queued, bit N-1 for signal N."""
    return sum({1 << int.from_bytes(info[:4], "little") - 1 for info in queue})


def tell_no_child_signal(tape: Tape) -> None:
    """Take away the SIGCHLD that a helper's end left pending while the job was rebuilt."""
    mask = (1 << signal.SIGCHLD - 1).to_bytes(8, "little")
    for _ in range(2):  # one may wait for the thread, one for the process
        tape.rt_sigtimedwait(mask, 0, bytes(16), SIGSET_SIZE, may_fail=True)
