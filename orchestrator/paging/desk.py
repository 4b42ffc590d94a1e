"""Where others ask how much of a job's memory is still missing. See :mod:`orchestrator.paging.inquiry`."""

from __future__ import annotations

import contextlib
import os
import socket

SOCKET = "pager"
"""Its name in the job's directory."""
URGENT = b"now\n"
"""What somebody says who waits until nothing is missing; the end of the connection tells."""


class Desk:
    """A listening socket and who has come. Nobody is waited for."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._door.bind(path)
        self._place = os.stat(path)
        self._door.listen(64)
        self._guests: dict[int, socket.socket] = {}
        self.is_urgent = False
        """Whether somebody waits until nothing is missing."""

    def fileno(self) -> int:
        """Return the descriptor of the door."""
        return self._door.fileno()

    def attend(self, fd: int, missing: int, total: int) -> int | None:
        """See to the door or to a guest; return the descriptor of a new guest."""
        if fd == self._door.fileno():
            try:
                guest = self._door.accept()[0]
            except OSError:
                return None
            guest.setblocking(False)
            self._guests[guest.fileno()] = guest
            self._say(guest, missing, total)
            return guest.fileno()
        guest = self._guests[fd]
        with contextlib.suppress(BlockingIOError):
            try:
                said = guest.recv(64)
            except ConnectionError:
                said = b""
            self.is_urgent |= said == URGENT
            if not said:
                del self._guests[fd]
                guest.close()
        return None

    def tell(self, missing: int, total: int) -> None:
        """Tell all who are here how far it is."""
        for guest in self._guests.values():
            self._say(guest, missing, total)

    @staticmethod
    def _say(guest: socket.socket, missing: int, total: int) -> None:
        with contextlib.suppress(OSError):
            guest.send(f"{missing} {total}\n".encode())

    def forget_guests(self) -> None:
        """Leave those who have come to somebody else: their descriptors are not ours to close."""
        for guest in self._guests.values():
            guest.detach()
        self._guests.clear()

    def close(self) -> None:
        """Let everybody know that nothing is missing; one who was killed may have done so already."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path), self._place):  # not that of a later job of this name
                os.unlink(self._path)
        self.leave()

    def leave(self) -> None:
        """Give our descriptors back; the path is another process's."""
        for guest in self._guests.values():
            guest.close()
        self._guests.clear()
        with contextlib.suppress(OSError):
            self._door.close()
