"""Ask questions about a socket that belongs to somebody else, by a descriptor of our own for it."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.kinds.files.kind import FdView

_SIOCINQ = 0x541B
_SIOCOUTQ = 0x5411
_SIOCOUTQNSD = 0x894B
_ucred = struct.Struct("=iII")
assert _ucred.size == 12


@contextmanager
def borrow(fd: int) -> Iterator[socket.socket]:
    """Lend a socket object for a descriptor without owning it."""
    # Family and type are only Python's own note here; addresses are decoded by what the kernel returns.
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


def is_socket(view: FdView, *families: int) -> bool:
    """Whether a descriptor is a socket of one of these address families."""
    return view.family in families


def waiting_bytes(fd: int) -> int:
    """Return the bytes in the receive queue (of a datagram socket: in its first message)."""
    return _int_ioctl(fd, _SIOCINQ)


def unsent_bytes(fd: int) -> int:
    """Return what was sent and not yet taken; memory in Unix sockets, unacknowledged bytes in TCP."""
    return _int_ioctl(fd, _SIOCOUTQ)


def never_sent_bytes(fd: int) -> int:
    """Return what a TCP socket was given and has not sent even once."""
    return _int_ioctl(fd, _SIOCOUTQNSD)


def _int_ioctl(fd: int, request: int) -> int:
    value: int = struct.unpack("=i", fcntl.ioctl(fd, request, b"\0\0\0\0"))[0]
    return value


def poll_now(fd: int, events: int) -> int:
    """Return which of ``events``, POLLERR and POLLHUP hold; it consumes nothing."""
    poll = select.poll()
    poll.register(fd, events)
    ready = poll.poll(0)
    return ready[0][1] if ready else 0


def peer_credentials(sock: socket.socket) -> tuple[int, int, int] | None:
    """Return SO_PEERCRED as (host pid, uid, gid); None for a socket without a peer."""
    pid, uid, gid = _ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _ucred.size))
    return None if uid == 0xFFFFFFFF else (pid, uid, gid)
