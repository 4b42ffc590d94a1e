"""The warden: holds the userfaultfds of a job while no orch works on it, and gives them to the next that asks.

It is started as a program of its own, with nothing but the standard library, and stays small: for as long as the job
lives. When it ends, in whatever way, the kernel notes no writes any more, and the next checkpoint finds that out.

Descriptor 3 is a socket that brings the listening socket, the userfaultfds, and a pidfd of each process. The facts
about them are opaque to it.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import sys

SOURCE = 3
_PATIENCE = 30.0
AT_ONCE = 120
HEAD = struct.Struct("<II")
"""Length of the facts, and how many descriptors follow."""
TAKEN = b"k"
"""What is answered by who has got all."""
_UCRED = struct.Struct("iII")


def give(peer: socket.socket, facts: bytes, fds: list[int]) -> None:
    """Send facts and descriptors."""
    peer.sendall(HEAD.pack(len(facts), len(fds)) + facts)
    for at in range(0, len(fds), AT_ONCE):
        part = array.array("i", fds[at : at + AT_ONCE])
        peer.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, part)])


def take(peer: socket.socket) -> tuple[bytes, list[int]]:
    """Receive what give() sends. Raises EOFError."""
    length, count = HEAD.unpack(_exactly(peer, HEAD.size))
    facts = _exactly(peer, length)
    fds: list[int] = []
    size = socket.CMSG_SPACE(4 * AT_ONCE)
    while len(fds) < count:
        byte, ancillary, _, _ = peer.recvmsg(1, size, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(content[: len(content) // 4 * 4])
                fds += received
        if not byte:
            for fd in fds:
                os.close(fd)
            raise EOFError
    return facts, fds


def _exactly(peer: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = peer.recv(size - len(content))
        if not part:
            raise EOFError
        content += part
    return content


def is_root(peer: socket.socket) -> bool:
    """Whether the other end of a connection was made by root."""
    _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return bool(uid == 0)


def main(path: str) -> None:
    """Stand by until the job has ended or somebody takes over; then the name of the socket is his."""
    with socket.socket(fileno=SOURCE) as source:
        facts, fds = take(source)
    if os.fork():  # whoever started us waits for this one, and nobody for the other
        os._exit(0)
    os.setsid()
    os.chdir("/")
    listener, count = socket.socket(fileno=fds[0]), len(fds) // 2
    held, pidfds = fds[1 : 1 + count], fds[1 + count :]
    poll = select.poll()
    for fd in (listener.fileno(), *pidfds):
        poll.register(fd, select.POLLIN)
    left = len(pidfds)
    while left:
        for fd, _ in poll.poll():
            if fd != listener.fileno():
                poll.unregister(fd)
                os.close(fd)
                left -= 1
            elif _hand_over(listener, facts, held):
                return
    with contextlib.suppress(OSError):
        os.unlink(path)


def _hand_over(listener: socket.socket, facts: bytes, fds: list[int]) -> bool:
    """Give all to whoever asks; say whether it was taken."""
    with contextlib.suppress(OSError, EOFError):
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(_PATIENCE)
            if is_root(peer):
                give(peer, facts, [listener.fileno(), *fds])
                if peer.recv(1) == TAKEN:
                    for fd in fds:  # before the connection ends: from then on nobody but the other holds any
                        os.close(fd)
                    return True
    return False


if __name__ == "__main__":
    main(sys.argv[1])
