"""Somebody at a terminal who starts a command, types, and looks at what comes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
from collections.abc import Iterator, Sequence

from harness.deadline import Deadline


class Person:
    """A terminal of the test's, with a command in its foreground."""

    def __init__(self, command: Sequence[str], rows: int = 24) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            try:
                os.closerange(3, 1024)
                environment = {**os.environ, "PS1": "<prompt>", "TERM": "dumb", "HISTFILE": "/dev/null"}
                os.execve(command[0], list(command), environment)
            finally:
                os._exit(127)
        self._status: int | None = None
        self._seen = b""
        self.resize(rows)

    @property
    def terminal(self) -> str:
        """How --external names it."""
        (number,) = struct.unpack("i", fcntl.ioctl(self.master, 0x80045430, bytes(4)))  # TIOCGPTN
        return f"tty[136:{number}]"

    def resize(self, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, 80, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, wanted: str) -> str:
        """Wait for a text and return what came before it."""
        deadline = Deadline.after(20)
        while (end := self._seen.find(wanted.encode())) < 0:
            there = select.select([self.master], [], [], 0.5)[0]
            assert not deadline.passed, f"{wanted!r} did not come: {self._seen!r}"
            if there:
                try:
                    self._seen += os.read(self.master, 4096)
                except OSError as error:
                    raise AssertionError(f"{wanted!r} did not come: {self._seen!r}") from error
        before, self._seen = self._seen[:end], self._seen[end + len(wanted) :]
        return before.decode()

    def end(self) -> int:
        """Wait for the command's end; return its exit code, or -N if it died of signal N."""
        with contextlib.suppress(OSError):
            while select.select([self.master], [], [], 20)[0]:
                self._seen += os.read(self.master, 4096)
        if self._status is None:
            self._status = os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(self._status)

    def settings(self) -> list[object]:
        """Return how the terminal is set."""
        return termios.tcgetattr(self.master)

    def close(self) -> None:
        if self._status is None and os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)


@contextlib.contextmanager
def at_terminal(command: Sequence[str], rows: int = 24) -> Iterator[Person]:
    """Let somebody run a command; nobody is left in the end."""
    person = Person(command, rows)
    try:
        yield person
    finally:
        person.close()
