"""Packet sockets. See packet(7), PACKET_DIAG in linux/packet_diag.h."""

from __future__ import annotations

import select
import socket
import struct
from functools import partial

from orchestrator.errors import CannotHonour
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.borrow import is_socket, poll_now
from orchestrator.kinds.sockets.dropped import DROPPED_HINT, MAY_DROP
from orchestrator.kinds.sockets.holders import in_net_namespace
from orchestrator.kinds.sockets.option_table import SOL_PACKET, SOL_SOCKET
from orchestrator.kinds.sockets.options import (
    SocketOptions,
    capture_options,
    set_int,
    write_dress,
    write_filter,
    write_filtering,
)
from orchestrator.kinds.sockets.packet_ring import PacketRing, capture_rings, write_rings
from orchestrator.kinds.sockets.refused import Refused, record_or_note
from orchestrator.linux.sockdiag import PacketDiag, packet_sockets

_PACKET_ADD_MEMBERSHIP, _PACKET_FANOUT = 1, 18
_FANOUT_CBPF, _FANOUT_EBPF = 6, 7
_FANOUT_UNIQUE = 0x2000
_sockaddr_ll = struct.Struct("=HHiHBB8s")
_SOCK_PACKET = 10
_SO_DETACH_FILTER = 27
_PACKET_VERSION = (SOL_PACKET, 10)
_TPACKET_V3 = struct.pack("=i", 2)
_NOTHING = struct.pack("=HBBI", 6, 0, 0, 0)  # BPF_RET | BPF_K: takes no byte of any packet
_sockaddr_pkt = struct.Struct("=H14s")
_packet_mreq = struct.Struct("=iHH8s")
assert _sockaddr_ll.size == 20


class PacketMembership(Record, frozen=True, array_like=True):
    """PACKET_ADD_MEMBERSHIP: what an interface is to hear."""

    interface: int
    count: int
    type: int
    address: bytes


class PacketSocket(Record, frozen=True, tag="packet-socket"):
    """A packet socket with nothing to receive."""

    ino: int
    style: int
    """SOCK_RAW, SOCK_DGRAM, or the old SOCK_PACKET."""
    protocol: int
    """ETH_P_*, in host order; 0: it hears nothing."""
    interface: int
    """Index; 0: all."""
    name: str
    """Of the interface."""
    memberships: list[PacketMembership]
    fanout: int
    """What PACKET_FANOUT is given; -1 for a socket in no group."""
    options: SocketOptions
    owner: tuple[int, int]
    rings: tuple[PacketRing, ...] = ()


def _recognise(view: FdView) -> bool:
    return is_socket(view, socket.AF_PACKET)


def capture_packet(view: FdView, scope: Scope) -> PacketSocket | None:
    """Record a packet socket of a held process."""
    return record_or_note(view, scope, "a packet socket", _capture)


def _capture(view: FdView, scope: Scope, sock: socket.socket) -> PacketSocket:
    style = sock.getsockopt(SOL_SOCKET, socket.SO_TYPE)
    diag = in_net_namespace(view.pid, packet_sockets).get(view.stat.st_ino)
    if diag is None:
        raise Refused("it belongs to another network namespace than the job's")
    _judge(diag, poll_now(sock.fileno(), select.POLLIN), MAY_DROP in scope.externals)
    name = in_net_namespace(view.pid, partial(_name_of, diag.interface))
    return PacketSocket(
        view.stat.st_ino,
        style,
        diag.protocol,
        diag.interface,
        name,
        [PacketMembership(*one) for one in diag.memberships],
        diag.fanout,
        capture_options(sock, SOL_PACKET),
        (view.stat.st_uid, view.stat.st_gid),
        capture_rings(sock, diag),
    )


def _name_of(interface: int) -> str:
    try:
        return socket.if_indextoname(interface) if interface else ""
    except OSError:  # it is gone
        return ""


def _judge(diag: PacketDiag, ready: int, may_drop: bool) -> None:
    if diag.fanout >= 0 and diag.fanout >> 16 & 0xFF in (_FANOUT_CBPF, _FANOUT_EBPF):
        raise Refused("a BPF program shares out what its group (PACKET_FANOUT) receives, and cannot be read back")
    if ready & select.POLLERR:
        raise Refused("an error waits in it to be reported")
    if ready & select.POLLIN and not may_drop:
        raise Refused("packets wait in it that were not received yet", DROPPED_HINT)


def rebuild_packet(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that leave the socket at its standing number."""
    body: PacketSocket = file.body
    tape = depot.tape
    old = body.style == _SOCK_PACKET
    # Only here such a socket can be told what to hear. It is let hear nothing until all is there.
    tape.socket(socket.AF_PACKET, body.style | socket.SOCK_CLOEXEC, socket.htons(body.protocol) if old else 0)
    if old:
        write_filter(tape, 0, _NOTHING)
    write_dress(tape, 0, body.options, body.owner, filtering=not old)
    write_rings(tape, 0, body.rings, in_blocks=_in_blocks(body))
    for one in body.memberships:
        for _ in range(one.count):
            request = _packet_mreq.pack(one.interface, one.type, len(one.address), one.address)
            tape.setsockopt(0, SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request, len(request))
    set_status(tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


def _in_blocks(body: PacketSocket) -> bool:
    return any(one.at == _PACKET_VERSION and one.value == _TPACKET_V3 for one in body.options.others)


def connect_packet(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that let it hear, late: it hears what others do."""
    body: PacketSocket = file.body
    tape, fd = depot.tape, depot.slot(file.id)
    if body.style == _SOCK_PACKET:
        if body.interface:
            name = _sockaddr_pkt.pack(socket.AF_PACKET, body.name.encode())
            tape.bind(fd, name, len(name))
        set_int(tape, fd, SOL_SOCKET, _SO_DETACH_FILTER, 0)
        write_filtering(tape, fd, body.options)
    elif body.protocol or body.interface:
        name = _sockaddr_ll.pack(socket.AF_PACKET, socket.htons(body.protocol), body.interface, 0, 0, 0, b"")
        tape.bind(fd, name, len(name))
    if body.fanout >= 0:
        set_int(tape, fd, SOL_PACKET, _PACKET_FANOUT, body.fanout & ~(_FANOUT_UNIQUE << 16))


def check_packet(file: OpenFile) -> None:
    """Raise CannotHonour if an interface is not here by the number that it had."""
    body: PacketSocket = file.body
    if not body.interface:
        return
    try:
        name = socket.if_indextoname(body.interface)
    except OSError:
        name = ""
    if name != body.name:
        raise CannotHonour(
            f"a packet socket is bound to interface {body.interface} ({body.name}), which this machine "
            f"{'calls ' + name if name else 'does not have'}",
            hint="restore where the interfaces are the same",
        )


PACKET = FileKind(
    "packet socket",
    PacketSocket,
    _recognise,
    capture_packet,
    rebuild_packet,
    connect=connect_packet,
    check=check_packet,
    order=2,  # all others are there before it hears what they say,
    links="socket:",
)
