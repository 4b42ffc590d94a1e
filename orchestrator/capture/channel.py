"""Messages between two processes of orch, by a pipe each way. Import it only where there is a second process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import termios
from typing import Any

_LENGTH_BYTES = 8
_NOTHING = bytes(4)


class Channel:
    """One end."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing

    def close(self) -> None:
        """Close both pipes: the other end has nobody to talk to any more."""
        os.close(self._reading)
        os.close(self._writing)

    def send(self, what: object) -> None:
        """Send a message, if there is somebody."""
        data = pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
        data = len(data).to_bytes(_LENGTH_BYTES, "little") + data
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._writing, data) :]

    def has_message(self) -> bool:
        """Whether there is one, or at least its beginning."""
        return int.from_bytes(fcntl.ioctl(self._reading, termios.FIONREAD, _NOTHING), "little") > 0

    def receive(self) -> Any:
        """Return what was sent, None when there is nobody any more."""
        head = self._read(_LENGTH_BYTES)
        data = self._read(int.from_bytes(head, "little"))
        return pickle.loads(data) if data else None

    def _read(self, size: int) -> bytes:
        parts = []
        while size > 0:
            part = os.read(self._reading, size)
            if not part:
                return b""
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
