"""What threads of a process may have each for itself: seccomp filters, and what a restore gives them in common."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.capture.hold import HeldProcess
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task.seccomp import Seccomp, SeccompCollector
from orchestrator.linux.kcmp import KCMP_FILES, KCMP_FS, kcmp
from orchestrator.linux.proc_status import Status, read_status
from orchestrator.tape.tracee import Tracee

_TABLES = {
    KCMP_FILES: "descriptor table",
    KCMP_FS: "working directory, root and umask",
}


class ThreadView(NamedTuple):
    """A thread, as it is seen from outside."""

    thread: Tracee
    status: Status
    seccomp: Seccomp | None


def read_threads(process: HeldProcess, scope: Scope, filters: SeccompCollector) -> list[ThreadView]:
    """Return every thread, the leader first; note those that differ from the leader."""
    found = []
    for thread in process.threads:
        status = process.status if thread is process.leader else read_status(process.host, thread.tid)
        found.append(ThreadView(thread, status, filters.capture(process.host, thread.tid, status.seccomp)))
        who = "" if thread is process.leader else f" of thread {thread.tid}"
        for kind, table in _TABLES.items():
            if who and kcmp(process.seen, thread.tid, kind):
                scope.unsupported(
                    process.host, f"{table}{who}", "not that of the process; such a thread cannot be rebuilt"
                )
    return found
