"""Who a thread is: ids, groups, capabilities, securebits. See credentials(7), capabilities(7)."""

from __future__ import annotations

import struct

from orchestrator.kinds.record import Record
from orchestrator.kinds.task.kind import Answer
from orchestrator.linux.proc_status import Status
from orchestrator.tape.build import Tape

_PR_CAPBSET_DROP = 24
_PR_GET_SECUREBITS = 27
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
_SECBIT_NO_SETUID_FIXUP, _SECBIT_KEEP_CAPS = 4, 16
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAP = 40


class Credentials(Record, frozen=True):
    """A thread's credentials. Capability sets are bit masks; ids are real, effective, saved, filesystem."""

    uids: tuple[int, int, int, int]
    gids: tuple[int, int, int, int]
    groups: tuple[int, ...]
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    securebits: int


def ask_credentials(tape: Tape, status: Status) -> Answer[Credentials]:
    """Take the ids from /proc and ask for the securebits, which it does not show."""
    bits = tape.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0)
    return lambda played: Credentials(
        status.uids,
        status.gids,
        status.groups,
        status.cap_inh,
        status.cap_prm,
        status.cap_eff,
        status.cap_bnd,
        status.cap_amb,
        played.result(bits),
    )


def tell_credentials(tape: Tape, wanted: Credentials, before: Credentials) -> None:
    """Become who the record says, from a task that has every capability of its user namespace.

    Order matters: groups and ids while CAP_SETGID and CAP_SETUID are there, the bounding set while
    CAP_SETPCAP is, the permitted set last but for the ambient set, which must be within it.
    """
    if wanted == before:
        return
    tape.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP | _SECBIT_KEEP_CAPS, 0, 0, 0)
    if wanted.groups != before.groups:
        tape.setgroups(len(wanted.groups), struct.pack(f"<{len(wanted.groups)}I", *wanted.groups))
    tape.setresgid(*wanted.gids[:3])
    tape.setfsgid(wanted.gids[3], may_fail=True)  # returns the old id, never an error
    tape.setresuid(*wanted.uids[:3])
    tape.setfsuid(wanted.uids[3], may_fail=True)
    for capability in range(_LAST_CAP + 1):
        if before.bounding >> capability & 1 and not wanted.bounding >> capability & 1:
            tape.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    # the keep-caps bit cannot be set together with the others' final state while ids still change
    tape.prctl(_PR_SET_SECUREBITS, wanted.securebits, 0, 0, 0)
    header = struct.pack("<II", _LINUX_CAPABILITY_VERSION_3, 0)
    sets = (wanted.effective, wanted.permitted, wanted.inheritable)
    low = [word & 0xFFFFFFFF for word in sets]
    high = [word >> 32 for word in sets]
    tape.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    tape.capset(header, struct.pack("<6I", *low, *high))
    for capability in range(_LAST_CAP + 1):
        if wanted.ambient >> capability & 1:
            tape.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
