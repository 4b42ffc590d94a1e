"""State of a process that the kernel shows, and that cannot be made again: it is looked for, and refused by name."""

from __future__ import annotations

import errno
import os
from functools import cache

from orchestrator.ids import HostPid
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task.keyrings import KEYRING, Found
from orchestrator.kinds.task.kind import Answer
from orchestrator.kinds.task.labels import own_label
from orchestrator.linux import ptrace
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.call import machine
from orchestrator.linux.kcmp import KCMP_VM
from orchestrator.linux.proc_status import Status
from orchestrator.tape.build import Played, Tape

_ALL_BITS = (1 << 64) - 1
_LDT_ENTRY_BYTES = 8
_KEYS = range(1, 16)
_NEVER_MAPPED = 0x7FFF_FFFF_F000
"""The last page below the kernel's half, which it keeps free."""
_CAP_SYS_PTRACE = 19
_TLS_DESCRIPTORS = (12, 13, 14)
_PR_SCHED_CORE, _PR_SCHED_CORE_GET, _OF_THREAD = 62, 0, 0


@cache
def machine_has_keys() -> bool:
    """Whether memory has protection keys here: smaps shows them then, of whichever process."""
    with open("/proc/self/smaps", "rb") as file:
        return b"\nProtectionKey:" in file.read(4096)


def ask_landlock(tape: Tape, status: Status) -> Answer[bool]:
    """Ask a thread whether Landlock restricts it, which the kernel shows nowhere.

    A domain of Landlock, whatever its rules are, may trace nobody outside. So a thread that may trace everybody
    (CAP_SYS_PTRACE) tries to compare orch with itself, if it can name it, and no other security module might forbid it.
    """
    sees_us = len(status.ns_pid) == 1
    if not (sees_us and status.cap_eff >> _CAP_SYS_PTRACE & 1 and own_label() is None):
        return lambda _: False
    call = tape.kcmp(os.getpid(), os.getpid(), KCMP_VM, 0, 0, may_fail=True)
    return lambda played: played.result(call) == -errno.EPERM


def ask_refused(tape: Tape) -> Answer[list[tuple[str, str]]]:
    """Ask any thread of a process; the answer is what it has of such state, and why that cannot be saved."""
    descriptors = tape.modify_ldt(0, tape.space(_LDT_ENTRY_BYTES), _LDT_ENTRY_BYTES) if machine() == "x86_64" else None
    # Of a key that is not allocated pkey_mprotect says EINVAL, before it looks whether anything is mapped there.
    keys = _KEYS if machine_has_keys() else ()
    tried = [(key, tape.pkey_mprotect(_NEVER_MAPPED, 4096, 0, key, may_fail=True)) for key in keys]
    cookie = tape.space(8)
    tape.prctl(_PR_SCHED_CORE, _PR_SCHED_CORE_GET, 0, _OF_THREAD, cookie, may_fail=True)

    def read(played: Played) -> list[tuple[str, str]]:
        refused: list[tuple[str, str]] = []
        if descriptors is not None and played.result(descriptors):
            refused.append(("local descriptor table", "segments of modify_ldt(2) cannot be saved"))
        if allocated := [key for key, call in tried if played.result(call) != -errno.EINVAL]:
            numbers = ", ".join(map(str, allocated))
            refused.append((f"protection keys {numbers}", "keys of pkey_alloc(2) cannot be saved"))
        if any(played.data(cookie)):
            refused.append(("scheduling", "who shares a core with whom (PR_SCHED_CORE) cannot be saved"))
        return refused

    return read


def note_landlock(scope: Scope, pid: HostPid, tid: int) -> None:
    """Note in the scope that Landlock restricts a thread."""
    scope.unsupported(pid, f"thread {tid}", "restrictions of Landlock cannot be read back")


def note_privileged(scope: Scope, pid: HostPid, tid: int, registers: list[int]) -> None:
    """Note in the scope what a held thread has of segments and ports."""
    if any(selector >> 3 in _TLS_DESCRIPTORS for selector in arch.segments(registers)):
        scope.unsupported(pid, f"thread {tid}", "segments of set_thread_area(2) cannot be saved")
    if ptrace.has_regset(tid, ptrace.NT_386_IOPERM):
        scope.unsupported(pid, f"thread {tid}", "ports of ioperm(2) cannot be saved")


def note_keys(scope: Scope, pid: HostPid, tid: int, found: Found) -> None:
    """Note in the scope the keys of a thread, or its process, that would be others after a restore."""
    for whose in found.own_keys:
        what = f"keyring of the {whose}" + (f" {tid}" if whose == "thread" and tid != pid else "")
        scope.unsupported(pid, what, "its keys would have other numbers")
    if found.session_keys and KEYRING not in scope.externals:
        hint = f"--external {KEYRING} leaves them behind: the restored job has the keyring of the orch that restores"
        scope.unsupported(pid, "keyring of the session", "it is not orch's own, and its keys cannot be saved", hint)


def note_refused(scope: Scope, pid: HostPid, found: list[tuple[str, str]], status: Status) -> None:
    """Note in the scope what a process was found to have, or its status shows."""
    for what, reason in found:
        scope.unsupported(pid, what, reason)
    if status.untag_mask != _ALL_BITS:
        scope.unsupported(pid, "memory", "tagged addresses (ARCH_ENABLE_TAGGED_ADDR) cannot be saved")
