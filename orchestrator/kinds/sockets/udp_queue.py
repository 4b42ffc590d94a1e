"""Datagrams that wait in a UDP socket: looked at without taking them, and put there again.

They are sent again through a raw socket over loopback, because only so can they come from where they
came from, be that another machine or a port that somebody else has by now.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Sequence

from orchestrator.kinds.record import Record
from orchestrator.kinds.sockets.inet_address import InetAddress, parse_address
from orchestrator.kinds.sockets.option_table import SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP
from orchestrator.kinds.sockets.options import SO_SNDBUFFORCE, set_int
from orchestrator.tape.build import Tape

_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_TRUNC
_SO_PEEK_OFF = 42
_IP_PKTINFO = 8
_IPV6_PKTINFO = 50
_UDP_GRO = 104
_LARGEST = 1 << 16
_CONTROL = 4096
_in_pktinfo = struct.Struct("=i4s4s")
_in6_pktinfo = struct.Struct("=16si")
_iphdr = struct.Struct("!BBHHHBBH4s4s")
_ipv6hdr = struct.Struct("!IHBB16s16s")
_udphdr = struct.Struct("!HHHH")
assert _iphdr.size == 20
assert _ipv6hdr.size == 40
_HOPS = 64
_SLACK = 1 << 20


class Datagram(Record, frozen=True, array_like=True):
    """A datagram that was received and not read."""

    data: bytes
    source: InetAddress
    destination: str
    """The address it was sent to, empty where the socket does not ask for it."""


def peek_datagrams(sock: socket.socket) -> list[Datagram]:
    """Return all that wait."""
    before = sock.getsockopt(SOL_SOCKET, _SO_PEEK_OFF)
    sock.setsockopt(SOL_SOCKET, _SO_PEEK_OFF, 0)
    found: list[Datagram] = []
    buffer = bytearray(_LARGEST)
    try:
        while True:
            try:
                size, ancillary, _, source = sock.recvmsg_into([buffer], _CONTROL, _PEEK)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return found
                raise
            destination, segment = _parse(ancillary)
            step = segment or size or 1
            for start in range(0, size or 1, step):
                data = bytes(buffer[start : min(start + step, size)])
                found.append(Datagram(data, parse_address(source), destination))
    finally:
        sock.setsockopt(SOL_SOCKET, _SO_PEEK_OFF, before)


def _parse(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[str, int]:
    """Return the destination, and the size of the datagrams that were received as one (0: it is one)."""
    destination, segment = "", 0
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_IP, _IP_PKTINFO):
            destination = socket.inet_ntop(socket.AF_INET, _in_pktinfo.unpack_from(data)[2])
        elif (level, kind) == (SOL_IPV6, _IPV6_PKTINFO):
            destination = socket.inet_ntop(socket.AF_INET6, _in6_pktinfo.unpack_from(data)[0])
        elif (level, kind) == (SOL_UDP, _UDP_GRO):
            segment = int.from_bytes(data, "little")
    return destination, segment


def is_for_many(host: str) -> bool:
    """Whether a datagram to an address reaches more than one socket."""
    address = _plain(host)
    return address.is_multicast or host == "255.255.255.255"


def packet(datagram: Datagram, local: InetAddress, protocol: int = socket.IPPROTO_UDP) -> tuple[int, bytes, str]:
    """Return the family, the whole packet and the destination of a datagram for a socket bound to ``local``."""
    source = _plain(datagram.source.host)
    target = _plain(datagram.destination or local.host)
    if target.is_unspecified or target.version != source.version:
        target = ipaddress.ip_address("127.0.0.1" if source.version == 4 else "::1")
    size = _udphdr.size + len(datagram.data)
    ports = datagram.source.port, local.port, 0 if protocol == socket.IPPROTO_UDPLITE else size
    pseudo = source.packed + target.packed + struct.pack("!II", size, protocol)
    bare = source.version == 4 and protocol == socket.IPPROTO_UDP  # which may go without a checksum
    sum_ = 0 if bare else checksum(pseudo + _udphdr.pack(*ports, 0) + datagram.data)
    segment = _udphdr.pack(*ports, sum_) + datagram.data
    if source.version == 4:
        # The kernel fills in the length and the header's checksum.
        header = _iphdr.pack(0x45, 0, 0, 0, 0, _HOPS, protocol, 0, source.packed, target.packed)
        return socket.AF_INET, header + segment, str(target)
    header = _ipv6hdr.pack(6 << 28, size, protocol, _HOPS, source.packed, target.packed)
    return socket.AF_INET6, header + segment, str(target)


def checksum(content: bytes) -> int:
    """Return the Internet checksum as UDP writes it: never 0."""
    padded = content + bytes(len(content) & 1)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def write_datagrams(tape: Tape, datagrams: Sequence[Datagram], local: InetAddress, protocol: int) -> None:
    """Send datagrams again to a socket that is bound to ``local``."""
    for datagram in datagrams:
        family, content, target = packet(datagram, local, protocol)
        tape.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
        set_int(tape, 0, SOL_SOCKET, SO_SNDBUFFORCE, _SLACK)
        to = InetAddress(target, 0, 0, datagram.source.scope_id).pack(family)
        tape.sendto(0, content, len(content), 0, to, len(to))
        tape.close(0)
