"""TCP connections, both ends of which are in the job, or one that is kept (tcp_hold.py). See tcp(7)."""

from __future__ import annotations

import os
import select
import socket
from functools import partial

import msgspec

from orchestrator.errors import CannotHonour
from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.borrow import borrow, poll_now
from orchestrator.kinds.sockets.inet_address import InetAddress, check_connection, check_route, parse_address
from orchestrator.kinds.sockets.option_table import SOL_SOCKET, SOL_TCP
from orchestrator.kinds.sockets.options import (
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    SO_TIMESTAMPING,
    TCP_CONGESTION,
    Option,
    SocketOptions,
    capture_options,
    read_option,
    set_int,
    write_buffers,
    write_options,
)
from orchestrator.kinds.sockets.refused import Refused, record_or_note
from orchestrator.kinds.sockets.tcp import STATES, TCP_WINDOW_CLAMP, congestion, is_tcp, levels, tcp_state
from orchestrator.kinds.sockets.tcp_agree import AgreeingEnd
from orchestrator.kinds.sockets.tcp_client import TCP_CORK, TcpClient, capture_calling, capture_client
from orchestrator.kinds.sockets.tcp_ended import CUT, CUT_ALL, TcpEnded, capture_ended, judge_extras
from orchestrator.kinds.sockets.tcp_forge import write_urgent
from orchestrator.kinds.sockets.tcp_hold import KEEP, TcpHold
from orchestrator.kinds.sockets.tcp_keys import signing_keys
from orchestrator.kinds.sockets.tcp_peers import TcpPeers
from orchestrator.kinds.sockets.tcp_repair import (
    FIN_RECEIVED,
    FIN_SENT,
    TCP_REPAIR,
    TCP_REPAIR_OFF,
    TCP_REPAIR_OFF_NO_WP,
    TcpState,
    fall_silent,
    mirrored,
    read_state,
    repairing,
    write_beginning,
    write_contents,
    write_pieces,
    write_received,
)
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open
from orchestrator.linux.sockdiag import (
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
)

_SUPPORTED = (TCP_ESTABLISHED, TCP_CLOSE_WAIT, *FIN_SENT)
LATE = (
    (SOL_SOCKET, socket.SO_REUSEADDR),
    (SOL_TCP, TCP_CORK),
    (SOL_TCP, TCP_WINDOW_CLAMP),
    *SO_TIMESTAMPING,
)
"""Options that leaving the repair mode resets, that would hold back what it sends, or that need a connection."""
_SLACK = 1 << 20


class TcpConnection(Record, frozen=True, tag="tcp-connection"):
    """One end of a connection."""

    ino: int
    family: int
    local: InetAddress
    remote: InetAddress
    state: TcpState
    fin_sent: bool
    """It has shut down sending."""
    fin_received: bool
    alone: bool
    """The other end, on this machine, has closed it and is gone."""
    congestion: str
    options: SocketOptions
    owner: tuple[int, int]
    filter: str = ""
    """The packet filter that holds a connection with the outside until it is restored; empty for others."""


def capture_connection(view: FdView, scope: Scope) -> TcpConnection | TcpEnded | TcpClient | None:
    """Record a connected TCP socket."""
    return record_or_note(view, scope, "a TCP connection", _capture)


def _capture(view: FdView, scope: Scope, sock: socket.socket) -> TcpConnection | TcpEnded | TcpClient:
    family = sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN)
    state = tcp_state(sock)
    peers = TcpPeers.of(scope, view.pid)
    if state == TCP_SYN_SENT:
        return capture_calling(view, sock, peers, levels(family), congestion(sock))
    _judge(state)
    local, remote = parse_address(sock.getsockname()), parse_address(sock.getpeername())
    if poll_now(sock.fileno(), 0) & select.POLLERR:
        raise Refused("an error waits in it to be reported")
    judge_extras(sock)
    answered = peers.answered(local, remote) if state != TCP_CLOSE_WAIT else None
    if answered is not None:
        if scope.ends:
            scope.farewells.append(partial(fall_silent, view.take_local(scope)))
        queued = answered.state != TCP_SYN_RECV
        received = answered.rqueue - (answered.state == TCP_CLOSE_WAIT) if queued else 0
        return capture_client(view, sock, state, levels(family), congestion(sock), queued=queued, received=received)
    if CUT_ALL in scope.externals and peers.is_inside(local, remote):
        if scope.ends:
            scope.farewells.append(partial(fall_silent, view.take_local(scope)))
        return capture_ended(view, sock, levels(family), reset=False)
    filter_name = ""
    if not scope.externals.isdisjoint((KEEP, CUT)) and not peers.is_inside(local, remote):
        if KEEP not in scope.externals:
            return capture_ended(view, sock, levels(family), reset=True)
        if not scope.ends:
            raise Refused("it can be kept only if the job ends (--kill): else both would go on with it")
        filter_name = TcpHold.of(scope, view.pid, peers).name
    alone = not filter_name and state == TCP_CLOSE_WAIT and peers.is_gone(local, remote)
    options = capture_options(sock, *levels(family))
    clamp = read_option(sock, SOL_TCP, TCP_WINDOW_CLAMP, 4)
    if clamp is not None:
        options.others.append(Option(SOL_TCP, TCP_WINDOW_CLAMP, clamp))
    options.others.extend(signing_keys(peers, view.stat.st_ino, sock))
    if scope.ends:
        scope.farewells.append(partial(fall_silent, view.take_local(scope)))
    with repairing(sock):
        numbers, state = read_state(sock)
    _judge(state)
    record = TcpConnection(
        view.stat.st_ino,
        family,
        local,
        remote,
        numbers,
        state in FIN_SENT,
        state in FIN_RECEIVED,
        alone,
        congestion(sock),
        options,
        (view.stat.st_uid, view.stat.st_gid),
        filter_name,
    )
    if not alone and not filter_name:
        take = partial(msgspec.structs.force_setattr, record, "state")
        peers.add(view, local, remote, AgreeingEnd(numbers, take, partial(_read_again, view.pid, view.fd, record)))
    return record


