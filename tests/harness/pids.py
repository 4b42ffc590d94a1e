"""Taking a process id on purpose."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@contextlib.contextmanager
def process_with_pid(wanted: int) -> Iterator[None]:
    """Keep a process of ours under a certain process id."""
    for _ in range(200):
        _LAST_PID.write_text(str(wanted - 1))
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        try:
            if pid == wanted:
                yield
                return
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    raise AssertionError(f"process id {wanted} cannot be had")


def gone_pid() -> int:
    """Return the id of a process that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
