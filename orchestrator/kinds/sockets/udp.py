"""UDP sockets. See udp(7)."""

from __future__ import annotations

import select
import socket
from typing import Any

from orchestrator.errors import RebuildFailed
from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.borrow import borrow, is_socket, poll_now, unsent_bytes
from orchestrator.kinds.sockets.inet_address import InetAddress, check_port, own_address, remote_address
from orchestrator.kinds.sockets.inet_bind import Bound, dealt_to, note_freedom, return_lent, write_bind
from orchestrator.kinds.sockets.memberships import JoinedGroups, Membership, check_interfaces, join
from orchestrator.kinds.sockets.option_table import SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP
from orchestrator.kinds.sockets.options import (
    SO_RCVBUFFORCE,
    SocketOptions,
    capture_options,
    read_option,
    set_int,
    write_buffers,
    write_filtering,
    write_options,
)
from orchestrator.kinds.sockets.refused import Refused, record_or_note
from orchestrator.kinds.sockets.udp_queue import Datagram, is_for_many, peek_datagrams, write_datagrams
from orchestrator.kinds.sockets.udp_shutdown import SHUTDOWN_HOW, UdpShutdowns
from orchestrator.tape.build import Tape

_OVERHEAD = 4096  # more than the bookkeeping of a datagram
_UDP_ENCAP = 100
_ESP_IN_UDP = (2).to_bytes(4, "little")
_DEVICE = (SOL_SOCKET, socket.SO_BINDTODEVICE)


class UdpSocket(Record, frozen=True, tag="udp-socket"):
    """A UDP socket, bound and connected or not."""

    ino: int
    family: int
    protocol: int
    """IPPROTO_UDP or IPPROTO_UDPLITE."""
    local: InetAddress | None
    remote: InetAddress | None
    options: SocketOptions
    owner: tuple[int, int]
    queue: list[Datagram]
    memberships: tuple[Membership, ...] = ()
    shutdown: int = 0
    """RCV_SHUTDOWN | SEND_SHUTDOWN."""

    @property
    def bound(self) -> Bound | None:
        if self.local is None:
            return None
        connected = self.remote is not None
        return Bound(self.family, self.protocol, self.local, self.options, connected=connected, owner=self.owner)


def _recognise(view: FdView) -> bool:
    if not is_socket(view, socket.AF_INET, socket.AF_INET6):
        return False
    sock = view.sock
    protocol = sock.getsockopt(SOL_SOCKET, socket.SO_PROTOCOL)
    return (
        protocol in (socket.IPPROTO_UDP, socket.IPPROTO_UDPLITE)
        and sock.getsockopt(SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_DGRAM  # raw ones may have any protocol
    )


def capture_udp(view: FdView, scope: Scope) -> UdpSocket | None:
    """Record a UDP socket of a held process."""
    return record_or_note(view, scope, "a UDP socket", _capture)


def _capture(view: FdView, scope: Scope, sock: socket.socket) -> UdpSocket:
    family = sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN)
    ready = poll_now(sock.fileno(), select.POLLIN | select.POLLRDHUP)
    if ready & select.POLLERR:
        raise Refused("an error waits in it to be reported")
    if unsent_bytes(sock.fileno()):
        raise Refused("data in it waits to be sent with what follows (UDP_CORK, MSG_MORE), or is just being sent")
    if read_option(sock, SOL_UDP, _UDP_ENCAP, 4) not in (None, bytes(4), _ESP_IN_UDP):
        raise Refused("the kernel takes what comes in for itself (UDP_ENCAP)")
    queue = peek_datagrams(sock) if ready & select.POLLIN else []
    local = own_address(sock)
    hosts = {datagram.destination for datagram in queue} | ({local.plain} if queue and local else set())
    if any(is_for_many(host) for host in hosts if host):
        raise Refused("datagrams wait in it that were sent to many (multicast, broadcast)", "try again")
    return UdpSocket(
        view.stat.st_ino,
        family,
        sock.getsockopt(SOL_SOCKET, socket.SO_PROTOCOL),
        note_freedom(view.pid, family, local),
        remote_address(sock),
        capture_options(sock, SOL_IP, SOL_UDP, *([SOL_IPV6] if family == socket.AF_INET6 else [])),
        (view.stat.st_uid, view.stat.st_gid),
        queue,
        JoinedGroups.of(scope, view.pid).of_socket(sock, family),
        UdpShutdowns.of(scope, view.pid).of_socket(view.stat.st_ino, ready),
    )


