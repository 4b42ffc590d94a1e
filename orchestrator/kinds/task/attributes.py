"""Single settings of threads and processes that prctl(2), arch_prctl(2) and personality(2) hold."""

from __future__ import annotations

import os
from functools import cache

from orchestrator.kinds.record import Record
from orchestrator.kinds.task import keyrings, numa, speculation
from orchestrator.kinds.task.kind import Answer
from orchestrator.linux.call import machine, syscall
from orchestrator.linux.proc_status import Status
from orchestrator.linux.syscalls import numbers
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
_PR_SET_IO_FLUSHER = 57
_PR_SET_MDWE, _PR_GET_MDWE = 65, 66
_PR_GET_MEMORY_MERGE = 68
_PR_FUTEX_HASH, _PR_FUTEX_HASH_SET_SLOTS, _PR_FUTEX_HASH_GET_SLOTS = 78, 1, 2
_FEWEST_SLOTS = 16
_PR_TSC_ENABLE = 1
_ARCH_GET_CPUID, _ARCH_SET_CPUID = 0x1011, 0x1012
_ARCH_GET_XCOMP_PERM, _ARCH_REQ_XCOMP_PERM = 0x1022, 0x1023
_ARCH_SHSTK_LOCK = 0x5003
_SHADOW_STACK = {b"shstk": 1, b"wrss": 2}
_ASK_PERSONALITY = 0xFFFFFFFF


class ThreadAttributes(Record, frozen=True):
    """Settings that every thread has for itself."""

    name: bytes
    """comm, at most 15 bytes."""
    parent_death_signal: int
    no_new_privs: bool
    personality: int
    time_stamp_counter: int = _PR_TSC_ENABLE
    """PR_SET_TSC."""
    machine_checks: int = _PR_MCE_KILL_DEFAULT
    """PR_MCE_KILL."""
    speculation: speculation.Speculation = speculation.MACHINE_DECIDES
    memory_policy: numa.MemoryPolicy = numa.DEFAULT
    cpuid: bool = True
    """Whether the instruction CPUID may be executed; else it is SIGSEGV (ARCH_SET_CPUID)."""
    locked_features: int = 0
    """Features of ARCH_SHSTK_LOCK."""
    io_flusher: bool = False
    """PR_SET_IO_FLUSHER."""
    keyring: bool = False
    """Whether the thread has a keyring, which is empty."""


class ProcessAttributes(Record, frozen=True):
    """Settings that a process has as a whole."""

    child_subreaper: bool
    dumpable: int
    thp_disable: int
    """1, with the flags of PR_SET_THP_DISABLE; 0 if it was not asked for."""
    deny_write_execute: int = 0
    """PR_SET_MDWE (Linux 6.3)."""
    merges_memory: bool = False
    """PR_SET_MEMORY_MERGE (Linux 6.4)."""
    permitted_features: int = 0
    """Extended states that the process may use (ARCH_GET_XCOMP_PERM); 0 where nobody is asked."""
    keyring: bool = False
    """Whether the process has a keyring, which is empty."""
    futex_slots: int = 0
    """PR_FUTEX_HASH_SET_SLOTS (Linux 6.16); 0 if the kernel chooses, -1 for the machine's own table."""


@cache
def _cpuid_can_fault() -> bool:
    """Whether the processor lets a thread switch CPUID off: orch switches its own on, which it is."""
    if machine() != "x86_64":
        return False
    try:
        syscall(numbers(machine())["arch_prctl"], _ARCH_SET_CPUID, 1)
    except OSError:
        return False
    return True


def ask_thread(tape: Tape, status: Status, name: bytes, *, io_flusher: bool = False) -> Answer[ThreadAttributes]:
    """Ask a thread; ``name`` is its comm from /proc, which is as good as PR_GET_NAME."""
    death = tape.space(8)
    tape.prctl(_PR_GET_PDEATHSIG, death, 0, 0, 0)
    personality = tape.personality(_ASK_PERSONALITY)
    counter = tape.space(8)
    tape.prctl(_PR_GET_TSC, counter, 0, 0, 0, may_fail=True)
    checks = tape.prctl(_PR_MCE_KILL_GET, 0, 0, 0, 0, may_fail=True)
    guarded = speculation.ask_speculation(tape, status)
    policy = numa.ask_policy(tape)
    cpuid = tape.arch_prctl(_ARCH_GET_CPUID, 0) if _cpuid_can_fault() else None

    def read(played: Played) -> ThreadAttributes:
        told = played.result(checks)
        return ThreadAttributes(
            name,
            int.from_bytes(played.data(death)[:4], "little"),
            status.no_new_privs,
            played.result(personality),
            int.from_bytes(played.data(counter)[:4], "little") or _PR_TSC_ENABLE,
            told if told >= 0 else _PR_MCE_KILL_DEFAULT,
            guarded(played),
            policy(played),
            cpuid is None or played.result(cpuid) != 0,
            sum(_SHADOW_STACK.get(feature, 0) for feature in status.locked_features),
            io_flusher,
        )

    return read


