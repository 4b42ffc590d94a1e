"""Unix connections that wait to be accepted, with what came over them already, and those that are closed again.

What they hold can be read only by accepting them, and nothing puts them back: so that is done at the very last, and
only if the job ends. Then the records are written already: the image has room for what they could not know yet.
"""

from __future__ import annotations

import os
import socket
import struct

from orchestrator.kinds.files.kind import Depot, FdView
from orchestrator.kinds.record import Content, Extent
from orchestrator.kinds.scope import FileCopy, Scope
from orchestrator.kinds.sockets.borrow import borrow, peer_credentials, waiting_bytes
from orchestrator.kinds.sockets.option_table import SOL_SOCKET
from orchestrator.kinds.sockets.options import SO_SNDBUFFORCE, set_int
from orchestrator.kinds.sockets.unix_creator import in_the_name_of
from orchestrator.kinds.sockets.unix_queue import Credentials
from orchestrator.kinds.sockets.unix_records import UnixWaiting
from orchestrator.linux.procfs import read_file

_facts = struct.Struct("=3Q")
_SLACK = 1 << 20


def most_sent() -> int:
    """Return how many bytes a client can have sent that nobody has any more: what a send buffer holds."""
    default, most = (int(read_file(f"/proc/sys/net/core/wmem_{name}")) for name in ("default", "max"))
    return max(default, 2 * most)


class Acceptor:
    """Accepts what waits at one listener."""

    def __init__(self, view: FdView, scope: Scope) -> None:
        self._listener = view.take_local(scope)
        self._scope = scope
        self._places: list[tuple[int, int]] = []
        scope.last_acts.append(self)

    def expect(self, room: int) -> int:
        """Plan for one more connection, over which ``room`` bytes at most have come; return its place in the image."""
        size = _facts.size + room
        fd = os.memfd_create("unix-queue")
        self._scope.closers.append(fd)
        os.ftruncate(fd, size)
        self._places.append((fd, room))
        content = Content(size, [Extent(0, size, self._scope.layout.place(size))])
        self._scope.copies.append(FileCopy(fd, content.extents, late=True))
        return content.extents[0].at

    def __call__(self) -> None:
        with borrow(self._listener) as sock:
            sock.setblocking(False)
            for fd, room in self._places:
                accepted, _ = sock._accept()  # type: ignore[attr-defined]
                self._scope.closers.append(accepted)
                self._read(accepted, fd, room)

    def _read(self, accepted: int, fd: int, room: int) -> None:
        with borrow(accepted) as sock:
            _, uid, gid = peer_credentials(sock) or (0, 0, 0)
            size = waiting_bytes(accepted)
            data = sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT) if size else b""
        if len(data) != size or size > room:
            raise OSError(f"a connection has received {size} bytes, {len(data)} of them readable, and {room} before")
        os.pwrite(fd, _facts.pack(size, uid, gid) + data, 0)


def write_call(depot: Depot, fd: int, to: bytes, waiting: UnixWaiting, pid: int) -> None:
    """Connect a socket to a sockaddr once more, in the name of ``pid`` (0: nobody), and send what it had sent."""
    tape = depot.tape
    facts = depot.pages_at + waiting.at
    with in_the_name_of(depot, Credentials(pid, 0, 0)) as child:
        for call, at in ((tape.setresgid, facts + 16), (tape.setresuid, facts + 8)):
            tape.pread64(depot.image, tape.argument_behind(2, 0), 8, at)
            tape.pread64(depot.image, tape.argument_behind(1, 1), 8, at)
            call(0, 0, 0)
        tape.connect(fd, to, len(to), may_fail=child is not None)
        tape.setresuid(0, 0, 0)
        tape.setresgid(0, 0, 0)
    if waiting.room:
        set_int(tape, fd, SOL_SOCKET, SO_SNDBUFFORCE, 2 * waiting.room + _SLACK)
        offset = tape.block((facts + _facts.size).to_bytes(8, "little"))
        tape.pread64(depot.image, tape.argument_behind(1, 3), 8, facts)
        tape.sendfile(fd, depot.image, offset, 0)
