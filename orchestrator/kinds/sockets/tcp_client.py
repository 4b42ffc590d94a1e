"""TCP sockets that have called a listener which has not answered, or has not accepted them yet.

They call again. Who waits in the queue of a listener that belongs to the job is called up by that, one after
the other, so that the queue has its order.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Content, Record
from orchestrator.kinds.sockets.borrow import unsent_bytes, waiting_bytes
from orchestrator.kinds.sockets.inet_address import InetAddress, check_connection, parse_address
from orchestrator.kinds.sockets.option_table import SOL_SOCKET, SOL_TCP
from orchestrator.kinds.sockets.options import (
    SO_SNDBUFFORCE,
    SO_TIMESTAMPING,
    TCP_CONGESTION,
    SocketOptions,
    capture_options,
    set_int,
    write_buffers,
    write_options,
)
from orchestrator.kinds.sockets.refused import Refused
from orchestrator.kinds.sockets.tcp_peers import TcpPeers
from orchestrator.kinds.sockets.tcp_repair import (
    TCP_INFO,
    TCP_REPAIR,
    TCP_REPAIR_OFF_NO_WP,
    TCP_REPAIR_ON,
    peek_sent,
    repairing,
    write_pieces,
)
from orchestrator.linux.sockdiag import TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_SYN_SENT
from orchestrator.tape.build import Tape

TCP_CORK = 3
_LATE = {(SOL_SOCKET, socket.SO_REUSEADDR): 4, (SOL_SOCKET, socket.SO_SNDTIMEO): 16, (SOL_TCP, TCP_CORK): 4}
"""Options that are used or lost on the way, with the size of their values in bytes."""
_PATIENCE = struct.pack("=qq", 10, 0)
"""For a listener that had room for this connection before: struct timeval."""
_TICK = struct.pack("=qq", 0, 12_000_000)
"""More than a tick of the kernel's clock: struct timespec."""
_SLACK = 1 << 20
_u64 = struct.Struct("=Q")
_INFO_BYTES, _BYTES_ACKED_AT = 144, 120  # of struct tcp_info; it counts the SYN, too
_SENDFILE_MOST = 0x4000_0000


class TcpClient(Record, frozen=True, tag="tcp-client"):
    """A socket that calls."""

    ino: int
    family: int
    local: InetAddress
    remote: InetAddress
    connected: bool
    """It is, as far as it knows; a listener of the job has to accept it."""
    queued: bool
    """It waits in the queue of that listener, which calls it up."""
    unread: bytes
    """What it sent and the listener's side could not take in yet."""
    fin_sent: bool
    congestion: str
    options: SocketOptions
    owner: tuple[int, int]


class Waiting(Record, frozen=True):
    """A connection in the queue of a listener."""

    local: InetAddress
    remote: InetAddress
    """The client."""
    ended: bool
    """The client has shut down sending."""
    content: Content
    """What it has sent."""


def capture_client(
    view: FdView, sock: socket.socket, state: int, levels: tuple[int, ...], name: str, *, queued: bool, received: int
) -> TcpClient:
    """Record a client that waits to be accepted. ``received``: the bytes that have arrived there."""
    if waiting_bytes(sock.fileno()):
        raise Refused("it has received data over a connection that is not accepted yet")
    fin_sent = state in (TCP_FIN_WAIT1, TCP_FIN_WAIT2)
    unread = b""
    if unsent_bytes(sock.fileno()) > fin_sent:
        with repairing(sock):
            unread = peek_sent(sock, unsent_bytes(sock.fileno()) - fin_sent)
            (acknowledged,) = _u64.unpack_from(sock.getsockopt(SOL_TCP, TCP_INFO, _INFO_BYTES), _BYTES_ACKED_AT)
        unread = not_received(unread, acknowledged - 1, received)
    return TcpClient(
        view.stat.st_ino,
        sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN),
        parse_address(sock.getsockname()),
        parse_address(sock.getpeername()),
        True,
        queued,
        unread,
        fin_sent,
        name,
        capture_options(sock, *levels),
        (view.stat.st_uid, view.stat.st_gid),
    )


def not_received(unacknowledged: bytes, acknowledged: int, received: int) -> bytes:
    """Return what has not arrived yet of what was sent: the other end need not have told of all that it has."""
    return unacknowledged[max(received - acknowledged, 0) :]


def capture_calling(
    view: FdView, sock: socket.socket, peers: TcpPeers, levels: tuple[int, ...], name: str
) -> TcpClient:
    """Record a socket that is connecting (SYN_SENT)."""
    family = sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN)
    diag = peers.state_of(view.stat.st_ino)
    if diag is None or diag.state != TCP_SYN_SENT:
        raise Refused("it is connecting, and the kernel does not list where to", "try again")
    if diag.wqueue > 1:
        raise Refused("data waits to be sent with its first packet (TCP Fast Open)", "try again")
    local = parse_address(sock.getsockname())
    scope_id = local.scope_id
    remote = InetAddress(diag.dst, diag.dport, 0, scope_id)
    options = capture_options(sock, *levels)
    return TcpClient(
        view.stat.st_ino,
        family,
        local,
        remote,
        False,
        False,
        b"",
        False,
        name,
        options,
        (view.stat.st_uid, view.stat.st_gid),
    )


