"""TCP sockets whose connection is over and that are not closed yet: there may be bytes to read, then the end.

Connections with somebody outside of the job become such sockets if the user allows that they are cut.
Neither end of the connection has an address any more that could be asked for or would be used.
"""

from __future__ import annotations

import socket
import struct

from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.sockets.borrow import waiting_bytes
from orchestrator.kinds.sockets.inet_address import InetAddress
from orchestrator.kinds.sockets.option_table import SOL_SOCKET
from orchestrator.kinds.sockets.options import (
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    SocketOptions,
    capture_options,
    set_int,
    write_dress,
)
from orchestrator.kinds.sockets.tcp_repair import write_pieces

CUT = "tcp"
"""How --external allows that connections with the outside are cut."""
_LOOPBACK = {socket.AF_INET: InetAddress("127.0.0.1", 0), socket.AF_INET6: InetAddress("::1", 0)}
_SOCKADDR_BYTES = 28
_SLACK = 1 << 20


class TcpEnded(Record, frozen=True, tag="tcp-ended"):
    """A TCP socket whose connection is over."""

    ino: int
    family: int
    receive_queue: bytes
    reset: bool
    """ECONNRESET waits to be reported."""
    options: SocketOptions
    owner: tuple[int, int]


def capture_ended(view: FdView, sock: socket.socket, levels: tuple[int, ...], *, reset: bool) -> TcpEnded:
    """Record a socket as one whose connection is over, with what it has received."""
    waiting = waiting_bytes(sock.fileno())
    return TcpEnded(
        view.stat.st_ino,
        sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN),
        sock.recv(waiting, socket.MSG_PEEK | socket.MSG_DONTWAIT) if waiting else b"",
        reset,
        capture_options(sock, *levels),
        (view.stat.st_uid, view.stat.st_gid),
    )


def rebuild_ended(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that make a connection over loopback, and end it."""
    body: TcpEnded = file.body
    tape = depot.tape
    style = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    name = _LOOPBACK[socket.AddressFamily(body.family)].pack(body.family)
    tape.socket(body.family, style, socket.IPPROTO_TCP)
    tape.socket(body.family, style, socket.IPPROTO_TCP)
    set_int(tape, 0, SOL_SOCKET, SO_RCVBUFFORCE, 2 * len(body.receive_queue) + _SLACK)
    tape.bind(1, name, len(name))
    tape.listen(1, 1)
    address = tape.space(_SOCKADDR_BYTES)
    tape.getsockname(1, address, struct.pack("=i", _SOCKADDR_BYTES))
    tape.connect(0, address, len(name))
    tape.accept4(1, 0, 0, socket.SOCK_CLOEXEC)
    set_int(tape, 2, SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(body.receive_queue) + _SLACK)
    write_pieces(tape, 2, body.receive_queue)
    if body.receive_queue:  # wait until all of it has arrived
        tape.recvfrom(0, 0, len(body.receive_queue), socket.MSG_PEEK | socket.MSG_WAITALL | socket.MSG_TRUNC, 0, 0)
    tape.setsockopt(2, SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0), 8)
    tape.close(2)  # with a reset, and at once
    tape.close(1)
    if not body.reset:
        tape.getsockopt(0, SOL_SOCKET, socket.SO_ERROR, bytes(4), struct.pack("=i", 4))
    write_dress(tape, 0, body.options, body.owner)
    set_status(tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


def _never(_view: FdView) -> bool:
    return False  # other kinds find out that a connection is over


def _capture_none(_view: FdView, _scope: object) -> None:
    return None


TCP_ENDED = FileKind("ended TCP connection", TcpEnded, _never, _capture_none, rebuild_ended, order=1)