def rebuild_udp(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that leave the socket at its standing number."""
    body: UdpSocket = file.body
    tape = depot.tape
    tape.socket(body.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, body.protocol)
    write_options(tape, 0, body.options, skip=[_DEVICE] if body.queue else [], filtering=not body.queue)
    write_buffers(tape, 0, body.options)
    if body.owner != (0, 0):
        tape.fchown(0, *body.owner)  # ports are shared by sockets of one owner
    if body.bound is not None:
        write_bind(depot, file.id, body.bound)
    if not _came_before(body):
        _connect(tape, 0, body)
    join(tape, 0, body.memberships)
    depot.keep(0, depot.slot(file.id))
    set_status(tape, depot.slot(file.id), file.flags)


def _came_before(body: UdpSocket) -> bool:
    """Whether datagrams wait that came before the socket was connected: it would not take them any more."""
    return body.remote is not None and any(
        (one.source.plain, one.source.port) != (body.remote.plain, body.remote.port) for one in body.queue
    )


def _connect(tape: Tape, fd: int, body: UdpSocket) -> None:
    if body.remote is not None:
        name = body.remote.pack(body.family)
        tape.connect(fd, name, len(name))


def connect_udp(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that put back what waited; it gets there by its source, so others must be in place."""
    body: UdpSocket = file.body
    tape, fd = depot.tape, depot.slot(file.id)
    if body.bound is not None:
        return_lent(depot, file.id, body.bound)
    if body.queue and body.local is not None:
        size = sum(2 * len(datagram.data) + _OVERHEAD for datagram in body.queue)
        set_int(tape, fd, SOL_SOCKET, SO_RCVBUFFORCE, max(size, body.options.receive_buffer // 2))
        with dealt_to(depot, file.id):
            write_datagrams(tape, body.queue, body.local, body.protocol)
        write_buffers(tape, fd, body.options)
        for option in body.options.others:
            if option.at == _DEVICE:  # what waited came by another interface
                tape.setsockopt(fd, *_DEVICE, option.value, len(option.value))
        write_filtering(tape, fd, body.options)
    if _came_before(body):
        _connect(tape, fd, body)
    if body.shutdown:  # that of a socket which is not connected fails, and works
        tape.shutdown(fd, SHUTDOWN_HOW[body.shutdown], may_fail=True)


def finish_udp(file: OpenFile, fd: int, _objects: list[Any], _depot: HostPid) -> None:
    """See that all that waited waits again. Raises RebuildFailed."""
    body: UdpSocket = file.body
    if body.queue:
        with borrow(fd) as sock:
            found = peek_datagrams(sock)
        if [one.data for one in found][: len(body.queue)] != [one.data for one in body.queue]:
            raise RebuildFailed(f"the datagrams that waited at {body.local} did not all arrive there again")


def check_udp(file: OpenFile) -> None:
    """Raise ResourceTaken if the port is not free."""
    body: UdpSocket = file.body
    if body.local is not None:
        options = [(option.level, option.number, option.value) for option in body.options.others]
        check_port(body.family, socket.SOCK_DGRAM, body.local, options, listens=False)
    check_interfaces(body.memberships)


UDP = FileKind(
    "UDP socket",
    UdpSocket,
    _recognise,
    capture_udp,
    rebuild_udp,
    connect=connect_udp,
    check=check_udp,
    finish=finish_udp,
    links="socket:",
)
