"""Netlink sockets that only ask and listen. See netlink(7)."""

from __future__ import annotations

import errno
import select
import socket
import struct

from orchestrator.errors import ResourceTaken
from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.borrow import is_socket, poll_now
from orchestrator.kinds.sockets.census import external_hint
from orchestrator.kinds.sockets.dropped import DROPPED_HINT, MAY_DROP
from orchestrator.kinds.sockets.option_table import SOL_NETLINK, SOL_SOCKET
from orchestrator.kinds.sockets.options import SocketOptions, capture_options, set_int, write_dress
from orchestrator.kinds.sockets.refused import Refused, record_or_note
from orchestrator.linux.procfs import read_file

_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_LIST_MEMBERSHIPS = 9
_MOST_GROUPS_BYTES = 1024
_NETFILTER = 12
_PROTOCOLS = {
    0: "ROUTE",
    2: "USERSOCK",
    4: "SOCK_DIAG",
    6: "XFRM",
    7: "SELINUX",
    10: "FIB_LOOKUP",
    12: "NETFILTER",
    15: "KOBJECT_UEVENT",
    16: "GENERIC",
    18: "SCSITRANSPORT",
    20: "RDMA",
    21: "CRYPTO",
}
"""Those in which the kernel keeps nothing for a socket but its groups."""
_sockaddr_nl = struct.Struct("=HxxII")
assert _sockaddr_nl.size == 12


class NetlinkSocket(Record, frozen=True, tag="netlink-socket"):
    """A netlink socket with nothing to receive."""

    ino: int
    style: int
    protocol: int
    port: int
    """Its own address; 0: not bound."""
    groups: list[int]
    """The multicast groups that it is in, from 1 on."""
    target: tuple[int, int]
    """Port and mask of groups that it sends to; zeros: the kernel."""
    options: SocketOptions
    owner: tuple[int, int]


def _recognise(view: FdView) -> bool:
    return is_socket(view, socket.AF_NETLINK)


def capture_netlink(view: FdView, scope: Scope) -> NetlinkSocket | None:
    """Record a netlink socket of a held process."""
    return record_or_note(view, scope, "a netlink socket", _capture, external_hint(view.stat.st_ino))


def _capture(view: FdView, scope: Scope, sock: socket.socket) -> NetlinkSocket:
    protocol = sock.getsockopt(SOL_SOCKET, socket.SO_PROTOCOL)
    if protocol not in _PROTOCOLS:
        raise Refused(f"what the kernel keeps for protocol {protocol} cannot be read")
    ready = poll_now(sock.fileno(), select.POLLIN)
    if ready & select.POLLERR:
        raise Refused("an error waits in it to be reported")
    if ready & select.POLLIN and MAY_DROP not in scope.externals:
        raise Refused("messages wait in it that were not received yet", DROPPED_HINT)
    port = sock.getsockname()[0]
    if protocol == _NETFILTER:
        for queue in ("nfnetlink_queue", "nfnetlink_log"):
            if port in _ports_of(view.pid, queue):
                raise Refused(f"the packet filter sends it packets ({queue})")
    mask = sock.getsockopt(SOL_NETLINK, _NETLINK_LIST_MEMBERSHIPS, _MOST_GROUPS_BYTES)
    return NetlinkSocket(
        view.stat.st_ino,
        sock.getsockopt(SOL_SOCKET, socket.SO_TYPE),
        protocol,
        sock.getsockname()[0],
        parse_groups(mask),
        sock.getpeername(),
        capture_options(sock, SOL_NETLINK),
        (view.stat.st_uid, view.stat.st_gid),
    )


def _ports_of(pid: HostPid, table: str) -> set[int]:
    """Return the ports of the sockets that have bound a queue or log of the packet filter."""
    try:
        lines = read_file(f"/proc/{pid}/net/netfilter/{table}").decode().splitlines()
    except FileNotFoundError:
        return set()
    return {int(line.split()[1]) for line in lines}


def parse_groups(mask: bytes) -> list[int]:
    """Return the numbers of the bits that are set, the first being 1."""
    bits = int.from_bytes(mask, "little")
    return [number + 1 for number in range(bits.bit_length()) if bits >> number & 1]


def rebuild_netlink(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that leave the socket at its standing number."""
    body: NetlinkSocket = file.body
    tape = depot.tape
    tape.socket(socket.AF_NETLINK, body.style | socket.SOCK_CLOEXEC, body.protocol)
    if body.port:
        tape.bind(0, _sockaddr_nl.pack(socket.AF_NETLINK, body.port, 0), _sockaddr_nl.size)
    if body.target != (0, 0):
        tape.connect(0, _sockaddr_nl.pack(socket.AF_NETLINK, *body.target), _sockaddr_nl.size)
    for group in body.groups:
        set_int(tape, 0, SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    write_dress(tape, 0, body.options, body.owner)
    set_status(tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


def check_netlink(file: OpenFile) -> None:
    """Raise ResourceTaken if the port is not free."""
    body: NetlinkSocket = file.body
    if not body.port:
        return
    with socket.socket(socket.AF_NETLINK, body.style | socket.SOCK_CLOEXEC, body.protocol) as probe:
        try:
            probe.bind((body.port, 0))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise ResourceTaken(
                f"netlink port {body.port} of protocol {_PROTOCOLS.get(body.protocol, body.protocol)} is in use",
                hint="restore into a network namespace of its own (--new net)",
            ) from error


NETLINK = FileKind(
    "netlink socket", NetlinkSocket, _recognise, capture_netlink, rebuild_netlink, check=check_netlink, links="socket:"
)