def ask_process(tape: Tape, threads: int) -> Answer[ProcessAttributes]:
    """Ask any thread of a process; ``threads``: how many there are."""
    subreaper = tape.space(8)
    tape.prctl(_PR_GET_CHILD_SUBREAPER, subreaper, 0, 0, 0)
    dumpable = tape.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    thp = tape.prctl(_PR_GET_THP_DISABLE, 0, 0, 0, 0, may_fail=True)
    denied = tape.prctl(_PR_GET_MDWE, 0, 0, 0, 0, may_fail=True)
    merges = tape.prctl(_PR_GET_MEMORY_MERGE, 0, 0, 0, 0, may_fail=True)
    features = ask_features(tape)
    slots = tape.prctl(_PR_FUTEX_HASH, _PR_FUTEX_HASH_GET_SLOTS, 0, 0, 0, may_fail=True)

    def read(played: Played) -> ProcessAttributes:
        return ProcessAttributes(
            bool(int.from_bytes(played.data(subreaper)[:4], "little")),
            played.result(dumpable),
            max(played.result(thp), 0),
            max(played.result(denied), 0),
            played.result(merges) > 0,
            features(played),
            futex_slots=slots_asked_for(played.result(slots), threads),
        )

    return read


def slots_asked_for(slots: int, threads: int) -> int:
    """Tell a number of futex slots that was asked for from one that the kernel chose: 16, or four a processor."""
    if slots < 0 or (slots == 0 and threads == 1):
        return 0
    most = max(_FEWEST_SLOTS, 1 << (4 * (os.cpu_count() or 1) - 1).bit_length())
    return 0 if _FEWEST_SLOTS <= slots <= most else slots or -1


def ask_features(tape: Tape) -> Answer[int]:
    """Ask which extended states a process may use; some (AMX) only if it has asked for them."""
    if machine() != "x86_64":
        return lambda _: 0
    permitted = tape.space(8)
    tape.arch_prctl(_ARCH_GET_XCOMP_PERM, permitted, may_fail=True)
    return lambda played: int.from_bytes(played.data(permitted), "little")


def tell_name(tape: Tape, name: bytes) -> None:
    """Set comm."""
    tape.prctl(_PR_SET_NAME, name + b"\0", 0, 0, 0)


def tell_thread_before_credentials(tape: Tape, wanted: ThreadAttributes, before: ThreadAttributes) -> None:
    """Set what a change of credentials leaves alone."""
    if wanted.personality != before.personality:
        tape.personality(wanted.personality)
    if wanted.time_stamp_counter != before.time_stamp_counter:
        tape.prctl(_PR_SET_TSC, wanted.time_stamp_counter, 0, 0, 0)
    if wanted.machine_checks != before.machine_checks:
        tape.prctl(_PR_MCE_KILL, _PR_MCE_KILL_SET, wanted.machine_checks, 0, 0)
    if wanted.io_flusher != before.io_flusher:
        tape.prctl(_PR_SET_IO_FLUSHER, int(wanted.io_flusher), 0, 0, 0)
    if wanted.cpuid != before.cpuid:
        tape.arch_prctl(_ARCH_SET_CPUID, int(wanted.cpuid))
    if wanted.locked_features & ~before.locked_features:
        tape.arch_prctl(_ARCH_SHSTK_LOCK, wanted.locked_features)
    numa.tell_policy(tape, wanted.memory_policy, before.memory_policy)
    speculation.tell_speculation(tape, wanted.speculation, before.speculation)


def tell_thread_after_credentials(tape: Tape, wanted: ThreadAttributes) -> None:
    """Set what a change of credentials takes away (the death signal), or what would forbid it."""
    if wanted.parent_death_signal:
        tape.prctl(_PR_SET_PDEATHSIG, wanted.parent_death_signal, 0, 0, 0)
    if wanted.no_new_privs:
        tape.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if wanted.keyring:
        keyrings.tell_thread_keyring(tape)


def tell_futex_slots(tape: Tape, wanted: ProcessAttributes) -> None:
    """Ask for the number of futex slots that the process had asked for, before it has threads."""
    if wanted.futex_slots:
        tape.prctl(_PR_FUTEX_HASH, _PR_FUTEX_HASH_SET_SLOTS, max(wanted.futex_slots, 0), 0, 0)


def tell_before_threads(tape: Tape, wanted: ProcessAttributes, features: int) -> None:
    """Set what threads must find when they are made; ``features`` may be used without asking."""
    for feature in range(64):
        if (wanted.permitted_features & ~features) >> feature & 1:
            tape.arch_prctl(_ARCH_REQ_XCOMP_PERM, feature)
    if wanted.keyring:
        keyrings.tell_process_keyring(tape)


def tell_process(tape: Tape, wanted: ProcessAttributes, *, credentials_changed: bool) -> None:
    """Set what belongs to the process, after its credentials.

    A change of credentials makes a process undumpable; 2 (suid_dumpable) cannot be set by hand.
    """
    if wanted.child_subreaper:
        tape.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if wanted.dumpable in (0, 1) and (credentials_changed or wanted.dumpable == 0):
        tape.prctl(_PR_SET_DUMPABLE, wanted.dumpable, 0, 0, 0)
    if wanted.thp_disable:
        tape.prctl(_PR_SET_THP_DISABLE, 1, wanted.thp_disable & ~1, 0, 0)
    if wanted.deny_write_execute:
        tape.prctl(_PR_SET_MDWE, wanted.deny_write_execute, 0, 0, 0)
