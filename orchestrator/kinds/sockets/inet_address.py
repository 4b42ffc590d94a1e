"""Internet addresses as bind(2) and connect(2) take them. See ip(7), ipv6(7)."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct

from orchestrator.errors import CannotHonour, ResourceTaken
from orchestrator.kinds.record import Record
from orchestrator.kinds.sockets.holders import socket_holders
from orchestrator.kinds.sockets.option_table import SOL_IP, SOL_IPV6, SOL_SOCKET
from orchestrator.linux import sockdiag

_sockaddr_in = struct.Struct("=H2s4s8x")
_sockaddr_in6 = struct.Struct("=H2sI16sI")
assert _sockaddr_in.size == 16
assert _sockaddr_in6.size == 28
FREEBIND = {socket.AF_INET: (SOL_IP, 15), socket.AF_INET6: (SOL_IPV6, 78)}
"""IP_FREEBIND, IPV6_FREEBIND."""
_FOR_BIND = (
    *((SOL_SOCKET, number) for number in (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_BINDTODEVICE)),
    *FREEBIND.values(),
    *((SOL_IP, 19), (SOL_IPV6, 75)),  # IP_TRANSPARENT
    (SOL_IPV6, 26),  # IPV6_V6ONLY
)
"""Options on which it depends what can be bound."""
_OVER = (sockdiag.TCP_TIME_WAIT, sockdiag.TCP_FIN_WAIT2, sockdiag.TCP_SYN_RECV)
"""States in which a connection that no process has only waits for time to pass."""
_ENDING = (sockdiag.TCP_FIN_WAIT1, sockdiag.TCP_CLOSING, sockdiag.TCP_LAST_ACK)
"""States in which it waits for its other end, too."""


def plain_host(host: str) -> str:
    """Return an address in its usual form, one of IPv4 that is mapped to IPv6 as IPv4."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class InetAddress(Record, frozen=True, array_like=True):
    """An address and port of AF_INET or AF_INET6."""

    host: str
    port: int
    flowinfo: int = 0
    scope_id: int = 0
    freely: bool = False
    """The machine did not have it: only IP_FREEBIND binds to it."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_any(self) -> bool:
        return self.host in ("0.0.0.0", "::")

    @property
    def plain(self) -> str:
        """The host, an IPv4 address mapped to IPv6 as IPv4."""
        return plain_host(self.host)

    def pack(self, family: int) -> bytes:
        """Encode as the sockaddr of a family."""
        port = self.port.to_bytes(2, "big")
        packed = socket.inet_pton(family, self.host)
        if family == socket.AF_INET:
            return _sockaddr_in.pack(family, port, packed)
        return _sockaddr_in6.pack(family, port, socket.htonl(self.flowinfo), packed, self.scope_id)


def parse_address(name: tuple[str, int] | tuple[str, int, int, int]) -> InetAddress:
    """Interpret what getsockname returned."""
    host, port, *rest = name
    flowinfo, scope_id = rest or (0, 0)
    return InetAddress(host.partition("%")[0], port, flowinfo, scope_id)


def own_address(sock: socket.socket) -> InetAddress | None:
    """Return what a socket is bound to, None for nothing."""
    address = parse_address(sock.getsockname())
    return None if address.is_any and not address.port else address


def remote_address(sock: socket.socket) -> InetAddress | None:
    """Return what a socket is connected to, None for nothing."""
    try:
        return parse_address(sock.getpeername())
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return None
        raise


def check_port(
    family: int, style: int, local: InetAddress, options: list[tuple[int, int, bytes]], *, listens: bool
) -> None:
    """Raise ResourceTaken if a socket could not be bound here as it was. Asks in our own network namespace.

    Ends connections at this port that are over and that no process has any more (TIME_WAIT): the job's own, mostly.
    """
    try:
        _try_port(family, style, local, options, listens=listens)
    except OSError as error:
        kind = "TCP" if style == socket.SOCK_STREAM else "UDP"
        if error.errno == errno.EADDRINUSE:
            if style == socket.SOCK_STREAM and _forget_port(local.port):
                check_port(family, style, local, options, listens=listens)
                return
            raise ResourceTaken(
                f"{kind} port {local} is in use{_holder(family, style, local.port)}",
                hint="end that process, or restore into a network namespace of its own (--new net)",
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise ResourceTaken(
                f"{kind} port {local}: this machine does not have the address {local.host}",
                hint="add the address to an interface first",
            ) from error
        raise


def _try_port(
    family: int, style: int, local: InetAddress, options: list[tuple[int, int, bytes]], *, listens: bool
) -> None:
    with socket.socket(family, style | socket.SOCK_CLOEXEC) as probe:
        for level, number, value in options:
            if (level, number) in _FOR_BIND:
                probe.setsockopt(level, number, value)
        if local.freely:
            probe.setsockopt(*FREEBIND[socket.AddressFamily(family)], 1)
        probe.bind((local.host, local.port, local.flowinfo, local.scope_id)[: 2 if family == socket.AF_INET else 4])
        if listens:
            probe.listen(0)


def _forget_port(port: int) -> bool:
    """End what is over at a TCP port and whose end the kernel only waits out; tell whether there was any."""
    found = False
    for family in (socket.AF_INET, socket.AF_INET6):
        for diag in sockdiag.inet_sockets(family, socket.IPPROTO_TCP):
            if diag.sport == port and not diag.ino and diag.state in _OVER[:2]:
                with contextlib.suppress(FileNotFoundError):
                    sockdiag.destroy(family, socket.IPPROTO_TCP, diag)
                    found = True
    return found


def check_host(family: int, local: InetAddress, what: str) -> None:
    """Raise ResourceTaken if this machine lacks an address that ``what`` is bound to."""
    if local.freely:
        return
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((local.host, 0, local.flowinfo, local.scope_id)[: 2 if family == socket.AF_INET else 4])
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            raise ResourceTaken(
                f"{what}: this machine does not have the address {local.host}",
                hint="add the address to an interface first",
            ) from error


def check_connection(family: int, local: InetAddress, remote: InetAddress, *, one_end: bool = False) -> None:
    """Raise ResourceTaken if this machine lacks the address of our end, or the connection is there already.

    ``one_end``: the other end lives on, outside of the job, and perhaps on this very machine.
    Ends what is over (TIME_WAIT) of the same connection: the job's own, mostly.
    """
    what = f"the TCP connection {local} to {remote}"
    check_host(family, local, what)
    for source, target in ((local, remote),) if one_end else ((local, remote), (remote, local)):
        ends = (source.plain, source.port), (target.plain, target.port)
        searched = socket.AF_INET6 if ":" in source.plain else socket.AF_INET
        found = sockdiag.find_inet(searched, socket.IPPROTO_TCP, *ends)
        if found is None:
            continue
        if not found.ino and (found.state in _OVER or (found.state in _ENDING and not one_end)):
            with contextlib.suppress(FileNotFoundError):
                sockdiag.destroy(searched, socket.IPPROTO_TCP, found)
            continue
        holder = next((f" by process {pid} ({name})" for pid, name in socket_holders({found.ino}).values()), "")
        raise ResourceTaken(f"{what} is in use{holder}", hint="end that process first")


def check_route(family: int, local: InetAddress, remote: InetAddress) -> None:
    """Raise CannotHonour if no packet would find its way to the other end of a connection."""
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        size = 2 if family == socket.AF_INET else 4
        try:
            probe.bind((local.host, 0, local.flowinfo, local.scope_id)[:size])
            probe.connect((remote.host, remote.port, remote.flowinfo, remote.scope_id)[:size])
        except OSError as error:
            raise CannotHonour(
                f"the TCP connection {local} to {remote}: there is no way to {remote.host} ({error.strerror})",
                hint="restore the routes first, or do not ask for a new network namespace",
            ) from error


def _holder(family: int, style: int, port: int) -> str:
    protocol = socket.IPPROTO_TCP if style == socket.SOCK_STREAM else socket.IPPROTO_UDP
    for searched in (family, *({socket.AF_INET, socket.AF_INET6} - {family})):
        found = [diag.ino for diag in sockdiag.inet_sockets(searched, protocol) if diag.sport == port and diag.ino]
        for pid, name in socket_holders(found).values():
            return f" by process {pid} ({name})"
    return ""
