"""TCP sockets without a connection: fresh, bound, listening. See tcp(7)."""

from __future__ import annotations

import select
import socket
import struct
from typing import NamedTuple

import msgspec

from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.borrow import poll_now
from orchestrator.kinds.sockets.holders import in_net_namespace
from orchestrator.kinds.sockets.inet_address import InetAddress, check_connection, check_port, own_address
from orchestrator.kinds.sockets.inet_bind import Bound, note_freedom, return_lent, write_bind
from orchestrator.kinds.sockets.option_table import SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_TCP
from orchestrator.kinds.sockets.options import (
    TCP_CONGESTION,
    Option,
    SocketOptions,
    capture_options,
    read_option,
    write_buffers,
    write_options,
)
from orchestrator.kinds.sockets.refused import Refused, record_or_note
from orchestrator.kinds.sockets.tcp_client import Waiting, call_up
from orchestrator.kinds.sockets.tcp_ended import TcpEnded, capture_ended, capture_failed
from orchestrator.kinds.sockets.tcp_keys import signing_keys
from orchestrator.kinds.sockets.tcp_peers import TcpPeers
from orchestrator.kinds.sockets.tcp_queue import capture_queue
from orchestrator.linux.sockdiag import TCP_CLOSE, TCP_LISTEN

IPPROTO_MPTCP = 262
TCP_MAXSEG = 2
TCP_WINDOW_CLAMP = 10
TCP_INFO = 11
_TCP_FASTOPEN_KEY = 33
_FASTOPEN_KEYS_BYTES = 32
_SO_INCOMING_CPU = 49
_DEFAULT_MAXSEG = 536
_LEAST_MAXSEG = 88
_int = struct.Struct("=i")
STATES = ("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
          "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV")  # fmt: skip
_tcp_info_head = struct.Struct("=8B4I2I")


class TcpSocket(Record, frozen=True, tag="tcp-socket"):
    """A TCP socket without a connection."""

    ino: int
    family: int
    local: InetAddress | None
    backlog: int
    """-1 if it does not listen."""
    congestion: str
    options: SocketOptions
    owner: tuple[int, int]
    unaccepted: tuple[Waiting, ...] = ()
    """Of a listener: the connections that are not accepted yet, in their order."""
    protocol: int = socket.IPPROTO_TCP
    """Or IPPROTO_MPTCP: a listener of that gives plain connections to whoever does not speak it."""

    @property
    def bound(self) -> Bound | None:
        if self.local is None:
            return None
        return Bound(self.family, socket.IPPROTO_TCP, self.local, self.options, self.backlog >= 0)


def levels(family: int) -> tuple[int, ...]:
    """Return the option levels of a TCP socket."""
    return (SOL_IP, SOL_TCP) if family == socket.AF_INET else (SOL_IP, SOL_IPV6, SOL_TCP)


def tcp_state(sock: socket.socket) -> int:
    """Return a TCP socket's state."""
    return sock.getsockopt(SOL_TCP, TCP_INFO, 8)[0]


def is_tcp(view: FdView, *, multipath: bool = False) -> bool:
    """Whether a descriptor is a TCP socket, or one of MPTCP if that is asked for."""
    if not view.link.startswith("socket:["):
        return False
    sock = view.sock
    return (
        sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN) in (socket.AF_INET, socket.AF_INET6)
        and sock.getsockopt(SOL_SOCKET, socket.SO_PROTOCOL) in (socket.IPPROTO_TCP, IPPROTO_MPTCP if multipath else -1)
        and sock.getsockopt(SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM  # raw ones may have any protocol
    )


def _recognise(view: FdView) -> bool:
    if not is_tcp(view, multipath=True):
        return False
    sock = view.sock
    multipath = sock.getsockopt(SOL_SOCKET, socket.SO_PROTOCOL) == IPPROTO_MPTCP
    return multipath or tcp_state(sock) in (TCP_CLOSE, TCP_LISTEN)


def capture_tcp(view: FdView, scope: Scope) -> TcpSocket | TcpEnded | None:
    """Record a TCP socket that has no connection."""
    return record_or_note(view, scope, "a TCP socket", _capture)


