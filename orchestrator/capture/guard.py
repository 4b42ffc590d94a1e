"""Somebody who puts things right if orch is killed: who thaws the job that was frozen."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def guarded(undo: Callable[[], None]) -> Iterator[None]:
    """Have a child of ours call ``undo`` if this process ends inside of the block, even by SIGKILL.

    The child waits for the end of a pipe that only we hold open, and what we have forked meanwhile.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _stand_by(read_end, write_end, undo)
    os.close(read_end)
    try:
        yield
    finally:
        os.write(write_end, b"d")
        os.close(write_end)
        os.waitpid(child, 0)


def _stand_by(read_end: int, write_end: int, undo: Callable[[], None]) -> None:
    try:
        os.close(write_end)
        os.setsid()  # a signal for our process group must not take both
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if not os.read(read_end, 1):
            undo()
    finally:
        os._exit(0)
