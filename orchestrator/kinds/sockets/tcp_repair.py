"""TCP's repair mode: read a connection's state without its noticing, and write it into another socket.

A socket in repair mode sends nothing by itself. See TCP_REPAIR in linux/tcp.h.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from orchestrator.kinds.record import Record
from orchestrator.kinds.sockets.borrow import borrow, never_sent_bytes, poll_now, unsent_bytes, waiting_bytes
from orchestrator.kinds.sockets.option_table import SOL_SOCKET, SOL_TCP
from orchestrator.kinds.sockets.options import set_int
from orchestrator.kinds.sockets.refused import Refused
from orchestrator.linux.sockdiag import TCP_CLOSE_WAIT, TCP_CLOSING, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LAST_ACK
from orchestrator.tape.build import Tape

TCP_MAXSEG = 2
TCP_INFO = 11
TCP_REPAIR = 19
TCP_REPAIR_QUEUE = 20
TCP_QUEUE_SEQ = 21
TCP_REPAIR_OPTIONS = 22
TCP_TIMESTAMP = 24
TCP_REPAIR_WINDOW = 29

TCP_REPAIR_ON = 1
TCP_REPAIR_OFF = 0
TCP_REPAIR_OFF_NO_WP = -1
"""Leave without sending a window probe."""
TCP_NO_QUEUE = 0
TCP_RECV_QUEUE = 1
TCP_SEND_QUEUE = 2

_SO_PEEK_OFF = 42
_SIOCATMARK = 0x8905
_TCPI_OPT_TIMESTAMPS = 1
_TCPI_OPT_SACK = 2
_TCPI_OPT_WSCALE = 4
_TCPOPT_MSS = 2
_TCPOPT_WINDOW = 3
_TCPOPT_SACK_PERM = 4
_TCPOPT_TIMESTAMP = 8
_u32 = struct.Struct("=I")
_tcp_repair_opt = struct.Struct("=II")
_tcp_repair_window = struct.Struct("=5I")
assert _tcp_repair_opt.size == 8
assert _tcp_repair_window.size == 20
FIN_SENT = (TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSING, TCP_LAST_ACK)
FIN_RECEIVED = (TCP_CLOSE_WAIT, TCP_CLOSING, TCP_LAST_ACK)
_ATTEMPTS = 64
_PIECE = 32 * 1024  # the kernel takes less than it is given of anything much larger


class RepairWindow(Record, frozen=True, array_like=True):
    """struct tcp_repair_window."""

    snd_wl1: int
    snd_wnd: int
    max_window: int
    rcv_wnd: int
    rcv_wup: int


class TcpState(Record, frozen=True):
    """What the two ends of a connection agreed on, and how far they are. Sequence numbers leave a FIN out."""

    send_seq: int
    """Of the first byte of ``send_queue``."""
    receive_seq: int
    """Of the first byte of ``receive_queue``."""
    send_queue: bytes
    unsent: int
    """The bytes at the end of ``send_queue`` that were never sent."""
    receive_queue: bytes
    mss: int
    """What the other end can take in a segment."""
    send_scale: int
    """Shifts of the window, -1 without the option."""
    receive_scale: int
    sack: bool
    timestamps: bool
    timestamp: int
    window: RepairWindow
    urgent: int = -1
    """Where in ``receive_queue`` the urgent byte lies that was not read yet, -1 without one."""


@contextmanager
def repairing(sock: socket.socket) -> Iterator[None]:
    """Hold a live socket in repair mode."""
    reuse = sock.getsockopt(SOL_SOCKET, socket.SO_REUSEADDR)
    peek_offset = sock.getsockopt(SOL_SOCKET, _SO_PEEK_OFF)
    sock.setsockopt(SOL_TCP, TCP_REPAIR, TCP_REPAIR_ON)
    try:
        if peek_offset >= 0:
            sock.setsockopt(SOL_SOCKET, _SO_PEEK_OFF, -1)
        yield
    finally:
        sock.setsockopt(SOL_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
        sock.setsockopt(SOL_SOCKET, socket.SO_REUSEADDR, reuse)  # leaving clears it
        if peek_offset >= 0:
            sock.setsockopt(SOL_SOCKET, _SO_PEEK_OFF, peek_offset)


def fall_silent(fd: int) -> None:
    """Let a connection end without a packet when its socket is closed, and leave nothing that would keep its port."""
    with borrow(fd) as sock:
        sock.setsockopt(SOL_TCP, TCP_REPAIR, TCP_REPAIR_ON)


def peek_sent(sock: socket.socket, size: int) -> bytes:
    """Look at the ``size`` bytes that a socket in repair mode keeps until they are acknowledged."""
    sock.setsockopt(SOL_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)
    return sock.recv(size, socket.MSG_PEEK)


def read_state(sock: socket.socket) -> tuple[TcpState, int]:
    """Read a connection's state from a socket in repair mode, with the state of its machine (TCP_ESTABLISHED...).

    Packets may come in meanwhile: it is read until it stays the same. Raises Refused if it does not.
    """
    for _ in range(_ATTEMPTS):
        machine = _machine(sock)
        end_of_receive = _seq(sock, TCP_RECV_QUEUE)
        found = _read_state(sock, end_of_receive, fin_sent=machine in FIN_SENT, fin_received=machine in FIN_RECEIVED)
        if _machine(sock) == machine and _seq(sock, TCP_RECV_QUEUE) == end_of_receive:
            return found, machine
    raise Refused("data comes in faster than it can be looked at", "try again")


def _machine(sock: socket.socket) -> int:
    return sock.getsockopt(SOL_TCP, TCP_INFO, 8)[0]


def _read_state(sock: socket.socket, behind: int, *, fin_sent: bool, fin_received: bool) -> TcpState:
    info = sock.getsockopt(SOL_TCP, TCP_INFO, 8)
    options, scales = info[5], info[6]
    scaled = bool(options & _TCPI_OPT_WSCALE)
    timestamps = bool(options & _TCPI_OPT_TIMESTAMPS)
    end_of_send = _seq(sock, TCP_SEND_QUEUE) - fin_sent
    outstanding = unsent_bytes(sock.fileno()) - fin_sent
    send_queue = sock.recv(outstanding, socket.MSG_PEEK) if outstanding > 0 else b""
    end_of_receive = _wrap(behind - fin_received)
    sock.setsockopt(SOL_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE)
    receive_queue, urgent = peek_received(sock)
    unsent = never_sent_bytes(sock.fileno()) - fin_sent
    window = RepairWindow(*_tcp_repair_window.unpack(sock.getsockopt(SOL_TCP, TCP_REPAIR_WINDOW, 20)))
    if window.rcv_wup == _wrap(end_of_receive + 1):
        # A FIN was acknowledged that comes again after the restore.
        window = msgspec.structs.replace(window, rcv_wup=end_of_receive, rcv_wnd=window.rcv_wnd + 1)
    return TcpState(
        _wrap(end_of_send - len(send_queue)),
        _wrap(end_of_receive - len(receive_queue)),
        send_queue,
        min(max(unsent, 0), len(send_queue)),
        receive_queue,
        sock.getsockopt(SOL_TCP, TCP_MAXSEG),
        scales & 15 if scaled else -1,
        scales >> 4 if scaled else -1,
        bool(options & _TCPI_OPT_SACK),
        timestamps,
        _u32.unpack(sock.getsockopt(SOL_TCP, TCP_TIMESTAMP, 4))[0] if timestamps else 0,
        window,
        urgent,
    )


def peek_received(sock: socket.socket) -> tuple[bytes, int]:
    """Look at what waits to be read. Tell where in it the urgent byte lies, if that was not read yet, else -1."""
    fd = sock.fileno()
    inline = sock.getsockopt(SOL_SOCKET, socket.SO_OOBINLINE)
    at_mark = fcntl.ioctl(fd, _SIOCATMARK, bytes(4)) != bytes(4)
    pending = bool(poll_now(fd, select.POLLPRI) & select.POLLPRI)
    # Only so it is counted, and looked at, beyond the urgent byte.
    sock.setsockopt(SOL_SOCKET, socket.SO_OOBINLINE, 1)
    try:
        waiting = waiting_bytes(fd)
        content = sock.recv(waiting, socket.MSG_PEEK | socket.MSG_DONTWAIT) if waiting else b""
        mark = len(content) if len(content) < waiting else 0 if at_mark and content else -1
        if len(content) < waiting:
            sock.setsockopt(SOL_SOCKET, _SO_PEEK_OFF, len(content))
            try:
                content += sock.recv(waiting - len(content), socket.MSG_PEEK | socket.MSG_DONTWAIT)
            finally:
                sock.setsockopt(SOL_SOCKET, _SO_PEEK_OFF, -1)
    finally:
        sock.setsockopt(SOL_SOCKET, socket.SO_OOBINLINE, inline)
    if len(content) != waiting:
        raise OSError(f"looked at {len(content)} of {waiting} bytes of a TCP receive queue")
    if mark >= 0 and not pending and not inline:
        return content[:mark] + content[mark + 1 :], -1  # it was read already
    return content, mark if pending else -1


def _seq(sock: socket.socket, queue: int) -> int:
    """Choose a queue for what follows, and return the sequence number behind its end."""
    sock.setsockopt(SOL_TCP, TCP_REPAIR_QUEUE, queue)
    sequence: int = _u32.unpack(sock.getsockopt(SOL_TCP, TCP_QUEUE_SEQ, 4))[0]
    return sequence


def _wrap(sequence: int) -> int:
    return sequence & 0xFFFFFFFF


def mirrored(state: TcpState) -> TcpState:
    """Return the state of the other end of a connection, which has read all and has nothing more to say."""
    window = state.window
    return TcpState(
        send_seq=_wrap(state.receive_seq + len(state.receive_queue)),
        receive_seq=state.send_seq,
        send_queue=b"",
        unsent=0,
        receive_queue=b"",
        mss=state.mss,
        send_scale=state.receive_scale,
        receive_scale=state.send_scale,
        sack=state.sack,
        timestamps=state.timestamps,
        timestamp=state.timestamp,
        window=RepairWindow(state.send_seq, window.rcv_wnd, window.rcv_wnd, window.snd_wnd, state.send_seq),
    )


def write_beginning(tape: Tape, fd: int, state: TcpState) -> None:
    """Put a fresh socket into repair mode with the numbers of a connection; bind and connect it then."""
    set_int(tape, fd, SOL_TCP, TCP_REPAIR, TCP_REPAIR_ON)
    for queue, sequence in ((TCP_SEND_QUEUE, state.send_seq), (TCP_RECV_QUEUE, state.receive_seq)):
        set_int(tape, fd, SOL_TCP, TCP_REPAIR_QUEUE, queue)
        tape.setsockopt(fd, SOL_TCP, TCP_QUEUE_SEQ, _u32.pack(sequence), 4)
    if state.timestamps:
        tape.setsockopt(fd, SOL_TCP, TCP_TIMESTAMP, _u32.pack(state.timestamp), 4)


def write_contents(tape: Tape, fd: int, state: TcpState) -> None:
    """Give a socket that is connected in repair mode what was agreed on, and what waits in its queues."""
    options = [(_TCPOPT_MSS, state.mss)]
    if state.send_scale >= 0:
        options.append((_TCPOPT_WINDOW, state.send_scale | state.receive_scale << 16))
    if state.sack:
        options.append((_TCPOPT_SACK_PERM, 0))
    if state.timestamps:
        options.append((_TCPOPT_TIMESTAMP, 0))
    raw = b"".join(_tcp_repair_opt.pack(*option) for option in options)
    tape.setsockopt(fd, SOL_TCP, TCP_REPAIR_OPTIONS, raw, len(raw))
    sent = state.send_queue[: len(state.send_queue) - state.unsent]
    received = state.receive_queue if state.urgent < 0 else state.receive_queue[: state.urgent]
    for queue, content in ((TCP_RECV_QUEUE, received), (TCP_SEND_QUEUE, sent)):
        set_int(tape, fd, SOL_TCP, TCP_REPAIR_QUEUE, queue)
        write_pieces(tape, fd, content)
    set_int(tape, fd, SOL_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE)
    given = state.window
    ahead = given.rcv_wup - state.receive_seq - len(received) & 0xFFFFFFFF
    if 0 < ahead < 1 << 31:  # the rest is still to come; the window ends where it did
        given = msgspec.structs.replace(
            given, rcv_wup=_wrap(state.receive_seq + len(received)), rcv_wnd=given.rcv_wnd + ahead
        )
    window = _tcp_repair_window.pack(*(getattr(given, name) for name in given.__struct_fields__))
    tape.setsockopt(fd, SOL_TCP, TCP_REPAIR_WINDOW, window, len(window))


def write_received(tape: Tape, fd: int, content: bytes) -> None:
    """Append to what waits to be read from a socket in repair mode."""
    set_int(tape, fd, SOL_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE)
    write_pieces(tape, fd, content)
    set_int(tape, fd, SOL_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE)


def write_pieces(tape: Tape, fd: int, content: bytes) -> None:
    """Send in pieces that are taken whole."""
    for start in range(0, len(content), _PIECE):
        piece = content[start : start + _PIECE]
        tape.sendto(fd, piece, len(piece), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, 0, 0)
