"""Look into a held process's namespaces from a thread of orch: a tenth of a millisecond, where a fork takes many.

Only for the kinds that a single thread can enter, and for looking: :mod:`orchestrator.namespaces.inside` has the
rest. In the thread /proc/self is still orch's; /proc/thread-self and /proc/sys are those of the namespace.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from orchestrator.ids import HostPid
from orchestrator.linux import nsfs
from orchestrator.linux.pidfd import open_task

T = TypeVar("T")
_KINDS = frozenset(("uts", "ipc", "net", "cgroup"))


def enter(pid: HostPid | None, kinds: Sequence[str], function: Callable[[], T], *, timeout: float = 20.0) -> T:
    """Return what ``function`` returns in the namespaces ``kinds`` of ``pid``, or in new ones where that is None.

    What it raises is raised here; TimeoutError after ``timeout`` seconds.
    """
    if not _KINDS.issuperset(kinds):
        raise ValueError(f"a thread cannot enter {kinds}")
    flags = 0
    for name in kinds:
        flags |= nsfs.TYPES[name]
    results: list[T] = []
    errors: list[BaseException] = []
    target = -1 if pid is None else open_task(pid)

    def work() -> None:
        try:
            if pid is None:
                nsfs.unshare(flags)
            else:
                nsfs.setns(target, flags)
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            errors.append(error)

    thread = threading.Thread(target=work, name="orch-enter", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise TimeoutError(f"no answer from inside the namespaces within {timeout} s")
    if target >= 0:
        os.close(target)
    if errors:
        raise errors[0]
    return results[0]
