"""Tell a restored connection once more what its other end has said already and will not repeat.

That it has ended, or that a byte is urgent: neither can be written into a socket.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from orchestrator.kinds.sockets.inet_address import InetAddress
from orchestrator.kinds.sockets.tcp_repair import TcpState
from orchestrator.kinds.sockets.udp_queue import checksum
from orchestrator.tape.build import Tape

_iphdr = struct.Struct("!BBHHHBBH4s4s")
_ipv6hdr = struct.Struct("!IHBB16s16s")
_tcphdr = struct.Struct("!HHIIBBHHH")
assert _tcphdr.size == 20
_FIN_ACK = 0x11
_URG = 0x20
_URG_ACK = 0x30
_HOPS = 64
_MOST_WINDOW = 0xFFFF


def end_of_stream(local: InetAddress, remote: InetAddress, state: TcpState) -> None:
    """Send, over loopback, the packet by which the other end has closed its direction."""
    content = packet(local, remote, state, len(state.receive_queue), _FIN_ACK, b"")
    family = socket.AF_INET6 if ":" in local.plain else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as raw:
        raw.sendto(content, (local.plain, 0) if family == socket.AF_INET else (local.plain, 0, 0, local.scope_id))


def write_urgent(tape: Tape, local: InetAddress, remote: InetAddress, state: TcpState) -> None:
    """Let the depot send the urgent byte once more, over loopback."""
    byte = state.receive_queue[state.urgent : state.urgent + 1]
    content = packet(local, remote, state, state.urgent, _URG_ACK, byte)
    family = socket.AF_INET6 if ":" in local.plain else socket.AF_INET
    tape.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
    to = InetAddress(local.plain, 0, 0, local.scope_id).pack(family)
    tape.sendto(0, content, len(content), 0, to, len(to))
    tape.close(0)


def packet(local: InetAddress, remote: InetAddress, state: TcpState, behind: int, flags: int, data: bytes) -> bytes:
    """Return a whole packet, headers included, that comes ``behind`` bytes behind the start of the receive queue."""
    source, target = (ipaddress.ip_address(end.plain).packed for end in (remote, local))
    sequence = state.receive_seq + behind & 0xFFFFFFFF
    window = min(state.window.snd_wnd >> max(state.send_scale, 0), _MOST_WINDOW)
    ends = remote.port, local.port, sequence, state.send_seq, _tcphdr.size // 4 << 4, flags, window
    six = len(source) == 16
    size = _tcphdr.size + len(data)
    urgent = len(data) if flags & _URG else 0
    pseudo = source + target + struct.pack("!II" if six else "!HH", *_protocol_and_size(size, six=six))
    sum_ = checksum(pseudo + _tcphdr.pack(*ends, 0, urgent) + data)
    segment = _tcphdr.pack(*ends, sum_, urgent) + data
    if six:
        return _ipv6hdr.pack(6 << 28, size, socket.IPPROTO_TCP, _HOPS, source, target) + segment
    # The kernel fills in the length and the header's checksum.
    return _iphdr.pack(0x45, 0, 0, 0, 0, _HOPS, socket.IPPROTO_TCP, 0, source, target) + segment


def _protocol_and_size(size: int, *, six: bool) -> tuple[int, int]:
    """Return the end of the pseudo header: the order of its two numbers makes no difference to a sum."""
    return (size, socket.IPPROTO_TCP) if six else (socket.IPPROTO_TCP, size)
