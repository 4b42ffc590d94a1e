"""Tell a restored connection once more what its other end has said already and will not repeat: that it has ended."""

from __future__ import annotations

import ipaddress
import socket
import struct

from orchestrator.kinds.sockets.inet_address import InetAddress
from orchestrator.kinds.sockets.tcp_repair import TcpState
from orchestrator.kinds.sockets.udp_queue import checksum

_iphdr = struct.Struct("!BBHHHBBH4s4s")
_ipv6hdr = struct.Struct("!IHBB16s16s")
_tcphdr = struct.Struct("!HHIIBBHHH")
assert _tcphdr.size == 20
_FIN_ACK = 0x11
_HOPS = 64
_MOST_WINDOW = 0xFFFF


def end_of_stream(local: InetAddress, remote: InetAddress, state: TcpState) -> None:
    """Send, over loopback, the packet by which the other end has closed its direction."""
    content = packet(local, remote, state)
    family = socket.AF_INET6 if ":" in local.plain else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as raw:
        raw.sendto(content, (local.plain, 0) if family == socket.AF_INET else (local.plain, 0, 0, local.scope_id))


def packet(local: InetAddress, remote: InetAddress, state: TcpState) -> bytes:
    """Return the whole packet, headers included."""
    source, target = (ipaddress.ip_address(end.plain).packed for end in (remote, local))
    sequence = state.receive_seq + len(state.receive_queue) & 0xFFFFFFFF
    window = min(state.window.snd_wnd >> max(state.send_scale, 0), _MOST_WINDOW)
    ends = remote.port, local.port, sequence, state.send_seq, _tcphdr.size // 4 << 4, _FIN_ACK, window
    six = len(source) == 16
    pseudo = source + target + struct.pack("!II" if six else "!HH", *_protocol_and_size(six=six))
    segment = _tcphdr.pack(*ends, checksum(pseudo + _tcphdr.pack(*ends, 0, 0)), 0)
    if six:
        return _ipv6hdr.pack(6 << 28, len(segment), socket.IPPROTO_TCP, _HOPS, source, target) + segment
    # The kernel fills in the length and the header's checksum.
    return _iphdr.pack(0x45, 0, 0, 0, 0, _HOPS, socket.IPPROTO_TCP, 0, source, target) + segment


def _protocol_and_size(*, six: bool) -> tuple[int, int]:
    """Return the end of the pseudo header: the order of its two numbers makes no difference to a sum."""
    return (_tcphdr.size, socket.IPPROTO_TCP) if six else (socket.IPPROTO_TCP, _tcphdr.size)