def rebuild_client(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that make the socket and give it its port.

    Those in queues are made with the first of them, in the order of their queue: that will tell it again.
    """
    if not file.body.queued:
        _make(file, depot)
        return
    queued = [number for number in sorted(depot.files) if getattr(depot.files[number].body, "queued", False)]
    if file.id != queued[0]:
        return
    ordered: dict[ObjectId, OpenFile] = {}
    for number in sorted(depot.files):
        for waiting in getattr(depot.files[number].body, "unaccepted", ()):
            client = _client_file(waiting, depot)
            if client is not None:
                ordered[client.id] = client
    for client in [*ordered.values(), *(depot.files[number] for number in queued if number not in ordered)]:
        _make(client, depot)


def _make(file: OpenFile, depot: Depot) -> None:
    body: TcpClient = file.body
    tape = depot.tape
    tape.socket(body.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    write_options(tape, 0, body.options, skip=(*_LATE, *SO_TIMESTAMPING))
    tape.setsockopt(0, SOL_TCP, TCP_CONGESTION, body.congestion.encode(), len(body.congestion))
    write_buffers(tape, 0, body.options)
    _bind(tape, body.local.pack(body.family))
    if body.owner != (0, 0):
        tape.fchown(0, *body.owner)
    depot.keep(0, depot.slot(file.id))


def _bind(tape: Tape, name: bytes) -> None:
    """Bind descriptor 0 to a port that may serve connections to elsewhere, too: repair mode does not mind."""
    set_int(tape, 0, SOL_TCP, TCP_REPAIR, TCP_REPAIR_ON)
    tape.bind(0, name, len(name))
    set_int(tape, 0, SOL_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)


def connect_client(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that call somebody of whom nothing is known yet."""
    body: TcpClient = file.body
    if body.queued:
        return
    if body.connected:
        _call_again(file, Content(0, []), depot)
        return
    tape, fd = depot.tape, depot.slot(file.id)
    tape.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
    name = body.remote.pack(body.family)
    tape.connect(fd, name, len(name), may_fail=True)  # EINPROGRESS; the program is told of anything else
    _finish(tape, fd, file)


def _call_again(file: OpenFile, content: Content, depot: Depot) -> None:
    body: TcpClient = file.body
    tape, fd = depot.tape, depot.slot(file.id)
    tape.setsockopt(fd, SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE, len(_PATIENCE))
    _call(depot, fd, body.remote.pack(body.family), content, body.unread)
    if body.fin_sent:
        tape.shutdown(fd, socket.SHUT_WR)
    _finish(tape, fd, file)


def call_up(waiting: Waiting, depot: Depot) -> None:
    """Write the tape entries that put a connection into the queue of its listener again."""
    file = _client_file(waiting, depot)
    if file is None:
        # Nothing but its age will tell of its place in the queue.
        depot.tape.clock_nanosleep(time.CLOCK_MONOTONIC, 0, _TICK, 0)
        _call_as_departed(waiting, depot)
        depot.tape.clock_nanosleep(time.CLOCK_MONOTONIC, 0, _TICK, 0)
    else:
        _call_again(file, waiting.content, depot)


def _call_as_departed(waiting: Waiting, depot: Depot) -> None:
    """Be the client that nobody has any more, for a moment."""
    tape = depot.tape
    family = socket.AF_INET6 if ":" in waiting.remote.host else socket.AF_INET
    tape.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    _bind(tape, waiting.remote.pack(family))
    _call(depot, 0, waiting.local.pack(family), waiting.content, b"")
    tape.close(0)


def _call(depot: Depot, fd: int, to: bytes, content: Content, more: bytes) -> None:
    tape = depot.tape
    tape.connect(fd, to, len(to))
    if content.size or more:
        set_int(tape, fd, SOL_SOCKET, SO_SNDBUFFORCE, 2 * (content.size + len(more)) + _SLACK)
        _write_content(depot, fd, content)
        write_pieces(tape, fd, more)


def _client_file(waiting: Waiting, depot: Depot) -> OpenFile | None:
    for file in depot.files.values():
        if isinstance(file.body, TcpClient) and file.body.queued:
            ends = (file.body.local.plain, file.body.local.port, file.body.remote.plain, file.body.remote.port)
            if ends == (waiting.remote.plain, waiting.remote.port, waiting.local.plain, waiting.local.port):
                return file
    return None


def _write_content(depot: Depot, fd: int, content: Content) -> None:
    """Send bytes from the image."""
    for extent in content.extents:
        done = 0
        while done < extent.length:
            part = min(extent.length - done, _SENDFILE_MOST)
            offset = depot.tape.block((depot.pages_at + extent.at + done).to_bytes(8, "little"))
            depot.tape.sendfile(fd, depot.image, offset, part)
            done += part


def _finish(tape: Tape, fd: DepotFd, file: OpenFile) -> None:
    body: TcpClient = file.body
    write_buffers(tape, fd, body.options)
    given = {option.at: option.value for option in body.options.others}
    for (level, number), size in _LATE.items():
        value = given.get((level, number), bytes(size))
        tape.setsockopt(fd, level, number, value, len(value))
    for option in body.options.others:
        if option.at in SO_TIMESTAMPING:
            tape.setsockopt(fd, option.level, option.number, option.value, len(option.value))
    tape.fcntl(fd, fcntl.F_SETFL, 0)
    set_status(tape, fd, file.flags)


def _check(file: OpenFile) -> None:
    body: TcpClient = file.body
    check_connection(body.family, body.local, body.remote)


def _never(_view: FdView) -> bool:
    return False  # other kinds find out that nobody has answered


def _capture_none(_view: FdView, _scope: object) -> None:
    return None


TCP_CLIENT = FileKind(
    "TCP socket that connects",
    TcpClient,
    _never,
    _capture_none,
    rebuild_client,
    connect=connect_client,
    check=_check,
    order=1,  # listeners would not get a port that is in use by a connection,
    links="socket:",
)
