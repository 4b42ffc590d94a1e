"""Undo lists of System V semaphores (SEM_UNDO): the kernel shows nobody what is in them, only who has one."""

from __future__ import annotations

import os
from collections.abc import Sequence

from orchestrator.ids import HostPid
from orchestrator.kinds.scope import Scope
from orchestrator.linux import sysvipc
from orchestrator.linux.kcmp import KCMP_SYSVSEM, kcmp
from orchestrator.linux.proc_misc import list_threads
from orchestrator.namespaces.inside import visit


def has_undo_list(tid: int, blank: int) -> bool:
    """Whether a task has an undo list; ``blank`` is one that has none, such as a process that was just forked."""
    return kcmp(tid, blank, KCMP_SYSVSEM) != 0


def note_undo_lists(scope: Scope, pids: Sequence[HostPid], *, threaded: bool = True) -> None:
    """Note the processes whose operations on semaphores may have to be undone at their end.

    The first SEM_UNDO makes a list, but so does the first thread: without ``threaded`` those are passed over.
    """
    with visit(HostPid(os.getpid()), [], lambda: None, None) as blank:
        for pid in pids:
            tids = list_threads(pid)
            if (threaded or len(tids) == 1) and any(has_undo_list(tid, blank.pid) for tid in tids):
                scope.unsupported(
                    pid,
                    "System V semaphores",
                    "operations to be undone at its end (SEM_UNDO) may be pending, and the kernel does not show them",
                )


def note_shared_undo(scope: Scope, pids: list[HostPid]) -> None:
    """Do that for a job in our own IPC namespace, where most semaphores may have nothing to do with it."""
    operated = [row for row in sysvipc.read_semaphores() if row.otime]
    if not operated:  # nothing to undo anywhere
        return
    job = frozenset(pids)
    touched = any(sysvipc.semaphore_pid(row.id, number) in job for row in operated for number in range(row.nsems))
    note_undo_lists(scope, pids, threaded=touched)
