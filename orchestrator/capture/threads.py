"""What threads of a process may have each for itself, and a restore gives all of them in common."""

from __future__ import annotations

from orchestrator.capture.hold import HeldProcess
from orchestrator.kinds.scope import Scope
from orchestrator.linux.kcmp import KCMP_FILES, KCMP_FS, kcmp
from orchestrator.linux.proc_status import Status, read_status
from orchestrator.tape.tracee import Tracee

_TABLES = {
    KCMP_FILES: "descriptor table",
    KCMP_FS: "working directory, root and umask",
}


def read_threads(process: HeldProcess, scope: Scope) -> list[tuple[Tracee, Status]]:
    """Return every thread with its status, the leader first; note those that differ from the leader."""
    found = []
    for thread in process.threads:
        status = process.status if thread is process.leader else read_status(process.host, thread.tid)
        found.append((thread, status))
        who = "" if thread is process.leader else f" of thread {thread.tid}"
        if status.seccomp:
            scope.unsupported(process.host, f"seccomp filter{who}", "system call filters are not saved yet")
        for kind, table in _TABLES.items():
            if who and kcmp(process.host, thread.tid, kind):
                scope.unsupported(
                    process.host, f"{table}{who}", "not that of the process; such a thread cannot be rebuilt"
                )
    return found
