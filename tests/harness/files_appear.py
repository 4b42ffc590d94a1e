"""Waiting for a file to appear, by inotify."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.deadline import Deadline

IN_CREATE = 0x100
IN_MOVED_TO = 0x80
IN_CLOSE_WRITE = 0x8

_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """An inotify descriptor on one directory: something was created, moved in or written."""

    def __init__(self, directory: Path) -> None:
        self.fd: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        mask = IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE
        if _libc.inotify_add_watch(self.fd, os.fsencode(directory), ctypes.c_uint32(mask)) < 0:
            error = ctypes.get_errno()
            os.close(self.fd)
            raise OSError(error, f"inotify_add_watch {directory}")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 65536):
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self.fd)


def wait_for_file(path: Path, seconds: float, *, unless_gone: Callable[[], Sequence[int]] | None = None) -> bool:
    """Wait until the file exists.

    ``unless_gone`` lists the processes that could still make it: when there are none left and
    the file is not there, the wait ends at once with False, as it does after ``seconds``.
    """
    return wait_until(path.exists, path.parent, seconds, unless_gone=unless_gone)


def wait_until(
    holds: Callable[[], bool],
    directory: Path,
    seconds: float,
    *,
    unless_gone: Callable[[], Sequence[int]] | None = None,
) -> bool:
    """Wait until a condition on the files of a directory holds; looked at when one of them changes."""
    deadline = Deadline.after(seconds)
    with DirectoryWatch(directory) as watch:
        while True:
            watch.drain()
            if holds():
                return True
            if deadline.passed:
                return False
            poll = select.poll()
            poll.register(watch.fd, select.POLLIN)
            with contextlib.ExitStack() as stack:
                if unless_gone is not None:
                    makers = list(unless_gone())
                    if not makers:
                        return holds()
                    for pid in makers:
                        with contextlib.suppress(ProcessLookupError):
                            fd = os.pidfd_open(pid)
                            stack.callback(os.close, fd)
                            poll.register(fd, select.POLLIN)
                poll.poll(deadline.ms_left)
