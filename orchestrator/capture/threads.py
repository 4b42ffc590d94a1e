"""What threads of a process may have each for itself: seccomp filters, descriptors, directories."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.capture.hold import HeldProcess
from orchestrator.kinds.task.seccomp import Seccomp, SeccompCollector
from orchestrator.linux.kcmp import KCMP_FILES, KCMP_FS, kcmp
from orchestrator.linux.proc_status import Status
from orchestrator.tape.tracee import Tracee


class ThreadView(NamedTuple):
    """A thread, as it is seen from outside."""

    thread: Tracee
    status: Status
    seccomp: Seccomp | None
    own_files: bool
    """Whether its descriptor table is not that of the process."""
    own_filesystem: bool
    """Whether its directories and umask are not those of the process."""


def read_threads(process: HeldProcess, filters: SeccompCollector) -> list[ThreadView]:
    """Return every thread, the leader first."""
    found = []
    for thread in process.threads:
        status = process.statuses[thread.tid]
        chain = filters.capture(process.host, thread.tid, status.seccomp)
        own = [
            thread is not process.leader and kcmp(process.seen, thread.tid, kind) != 0 for kind in (KCMP_FILES, KCMP_FS)
        ]
        found.append(ThreadView(thread, status, chain, *own))
    return found
