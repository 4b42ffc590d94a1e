"""TCP sockets whose connection is over and that are not closed yet: there may be bytes to read, then the end.

Connections with somebody outside of the job become such sockets if the user allows that they are cut.
Neither end of the connection has an address any more that could be asked for or would be used.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

import msgspec

from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.sockets.borrow import waiting_bytes
from orchestrator.kinds.sockets.inet_address import InetAddress
from orchestrator.kinds.sockets.option_table import SOL_SOCKET, SOL_TCP
from orchestrator.kinds.sockets.options import (
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    SO_TIMESTAMPING,
    TCP_CONGESTION,
    TCP_ULP,
    Option,
    SocketOptions,
    capture_options,
    set_int,
    write_dress,
)
from orchestrator.kinds.sockets.refused import Refused
from orchestrator.kinds.sockets.tcp_repair import TCP_INFO, peek_received, write_pieces

CUT = "tcp"
"""How --external allows that connections with the outside are cut."""
CUT_ALL = "tcp-all"
"""How it allows that those within the job are cut, too."""
_LOOPBACK = {socket.AF_INET: InetAddress("127.0.0.1", 0), socket.AF_INET6: InetAddress("::1", 0)}
_SOCKADDR_BYTES = 28
_SLACK = 1 << 20
_INFO_BYTES = 144
_TCP_SAVED_SYN = 28
_OPT_ID = 0x80
_two_u64 = struct.Struct("=QQ")
_two_u32 = struct.Struct("=II")


class TcpEnded(Record, frozen=True, tag="tcp-ended"):
    """A TCP socket whose connection is over."""

    ino: int
    family: int
    receive_queue: bytes
    reset: bool
    """ECONNRESET waits to be reported."""
    options: SocketOptions
    owner: tuple[int, int]
    refused: bool = False
    """It was never connected: ECONNREFUSED waits to be reported."""


def judge_extras(sock: socket.socket) -> None:
    """Raise Refused for what a connection has that cannot be given to another one."""
    if sock.getsockopt(SOL_TCP, TCP_ULP, 16).rstrip(b"\0"):
        raise Refused("the kernel encrypts it (TLS)")
    try:
        sock.getsockopt(SOL_TCP, _TCP_SAVED_SYN, 1)
    except OSError as error:
        if error.errno == errno.EINVAL:  # one byte is too little for it
            raise Refused("the packet that opened it was not read yet (TCP_SAVED_SYN)") from None


def capture_ended(view: FdView, sock: socket.socket, levels: tuple[int, ...], *, reset: bool) -> TcpEnded:
    """Record a socket as one whose connection is over, with what it has received. May raise Refused."""
    judge_extras(sock)
    options = without_counting(capture_options(sock, *levels))
    algorithm = sock.getsockopt(SOL_TCP, TCP_CONGESTION, 16).rstrip(b"\0")
    options.others.append(Option(SOL_TCP, TCP_CONGESTION, algorithm))
    content, urgent = peek_received(sock) if waiting_bytes(sock.fileno()) else (b"", -1)
    if urgent >= 0:
        raise Refused("urgent data waits in it, and its connection is over or to be cut")
    return TcpEnded(
        view.stat.st_ino,
        sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN),
        content,
        reset,
        options,
        (view.stat.st_uid, view.stat.st_gid),
    )


def without_counting(options: SocketOptions) -> SocketOptions:
    """Take out of SO_TIMESTAMPING what only a connection can be asked for: nothing will be sent any more."""
    others = [
        Option(one.level, one.number, bytes([one.value[0] & ~_OPT_ID]) + one.value[1:])
        if one.at in SO_TIMESTAMPING
        else one
        for one in options.others
    ]
    return msgspec.structs.replace(options, others=others)


def capture_failed(view: FdView, sock: socket.socket, levels: tuple[int, ...]) -> TcpEnded:
    """Record a socket with an error that waits to be reported. May raise Refused.

    To ask for the error takes it away: which it is follows from what went over the connection.
    """
    info = sock.getsockopt(SOL_TCP, TCP_INFO, _INFO_BYTES)
    (acknowledged, received), (_, heard) = _two_u64.unpack_from(info, 120), _two_u32.unpack_from(info, 136)
    gave_up = bool(info[2] or info[3] or info[4])  # retransmits, probes, backoff
    if not acknowledged and not received:
        if heard:  # the other end's refusal, and nothing before
            return msgspec.structs.replace(capture_ended(view, sock, levels, reset=False), refused=True)
    elif not gave_up and not received:
        return capture_ended(view, sock, levels, reset=True)
    raise Refused("its connection has failed, and the error waits to be reported")


def rebuild_ended(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that make a connection over loopback, and end it."""
    body: TcpEnded = file.body
    tape = depot.tape
    style = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    name = _LOOPBACK[socket.AddressFamily(body.family)].pack(body.family)
    if body.refused:
        _rebuild_refused(file, depot, style, name)
        return
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


def _rebuild_refused(file: OpenFile, depot: Depot, style: int, name: bytes) -> None:
    """Write the tape entries that call a port at which nobody listens."""
    body: TcpEnded = file.body
    tape = depot.tape
    tape.socket(body.family, style, socket.IPPROTO_TCP)
    tape.socket(body.family, style | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    tape.bind(0, name, len(name))
    address = tape.space(_SOCKADDR_BYTES)
    tape.getsockname(0, address, struct.pack("=i", _SOCKADDR_BYTES))
    tape.connect(1, address, len(name), may_fail=True)
    tape.dup3(1, 0, O_CLOEXEC)
    tape.close(1)
    write_dress(tape, 0, body.options, body.owner)
    set_status(tape, 0, file.flags, os.O_NONBLOCK)
    depot.keep(0, depot.slot(file.id))


def _never(_view: FdView) -> bool:
    return False  # other kinds find out that a connection is over


def _capture_none(_view: FdView, _scope: object) -> None:
    return None


TCP_ENDED = FileKind("ended TCP connection", TcpEnded, _never, _capture_none, rebuild_ended, order=1)
