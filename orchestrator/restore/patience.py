"""Notice that nothing goes on any more: a file system that does not answer holds up whoever looks at it.

Slow is not stuck. What counts is whether anything has changed: a task made another call, or had time on a processor.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from orchestrator.errors import RestoreStalled
from orchestrator.linux.proc_stat import read_stat, standing
from orchestrator.linux.procfs import read_file

DEFAULT_SECONDS: Final = 120.0
_LOOKS: Final = 4
"""So often within the time."""
_LONGEST_TICK: Final = 2.0
_MOST_TASKS: Final = 64
_TIMES: Final = slice(9, 15)
"""Of the fields behind the name in /proc/PID/stat: major faults, and time in the program and in the kernel."""


class Patience:
    """How long a restore waits for something that does not get on."""

    def __init__(self, seconds: float = DEFAULT_SECONDS) -> None:
        self.seconds = seconds
        self._seen: object = None
        self._since = time.monotonic()

    @property
    def tick(self) -> float:
        """Seconds between two looks."""
        return min(self.seconds / _LOOKS, _LONGEST_TICK)

    def restart(self) -> None:
        """Say that something has gone on."""
        self._seen = None

    def look(self, tids: Iterable[int]) -> None:
        """Compare what tasks do with what they did last. Raises RestoreStalled if it has long been the same."""
        some = [*itertools.islice(tids, _MOST_TASKS)]
        now = [(tid, *_doing(tid)) for tid in some]
        if now != self._seen:
            self._seen, self._since = now, time.monotonic()
        elif time.monotonic() - self._since >= self.seconds:
            raise RestoreStalled(
                f"the restore has not got on for {self.seconds:g} s: {_whereabouts(some[0])}"
                if some
                else f"the restore has not got on for {self.seconds:g} s",
                hint="a disk or a network file system that does not answer holds up whoever looks at it;"
                " --timeout gives it longer",
            )

    def watch(self, work: Callable[[], None]) -> None:
        """Do something in a thread, which is given up, not ended, if it does not get on."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  raised again below
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.restart()
        while True:
            thread.join(self.tick)
            if not thread.is_alive():
                break
            self.look([thread.native_id] if thread.native_id is not None else [])
        if failed:
            raise failed[0]


def _doing(tid: int) -> tuple[bytes, ...]:
    """Return what changes whenever a task gets on."""
    with contextlib.suppress(OSError):
        behind_name = read_file(f"/proc/{tid}/stat").rpartition(b")")[2].split()
        return read_file(f"/proc/{tid}/syscall"), *behind_name[_TIMES]
    return ()


def _whereabouts(tid: int) -> str:
    try:
        stat = read_stat(tid)
        name = "orch itself" if _is_ours(tid) else f"task {tid} ({os.fsdecode(stat.comm)})"
        return f"{name} waits, {standing(stat)}"
    except OSError:
        return f"task {tid} is gone"


def _is_ours(tid: int) -> bool:
    return os.path.exists(f"/proc/self/task/{tid}")