def _judge(state: int) -> None:
    if state not in _SUPPORTED:
        raise Refused(f"it is in state {STATES[state]}")


def _read_again(pid: HostPid, fd: int, record: TcpConnection) -> TcpState:
    """Read once more what may have changed of a connection since its record was made."""
    pidfd = pidfd_open(pid)
    try:
        ours = pidfd_getfd(pidfd, fd)
    finally:
        os.close(pidfd)
    try:
        with borrow(ours) as sock, repairing(sock):
            numbers, state = read_state(sock)
    finally:
        os.close(ours)
    _judge(state)
    msgspec.structs.force_setattr(record, "fin_received", state in FIN_RECEIVED)
    return numbers


def rebuild_connection(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that make an end of a connection, silent yet."""
    body: TcpConnection = file.body
    tape, state = depot.tape, body.state
    tape.socket(body.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    write_options(tape, 0, body.options, skip=LATE)
    tape.setsockopt(0, SOL_TCP, TCP_CONGESTION, body.congestion.encode(), len(body.congestion))
    set_int(tape, 0, SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(state.send_queue) + _SLACK)
    set_int(tape, 0, SOL_SOCKET, SO_RCVBUFFORCE, 2 * len(state.receive_queue) + _SLACK)
    write_beginning(tape, 0, state)
    for call, address in ((tape.bind, body.local), (tape.connect, body.remote)):
        name = address.pack(body.family)
        call(0, name, len(name))
    write_contents(tape, 0, state)
    if body.owner != (0, 0):
        tape.fchown(0, *body.owner)
    set_status(tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


def connect_connection(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that let it speak again, when the other end is there to hear."""
    body: TcpConnection = file.body
    _tell_what_is_urgent(file, depot)
    if body.filter:
        return  # tcp_release.py
    tape, fd = depot.tape, depot.slot(file.id)
    if body.alone:
        _write_departed(depot, body)
    set_int(tape, fd, SOL_TCP, TCP_REPAIR, TCP_REPAIR_OFF)
    if body.state.unsent:
        write_pieces(tape, fd, body.state.send_queue[-body.state.unsent :])
    if body.fin_sent:
        tape.shutdown(fd, socket.SHUT_WR)
    write_buffers(tape, fd, body.options)
    for option in body.options.others:
        if option.at in LATE:
            tape.setsockopt(fd, option.level, option.number, option.value, len(option.value))


def _tell_what_is_urgent(file: OpenFile, depot: Depot) -> None:
    """Complete the receive queues with urgent bytes in them; before any connection speaks, and behind what it said."""
    connections = [one for _, one in sorted(depot.files.items()) if isinstance(one.body, TcpConnection)]
    if file.id != connections[0].id:
        return
    for one in connections:
        body: TcpConnection = one.body
        if body.state.urgent >= 0:
            write_urgent(depot.tape, body.local, body.remote, body.state)
            rest = body.state.receive_queue[body.state.urgent + 1 :]
            write_received(depot.tape, depot.slot(one.id), rest)


def _write_departed(depot: Depot, body: TcpConnection) -> None:
    """Make the other end for a moment, so that it can close the connection as it did."""
    tape, state = depot.tape, mirrored(body.state)
    tape.socket(body.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    write_beginning(tape, 0, state)
    for call, address in ((tape.bind, body.remote), (tape.connect, body.local)):
        name = address.pack(body.family)
        call(0, name, len(name))
    write_contents(tape, 0, state)
    set_int(tape, 0, SOL_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
    tape.close(0)


def _check(file: OpenFile) -> None:
    body: TcpConnection = file.body
    check_connection(body.family, body.local, body.remote, one_end=bool(body.filter))
    if body.filter:
        check_route(body.family, body.local, body.remote)


def refuse_elsewhere(file: OpenFile) -> None:
    """Raise CannotHonour for a kept connection if the network namespace will be a new one."""
    if isinstance(file.body, TcpConnection) and file.body.filter:
        raise CannotHonour(
            f"the TCP connection {file.body.local} to {file.body.remote} leads outside, and a network namespace of "
            "the job's own does not",
            hint="restore without --new net",
        )


TCP_CONNECTION = FileKind(
    "TCP connection",
    TcpConnection,
    is_tcp,  # those without a connection belong to the kind before
    capture_connection,
    rebuild_connection,
    connect=connect_connection,
    check=_check,
    order=1,  # listeners would not get a port that is in use by a connection,
    links="socket:",
)
