"""Where an image goes out to. A slow reader is waited for, but not without an eye on what may happen meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat
from collections.abc import Callable, Mapping
from typing import Final

from orchestrator.image.packing import Block

Alarms = Mapping[int, Callable[[], Exception]]
"""Descriptors that become readable when waiting is of no use any more, with what is raised then."""

_PIPE_BYTES: Final = 1 << 20


class Output:
    """Writes all of what it is given, whatever the descriptor takes at once. Raises OSError."""

    def __init__(self, fd: int, alarms: Alarms | None = None) -> None:
        self.size = 0
        self._alarms = alarms or {}
        self._write: Callable[[memoryview], int]
        self._fd = fd
        self._own = -1
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode):
            with contextlib.suppress(OSError):  # it stays as small as it is
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            with contextlib.suppress(OSError):
                # Others share the open file that we were given: one of our own need not block.
                self._own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._fd = self._own
        if stat.S_ISSOCK(mode):
            self._write = self._send
        else:
            self._write = lambda data: os.write(self._fd, data)

    def _send(self, data: memoryview) -> int:
        with socket.socket(fileno=os.dup(self._fd)) as sock:
            return sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def write(self, data: Block) -> None:
        """Write all of it."""
        rest = memoryview(data)
        self.size += len(rest)
        while rest:
            try:
                rest = rest[self._write(rest) :]
            except BlockingIOError:
                self._wait()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        for fd in self._alarms:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll():
            if (alarm := self._alarms.get(fd)) is not None:
                error = alarm()
                raise error

    def close(self) -> None:
        """Close what is our own. May be called again."""
        fd, self._own = self._own, -1
        if fd >= 0:
            os.close(fd)