def _capture(view: FdView, scope: Scope, sock: socket.socket) -> TcpSocket | TcpEnded:
    family = sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN)
    state, *_, waiting, backlog = _tcp_info_head.unpack(sock.getsockopt(SOL_TCP, TCP_INFO, _tcp_info_head.size))
    protocol = sock.getsockopt(SOL_SOCKET, socket.SO_PROTOCOL)
    if protocol == IPPROTO_MPTCP:
        _judge_multipath(sock, state, waiting)
    ready = poll_now(sock.fileno(), select.POLLRDHUP) if state == TCP_CLOSE and protocol != IPPROTO_MPTCP else 0
    if ready & select.POLLERR:
        return capture_failed(view, sock, levels(family))
    if ready & select.POLLRDHUP:
        return capture_ended(view, sock, levels(family), reset=False)
    options = capture_options(sock, *levels(family))
    if protocol == IPPROTO_MPTCP:
        options = msgspec.structs.replace(options, buffer_locks=-1)  # it tells, and cannot be set
    options.others.extend(_options_before_connection(view, scope, sock))
    if state == TCP_LISTEN and protocol == socket.IPPROTO_TCP:
        options.others.extend(signing_keys(TcpPeers.of(scope, view.pid), view.stat.st_ino, sock))
    return TcpSocket(
        view.stat.st_ino,
        family,
        note_freedom(view.pid, family, own_address(sock)),
        backlog if state == TCP_LISTEN else -1,
        congestion(sock),
        options,
        (view.stat.st_uid, view.stat.st_gid),
        capture_queue(view, scope, waiting) if state == TCP_LISTEN and waiting else (),
        protocol,
    )


def _options_before_connection(view: FdView, scope: Scope, sock: socket.socket) -> list[Option]:
    """Return what can be told of some options only while there is no connection."""
    found = []
    (mss,) = _int.unpack(sock.getsockopt(SOL_TCP, TCP_MAXSEG, 4))
    if mss != _DEFAULT_MAXSEG and mss >= _LEAST_MAXSEG:  # else it follows from others
        found.append(Option(SOL_TCP, TCP_MAXSEG, _int.pack(mss)))
    clamp = read_option(sock, SOL_TCP, TCP_WINDOW_CLAMP, 4)
    if clamp is not None and any(clamp):
        found.append(Option(SOL_TCP, TCP_WINDOW_CLAMP, clamp))
    cpu = read_option(sock, SOL_SOCKET, _SO_INCOMING_CPU, 4)
    if cpu is not None and cpu != _int.pack(-1):
        found.append(Option(SOL_SOCKET, _SO_INCOMING_CPU, cpu))
    key = read_option(sock, SOL_TCP, _TCP_FASTOPEN_KEY, _FASTOPEN_KEYS_BYTES)
    if key and key != scope.sole(_FastOpen, lambda: _FastOpen(in_net_namespace(view.pid, _usual_key))).key:
        found.append(Option(SOL_TCP, _TCP_FASTOPEN_KEY, key))
    return found


class _FastOpen(NamedTuple):
    """The key of TCP Fast Open that listeners of the network namespace share."""

    key: bytes


def _usual_key() -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        return probe.getsockopt(SOL_TCP, _TCP_FASTOPEN_KEY, _FASTOPEN_KEYS_BYTES)


def _judge_multipath(sock: socket.socket, state: int, waiting: int) -> None:
    if state not in (TCP_CLOSE, TCP_LISTEN):
        raise Refused(
            "it is a connection of Multipath TCP (MPTCP)", "Go programs do without if GODEBUG=multipathtcp=0 is set"
        )
    if waiting:
        raise Refused("connections to it, of Multipath TCP, are not accepted yet", "try again")
    if poll_now(sock.fileno(), 0) & select.POLLERR:
        raise Refused("its connection has failed, and the error waits to be reported")


def congestion(sock: socket.socket) -> str:
    """Return the name of a TCP socket's congestion control."""
    return sock.getsockopt(SOL_TCP, TCP_CONGESTION, 16).rstrip(b"\0").decode()


def rebuild_tcp(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that leave the socket at its standing number."""
    body: TcpSocket = file.body
    tape = depot.tape
    tape.socket(body.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, body.protocol)
    write_options(tape, 0, body.options)
    tape.setsockopt(0, SOL_TCP, TCP_CONGESTION, body.congestion.encode(), len(body.congestion))
    write_buffers(tape, 0, body.options)
    if body.owner != (0, 0):
        tape.fchown(0, *body.owner)  # ports are shared by sockets of one owner
    if body.bound is not None:
        write_bind(depot, file.id, body.bound)
    if body.backlog >= 0:
        tape.listen(0, body.backlog)
    depot.keep(0, depot.slot(file.id))
    set_status(tape, depot.slot(file.id), file.flags)


def connect_tcp(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that let connections wait to be accepted again."""
    body: TcpSocket = file.body
    if body.bound is not None:
        return_lent(depot, file.id, body.bound)
    for waiting in body.unaccepted:
        call_up(waiting, depot)


def check_tcp(file: OpenFile) -> None:
    """Raise ResourceTaken if the port is not free."""
    body: TcpSocket = file.body
    if body.local is not None:
        options = [(option.level, option.number, option.value) for option in body.options.others]
        check_port(body.family, socket.SOCK_STREAM, body.local, options, listens=body.backlog >= 0)
    for waiting in body.unaccepted:
        family = socket.AF_INET6 if ":" in waiting.remote.host else socket.AF_INET
        check_connection(family, waiting.remote, waiting.local)


TCP = FileKind(
    "TCP socket", TcpSocket, _recognise, capture_tcp, rebuild_tcp, connect=connect_tcp, check=check_tcp, links="socket:"
)
