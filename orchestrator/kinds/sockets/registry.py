"""The kinds of sockets. The first that recognises a descriptor takes it."""

from __future__ import annotations

from orchestrator.kinds.files.kind import FileKind
from orchestrator.kinds.sockets.netlink import NETLINK, NetlinkSocket
from orchestrator.kinds.sockets.packet import PACKET, PacketSocket
from orchestrator.kinds.sockets.raw import RAW, RawSocket
from orchestrator.kinds.sockets.tcp import TCP, TcpSocket
from orchestrator.kinds.sockets.tcp_client import TCP_CLIENT, TcpClient
from orchestrator.kinds.sockets.tcp_connection import TCP_CONNECTION, TcpConnection
from orchestrator.kinds.sockets.tcp_ended import TCP_ENDED, TcpEnded
from orchestrator.kinds.sockets.udp import UDP, UdpSocket
from orchestrator.kinds.sockets.unix import UNIX_ALONE, UNIX_PAIR
from orchestrator.kinds.sockets.unix_records import UnixAlone, UnixPair, UnixPairEnd, UnixSocket
from orchestrator.kinds.sockets.unknown import UNKNOWN

SOCKET_KINDS: tuple[FileKind, ...] = (
    UNIX_PAIR,
    UNIX_ALONE,
    TCP,
    TCP_CONNECTION,
    TCP_CLIENT,
    TCP_ENDED,
    UDP,
    RAW,
    PACKET,
    NETLINK,
    UNKNOWN,
)

SocketBody = (
    UnixPairEnd
    | UnixAlone
    | TcpSocket
    | TcpConnection
    | TcpClient
    | TcpEnded
    | UdpSocket
    | RawSocket
    | PacketSocket
    | NetlinkSocket
)
"""What OpenFile.body may be."""

SocketObject = UnixPair | UnixSocket
"""What an image's shared objects may be."""


def claims_in(body: object) -> str:
    """Return the kind of namespace in which a socket needs a name or port to be free, empty for none.

    Where a restored job has that namespace for itself, our own tells nothing, and ``check`` must not be asked.
    """
    if isinstance(body, UnixAlone):
        return "" if body.claims is None else "mnt" if body.claims.where is not None else "net"
    if isinstance(body, TcpSocket | TcpConnection | TcpClient | UdpSocket | RawSocket | PacketSocket | NetlinkSocket):
        return "net"
    return ""
