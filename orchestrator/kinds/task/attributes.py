"""Single settings of threads and processes that prctl(2) and personality(2) hold."""

from __future__ import annotations

from orchestrator.kinds.record import Record
from orchestrator.kinds.task.kind import Answer
from orchestrator.linux.proc_status import Status
from orchestrator.tape.build import Played, Tape

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_PR_SET_DUMPABLE, _PR_GET_DUMPABLE = 4, 3
_PR_SET_NAME = 15
_PR_GET_TSC, _PR_SET_TSC = 25, 26
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_THP_DISABLE, _PR_GET_THP_DISABLE = 41, 42
_PR_MCE_KILL, _PR_MCE_KILL_GET = 33, 34
_PR_MCE_KILL_SET, _PR_MCE_KILL_DEFAULT = 1, 2
_PR_SET_MDWE, _PR_GET_MDWE = 65, 66
_PR_TSC_ENABLE = 1
_ASK_PERSONALITY = 0xFFFFFFFF


class ThreadAttributes(Record, frozen=True):
    """Settings that every thread has for itself."""

    name: bytes
    """comm, at most 15 bytes."""
    parent_death_signal: int
    no_new_privs: bool
    personality: int


class ProcessAttributes(Record, frozen=True):
    """Settings that a process has as a whole."""

    child_subreaper: bool
    dumpable: int
    thp_disable: int
    time_stamp_counter: int = _PR_TSC_ENABLE
    """PR_SET_TSC; of the main thread, whose others have it from there."""
    machine_checks: int = _PR_MCE_KILL_DEFAULT
    """PR_MCE_KILL; likewise."""
    deny_write_execute: int = 0
    """PR_SET_MDWE (Linux 6.3)."""


def ask_thread(tape: Tape, status: Status, name: bytes) -> Answer[ThreadAttributes]:
    """Ask a thread; ``name`` is its comm from /proc, which is as good as PR_GET_NAME."""
    death = tape.space(8)
    tape.prctl(_PR_GET_PDEATHSIG, death, 0, 0, 0)
    personality = tape.personality(_ASK_PERSONALITY)
    return lambda played: ThreadAttributes(
        name, int.from_bytes(played.data(death)[:4], "little"), status.no_new_privs, played.result(personality)
    )


def ask_process(tape: Tape) -> Answer[ProcessAttributes]:
    """Ask any thread of a process."""
    subreaper = tape.space(8)
    tape.prctl(_PR_GET_CHILD_SUBREAPER, subreaper, 0, 0, 0)
    dumpable = tape.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    thp = tape.prctl(_PR_GET_THP_DISABLE, 0, 0, 0, 0, may_fail=True)
    counter = tape.space(8)
    tape.prctl(_PR_GET_TSC, counter, 0, 0, 0, may_fail=True)
    checks = tape.prctl(_PR_MCE_KILL_GET, 0, 0, 0, 0, may_fail=True)
    denied = tape.prctl(_PR_GET_MDWE, 0, 0, 0, 0, may_fail=True)

    def read(played: Played) -> ProcessAttributes:
        policy = played.result(checks)
        return ProcessAttributes(
            bool(int.from_bytes(played.data(subreaper)[:4], "little")),
            played.result(dumpable),
            max(played.result(thp), 0),
            int.from_bytes(played.data(counter)[:4], "little") or _PR_TSC_ENABLE,
            policy if policy >= 0 else _PR_MCE_KILL_DEFAULT,
            max(played.result(denied), 0),
        )

    return read


def tell_name(tape: Tape, name: bytes) -> None:
    """Set comm."""
    tape.prctl(_PR_SET_NAME, name + b"\0", 0, 0, 0)


def tell_thread_before_credentials(tape: Tape, wanted: ThreadAttributes, before: ThreadAttributes) -> None:
    """Set what a change of credentials leaves alone."""
    if wanted.personality != before.personality:
        tape.personality(wanted.personality)


def tell_thread_after_credentials(tape: Tape, wanted: ThreadAttributes) -> None:
    """Set what a change of credentials takes away (the death signal), or what would forbid it."""
    if wanted.parent_death_signal:
        tape.prctl(_PR_SET_PDEATHSIG, wanted.parent_death_signal, 0, 0, 0)
    if wanted.no_new_privs:
        tape.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def tell_before_threads(tape: Tape, wanted: ProcessAttributes) -> None:
    """Set what threads have from the one that makes them."""
    if wanted.time_stamp_counter != _PR_TSC_ENABLE:
        tape.prctl(_PR_SET_TSC, wanted.time_stamp_counter, 0, 0, 0)
    if wanted.machine_checks != _PR_MCE_KILL_DEFAULT:
        tape.prctl(_PR_MCE_KILL, _PR_MCE_KILL_SET, wanted.machine_checks, 0, 0)


def tell_process(tape: Tape, wanted: ProcessAttributes, *, credentials_changed: bool) -> None:
    """Set what belongs to the process, after its credentials.

    A change of credentials makes a process undumpable; 2 (suid_dumpable) cannot be set by hand.
    """
    if wanted.child_subreaper:
        tape.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if wanted.dumpable in (0, 1) and (credentials_changed or wanted.dumpable == 0):
        tape.prctl(_PR_SET_DUMPABLE, wanted.dumpable, 0, 0, 0)
    if wanted.thp_disable:
        tape.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
    if wanted.deny_write_execute:
        tape.prctl(_PR_SET_MDWE, wanted.deny_write_execute, 0, 0, 0)
