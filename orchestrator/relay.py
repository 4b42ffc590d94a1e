"""A terminal of a job's own, connected to the one that orch runs on.

A session can have a terminal for its own only if nobody else's session has it. So where a job shall have job
control, it gets a new pseudo-terminal, and what is typed on orch's terminal is carried over, and back what is printed.
Orch's own terminal interprets nothing meanwhile: ^C is a byte that makes the job's terminal send a signal.
"""

from __future__ import annotations

import os
import select
import selectors
import termios
import tty as raw_mode
from typing import Any

from orchestrator.linux import tty

_MOST = 1 << 16


def own_terminal() -> int | None:
    """Open the terminal that this process is in the foreground of; None without one."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.tcgetpgrp(fd) == os.getpgrp():
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


class Relay:
    """A new pseudo-terminal and the terminal of orch; it begins to carry when :meth:`begin` is called."""

    def __init__(self, own: int, settings: bytes = b"", size: bytes = b"") -> None:
        self._own = own
        self._before: list[Any] | None = None
        self._typed = b""
        self._selector: selectors.BaseSelector | None = None
        self.master, self.slave = os.openpty()
        tty.set_settings(self.slave, settings or tty.settings(own))
        tty.set_window_size(self.slave, size or tty.window_size(own))
        os.set_blocking(self.master, False)

    def begin(self, selector: selectors.BaseSelector) -> None:
        """Carry what comes from now on, as far as :meth:`carry` is called when ``selector`` says so."""
        self._selector = selector
        self._before = termios.tcgetattr(self._own)
        raw_mode.setraw(self._own, termios.TCSADRAIN)  # keeping what was typed ahead
        selector.register(self._own, selectors.EVENT_READ)
        selector.register(self.master, selectors.EVENT_READ)
        self.resize()

    def resize(self) -> None:
        """Tell the job's terminal how large ours is by now."""
        tty.set_window_size(self.master, tty.window_size(self._own))

    def carry(self, fd: int, events: int) -> None:
        """Carry bytes from a descriptor that is ready; others than ours are ignored."""
        if fd == self._own:
            self._typed += self._read(self._own)
            self._type()
        elif fd == self.master:
            if events & selectors.EVENT_READ:
                self._print(self._read(self.master))
            if events & selectors.EVENT_WRITE:
                self._type()

    def _read(self, fd: int) -> bytes:
        assert self._selector is not None
        try:
            text = os.read(fd, _MOST)
        except BlockingIOError:
            return b""
        except OSError:
            text = b""
        if not text:  # it is gone
            self._selector.unregister(fd)
        return text

    def _type(self) -> None:
        """Write what was typed as far as there is room, and listen for more once all of it is written."""
        assert self._selector is not None
        try:
            self._typed = self._typed[os.write(self.master, self._typed) :]
        except BlockingIOError:
            pass
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._typed else 0)
        self._selector.modify(self.master, events)

    def _print(self, text: bytes) -> None:
        left = memoryview(text)
        while left:
            left = left[os.write(self._own, left) :]

    def close(self) -> None:
        """Print what is left and make orch's terminal what it was."""
        try:
            while tty.ready(self.master) & select.POLLIN:
                self._print(os.read(self.master, _MOST))
        except OSError:
            pass  # our terminal is gone
        if self._before is not None:
            try:
                termios.tcsetattr(self._own, termios.TCSADRAIN, self._before)
            except termios.error:
                pass
            self._before = None
        for fd in (self.master, self.slave, self._own):
            os.close(fd)
