"""Raw sockets of IPv4 and IPv6, and those that send echo requests (ping). See raw(7), icmp(7)."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Mapping
from functools import partial

from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.borrow import is_socket, poll_now
from orchestrator.kinds.sockets.dropped import DROPPED_HINT, MAY_DROP
from orchestrator.kinds.sockets.holders import in_net_namespace
from orchestrator.kinds.sockets.inet_address import InetAddress, check_host, parse_address
from orchestrator.kinds.sockets.inet_bind import Bound, note_freedom, write_bind
from orchestrator.kinds.sockets.memberships import JoinedGroups, Membership, check_interfaces, join
from orchestrator.kinds.sockets.option_table import SOL_ICMPV6, SOL_IP, SOL_IPV6, SOL_RAW, SOL_SOCKET
from orchestrator.kinds.sockets.options import SocketOptions, capture_options, read_option, write_buffers, write_options
from orchestrator.kinds.sockets.refused import Refused, record_or_note
from orchestrator.kinds.sockets.unix_creator import acting_as
from orchestrator.kinds.sockets.unix_queue import Credentials
from orchestrator.linux.procfs import read_file

_PING = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
_FRESH = {(SOL_SOCKET, socket.SO_REUSEADDR): struct.pack("=i", 1)}
"""What no other fresh socket has."""
_FRESH_UNFRAMED = {**_FRESH, (SOL_IP, 3): struct.pack("=i", 1), (SOL_IPV6, 36): struct.pack("=i", 1)}
"""Likewise, of IPPROTO_RAW: IP_HDRINCL, IPV6_HDRINCL."""
_FRESH_ICMPV6 = {**_FRESH, (SOL_RAW, 7): struct.pack("=i", 2)}
"""Likewise, of ICMPv6: IPV6_CHECKSUM, which cannot be set."""
_IPV6_ROUTER_ALERT = 22
_ROUTES_4 = "/proc/sys/net/ipv4/conf/all/mc_forwarding"
_ROUTES_6 = "/proc/sys/net/ipv6/conf/all/mc_forwarding"
_ESTABLISHED = "01"


class RawSocket(Record, frozen=True, tag="raw-socket"):
    """A raw or ping socket with nothing to receive."""

    ino: int
    family: int
    style: int
    """SOCK_RAW, or SOCK_DGRAM for ping."""
    protocol: int
    local: InetAddress | None
    """The port is the identifier of a ping socket."""
    remote: InetAddress | None
    options: SocketOptions
    memberships: tuple[Membership, ...]
    owner: tuple[int, int]


def _recognise(view: FdView) -> bool:
    if not is_socket(view, socket.AF_INET, socket.AF_INET6):
        return False
    sock = view.sock
    style = sock.getsockopt(SOL_SOCKET, socket.SO_TYPE)
    return style == socket.SOCK_RAW or (
        style == socket.SOCK_DGRAM and sock.getsockopt(SOL_SOCKET, socket.SO_PROTOCOL) in _PING
    )


def capture_raw(view: FdView, scope: Scope) -> RawSocket | None:
    """Record a raw socket of a held process."""
    return record_or_note(view, scope, "a raw socket", _capture)


def _capture(view: FdView, scope: Scope, sock: socket.socket) -> RawSocket:
    ready = poll_now(sock.fileno(), select.POLLIN | select.POLLRDHUP)
    if ready & select.POLLERR:
        raise Refused("an error waits in it to be reported")
    if ready & select.POLLRDHUP:
        raise Refused("it was shut down")
    if ready & select.POLLIN and MAY_DROP not in scope.externals:
        raise Refused("packets wait in it that were not received yet", DROPPED_HINT)
    family = sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN)
    style = sock.getsockopt(SOL_SOCKET, socket.SO_TYPE)
    protocol = sock.getsockopt(SOL_SOCKET, socket.SO_PROTOCOL)
    _judge(view.pid, sock, protocol)
    local = parse_address(sock.getsockname())
    if style == socket.SOCK_RAW:
        local = InetAddress(local.host, 0, local.flowinfo, local.scope_id)
    levels = (SOL_IP, SOL_RAW) if family == socket.AF_INET else (SOL_IP, SOL_IPV6, SOL_ICMPV6, SOL_RAW)
    return RawSocket(
        view.stat.st_ino,
        family,
        style,
        protocol,
        None if local.is_any and not local.port else note_freedom(view.pid, family, local),
        _remote(view.pid, view.stat.st_ino, family, style, local.scope_id),
        capture_options(sock, *levels, fresh=_fresh(style, protocol)),
        JoinedGroups.of(scope, view.pid).of_socket(sock, family),
        (view.stat.st_uid, view.stat.st_gid),
    )


def _judge(pid: HostPid, sock: socket.socket, protocol: int) -> None:
    if protocol == socket.IPPROTO_RAW and any(read_option(sock, SOL_IPV6, _IPV6_ROUTER_ALERT, 4) or b""):
        raise Refused("what it is alerted of (IPV6_ROUTER_ALERT) cannot be read")
    sysctl = {socket.IPPROTO_IGMP: _ROUTES_4, socket.IPPROTO_ICMPV6: _ROUTES_6}.get(protocol)
    if sysctl is not None and sock.getsockopt(SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_RAW:
        try:
            routes = in_net_namespace(pid, partial(read_file, sysctl))
        except FileNotFoundError:
            return
        if routes.strip() != b"0":
            raise Refused("multicast is routed here, and it may be the socket that does so (MRT_INIT, MRT6_INIT)")


def _fresh(style: int, protocol: int) -> Mapping[tuple[int, int], bytes] | None:
    if style != socket.SOCK_RAW:
        return None
    return {socket.IPPROTO_RAW: _FRESH_UNFRAMED, socket.IPPROTO_ICMPV6: _FRESH_ICMPV6}.get(protocol, _FRESH)


def _remote(pid: HostPid, ino: int, family: int, style: int, scope_id: int) -> InetAddress | None:
    """Return where a socket is connected to. getpeername(2) does not tell without a port."""
    table = ("raw" if style == socket.SOCK_RAW else "icmp") + ("" if family == socket.AF_INET else "6")
    for line in read_file(f"/proc/{pid}/net/{table}").decode().splitlines()[1:]:
        words = line.split()
        if words[9] == str(ino) and words[3] == _ESTABLISHED:
            host, _, port = words[2].partition(":")
            packed = b"".join(struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8))
            return InetAddress(socket.inet_ntop(family, packed), int(port, 16), 0, scope_id)
    return None


def rebuild_raw(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that leave the socket at its standing number."""
    body: RawSocket = file.body
    tape = depot.tape
    # Who may ping depends on the group (net.ipv4.ping_group_range).
    maker = Credentials(0, *body.owner) if body.style == socket.SOCK_DGRAM else None
    with acting_as(tape, maker):
        tape.socket(body.family, body.style | socket.SOCK_CLOEXEC, body.protocol)
    write_options(tape, 0, body.options)
    write_buffers(tape, 0, body.options)
    if body.local is not None:
        write_bind(depot, file.id, Bound(body.family, body.protocol, body.local, body.options))
    if body.remote is not None:
        name = body.remote.pack(body.family)
        tape.connect(0, name, len(name))
    join(tape, 0, body.memberships)
    if body.owner != (0, 0):
        tape.fchown(0, *body.owner)
    set_status(tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


def check_raw(file: OpenFile) -> None:
    """Raise ResourceTaken if this machine lacks the address, CannotHonour for an interface."""
    body: RawSocket = file.body
    if body.local is not None:
        check_host(body.family, body.local, "a raw socket")
    check_interfaces(body.memberships)


RAW = FileKind("raw socket", RawSocket, _recognise, capture_raw, rebuild_raw, check=check_raw, links="socket:")
