"""What the two ends of a migration say to each other, over two pipes.

Each message is a line of JSON; an image follows its message byte for byte. The source sends images, and "go" in the
end; the destination says hello, what it has got, that the job is built, and that it runs, or what went wrong.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

import msgspec

from orchestrator.daemon import told, untold
from orchestrator.errors import PeerLost

VERSION = 1
_MOST_LINE = 1 << 16
_AT_ONCE = 1 << 20

T = TypeVar("T")
What = Literal["hello", "image", "last", "got", "ready", "go", "running", "failed"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line."""

    what: What
    version: int = 0
    """Of a hello: of these messages."""
    size: int = 0
    """Of an image: how many bytes follow."""
    job: str = ""
    """Of a job that runs: what it is called there."""
    error: str = ""
    """The name of a class of :mod:`orchestrator.errors`."""
    message: str = ""
    hint: str | None = None


class Wire:
    """One end: a descriptor to read from, and one to write to. Our own if they are not to block (``patience``)."""

    def __init__(self, reading: int, writing: int, peer: str) -> None:
        self._reading = reading
        self._writing = writing
        self._peer = peer
        self._rest = b""
        self.patience: float | None = None
        """How many seconds the other end may be silent, or take nothing; None: for ever."""

    def say(self, message: Message) -> None:
        """Send a message. Raises PeerLost."""
        self._write(msgspec.json.encode(message) + b"\n")

    def hear(self, *expected: What) -> Message:
        """Wait for a message. Raises PeerLost, or the error that the other end tells of."""
        while b"\n" not in self._rest:
            if len(self._rest) > _MOST_LINE or not (part := self._read(4096)):
                raise self._lost()
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            message = msgspec.json.decode(line, type=Message)
        except msgspec.MsgspecError:
            raise PeerLost(
                f"{self._peer} said {line[:80]!r}",
                hint="nothing but 'orch receive' may write to its output; 'ssh HOST true' should print nothing",
            ) from None
        if message.what == "failed":
            raise untold(message.error, message.message, message.hint)
        if message.what not in expected:
            raise PeerLost(f"{self._peer} said {message.what!r} instead of {' or '.join(expected)!r}")
        return message

    def fail(self, error: BaseException) -> None:
        """Tell the other end what went wrong, if it is still there."""
        name, text, hint = told(error)
        message = Message("failed", error=name, message=text, hint=hint)
        try:
            self.say(message)
        except PeerLost:
            return

    def send_file(self, path: str, what: Literal["image", "last"]) -> None:
        """Send an image."""
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            self.say(Message(what, size=size))
            done = 0
            while done < size:
                part = min(size - done, _AT_ONCE)
                sent = self._soon_out(partial(os.sendfile, self._writing, file.fileno(), done, part))
                if not sent:
                    raise PeerLost(f"{path} was cut short while it was sent")
                done += sent

    def receive_file(self, path: str, size: int) -> None:
        """Write the bytes of an image, which come next, to a new file."""
        with open(path, "xb", buffering=0) as file:
            head, self._rest = self._rest[:size], self._rest[size:]
            done = file.write(head) or 0
            while done < size:
                part = self._read(min(size - done, _AT_ONCE))
                if not part:
                    raise self._lost()
                view = memoryview(part)
                while view:
                    written = file.write(view) or 0
                    view, done = view[written:], done + written

    def _read(self, size: int) -> bytes:
        return self._soon(self._reading, select.POLLIN, partial(os.read, self._reading, size))

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._soon_out(partial(os.write, self._writing, data)) :]

    def _soon_out(self, act: Callable[[], int]) -> int:
        try:
            return self._soon(self._writing, select.POLLOUT, act)
        except PeerLost as error:
            while isinstance(error.__cause__, BrokenPipeError):  # it may have said why, and ends the loop
                self.hear("hello", "got", "ready")
            raise

    def _soon(self, fd: int, event: int, act: Callable[[], T]) -> T:
        """Do what may have to wait for the other end. Raises PeerLost."""
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    return act()
                poll = select.poll()
                poll.register(fd, event)
                if not poll.poll(None if self.patience is None else self.patience * 1000):
                    raise PeerLost(f"{self._peer} has been silent for {self.patience:g} s")
        except OSError as error:
            raise self._lost() from error

    def _lost(self) -> PeerLost:
        return PeerLost(f"{self._peer} is gone")
