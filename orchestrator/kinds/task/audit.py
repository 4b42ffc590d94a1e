"""The id of the login that a process belongs to for the audit log. See pam_loginuid(8)."""

from __future__ import annotations

from orchestrator.linux.proc_misc import read_loginuid
from orchestrator.namespaces.sysctl import write_sysctl
from orchestrator.tape.build import Tape

UNSET = 0xFFFF_FFFF


def login_of(pid: int | str) -> int:
    """Return the login's user id; UNSET where there is none, or no audit."""
    try:
        return read_loginuid(pid)
    except FileNotFoundError:
        return UNSET


def tell_login(tape: Tape, wanted: int, before: int) -> None:
    """Set it while the task is root and has descriptor 0 free; who is made later has it, too.

    Where audit does not allow that, it stays: nothing else of the job depends on it.
    """
    if wanted != before:
        write_sysctl(tape, "/proc/self/loginuid", str(wanted), may_fail=True)
