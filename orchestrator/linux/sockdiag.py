"""NETLINK_SOCK_DIAG: the sockets of the caller's network namespace. See sock_diag(7)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NLM_F_ACK = 0x4
_NLM_F_REQUEST = 0x1
_NLM_F_DUMP_INTR = 0x10
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_NLMSG_DONE = 3

_nlmsghdr = struct.Struct("=IHHII")
_nlattr = struct.Struct("=HH")
_unix_diag_req = struct.Struct("=BBHIII8s")
_unix_diag_msg = struct.Struct("=BBBBI8s")
_inet_diag_req_v2 = struct.Struct("=BBBBI48s")
# family, state, timer, retrans; sport, dport, src, dst, if, cookie; expires, rqueue, wqueue, uid, inode
_inet_diag_msg = struct.Struct("=BBBB2s2s16s16sI8sIIIII")
_two_u32 = struct.Struct("=II")
_u32 = struct.Struct("=I")
assert _nlmsghdr.size == 16
assert _unix_diag_req.size == 24
assert _unix_diag_msg.size == 16
assert _inet_diag_req_v2.size == 56
assert _inet_diag_msg.size == 72

_UDIAG_SHOW_ALL = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x40  # name, vfs, peer, icons, rqlen, uid
_UNIX_DIAG_NAME = 0
_UNIX_DIAG_VFS = 1
_UNIX_DIAG_PEER = 2
_UNIX_DIAG_ICONS = 3
_UNIX_DIAG_RQLEN = 4
_UNIX_DIAG_SHUTDOWN = 6
_UNIX_DIAG_UID = 7

_INET_DIAG_INFO = 2
_INET_DIAG_SHUTDOWN = 8
_INET_DIAG_MD5SIG = 18
_SHOW_SHUTDOWN = 1 << _INET_DIAG_SHUTDOWN - 1
_SHOW_INFO = 1 << _INET_DIAG_INFO - 1
_LAST_DATA_SENT_AT = 44  # in struct tcp_info

TCP_ESTABLISHED = 1
TCP_SYN_SENT = 2
TCP_SYN_RECV = 3
TCP_FIN_WAIT1 = 4
TCP_FIN_WAIT2 = 5
TCP_TIME_WAIT = 6
TCP_CLOSE = 7
TCP_CLOSE_WAIT = 8
TCP_LAST_ACK = 9
TCP_LISTEN = 10
TCP_CLOSING = 11
"""States, of Unix sockets too: listening is TCP_LISTEN, connected TCP_ESTABLISHED, else TCP_CLOSE."""

RCV_SHUTDOWN = 1
SEND_SHUTDOWN = 2

_RECEIVE_BYTES = 1 << 18
_ATTEMPTS = 16


class UnixDiag(NamedTuple):
    """One Unix socket.

    ``type`` is SOCK_*. ``state`` says little of a datagram socket: connecting to one makes both
    TCP_ESTABLISHED. ``name`` is the bound address, abstract ones beginning with a zero byte. ``vfs`` is
    (st_dev, inode's low 32 bits) of the file it is bound to. ``icons`` are the inodes of connections not
    yet accepted, 0 for one whose client has closed. In a listening socket ``rqueue`` counts
    connections waiting and ``wqueue`` is the backlog; else bytes.
    """

    type: int
    state: int
    ino: int
    name: bytes | None
    vfs: tuple[int, int] | None
    peer: int | None
    icons: tuple[int, ...]
    rqueue: int
    wqueue: int
    shutdown: int
    uid: int


class InetDiag(NamedTuple):
    """One TCP, UDP or raw socket. ``ino`` is 0 for one that no descriptor holds (e.g. TIME_WAIT)."""

    state: int
    src: str
    sport: int
    dst: str
    dport: int
    ino: int
    uid: int
    rqueue: int
    wqueue: int
    interface: int
    idle_ms: int = 0
    """Milliseconds since it last sent data, or else since it is there; only where ``inet_sockets`` was asked for it."""
    md5_keys: bytes = b""
    """Structs tcp_diag_md5sig, likewise."""


class PacketDiag(NamedTuple):
    """One packet socket. ``memberships`` are (interface, count, type, address); ``fanout`` is -1 without a group.

    ``receiving`` and ``sending`` are structs packet_diag_ring, empty without such a ring.
    """

    ino: int
    protocol: int
    interface: int
    memberships: tuple[tuple[int, int, int, bytes], ...]
    fanout: int
    receiving: bytes
    sending: bytes


class _Interrupted(Exception):
    """The kernel's list changed under the dump."""


def _messages(request: bytes) -> Iterator[memoryview]:
    header = _nlmsghdr.pack(_nlmsghdr.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.sendto(header + request, (0, 0))
        buffer = bytearray(_RECEIVE_BYTES)
        view = memoryview(buffer)
        interrupted = False
        while True:
            size, _, flags, _ = netlink.recvmsg_into([buffer])
            if flags & socket.MSG_TRUNC:
                raise OSError(f"sock_diag: a datagram above {_RECEIVE_BYTES} bytes")
            offset = 0
            while offset < size:
                length, kind, message_flags, _, _ = _nlmsghdr.unpack_from(buffer, offset)
                interrupted |= bool(message_flags & _NLM_F_DUMP_INTR)
                body = view[offset + _nlmsghdr.size : offset + length]
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    number = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if number:
                        raise OSError(number, os.strerror(number))
                    if interrupted:
                        raise _Interrupted
                    return
                yield body
                offset += length + 3 & ~3


def _dump(request: bytes, what: str) -> list[bytes]:
    for _ in range(_ATTEMPTS):
        try:
            return [bytes(body) for body in _messages(request)]
        except _Interrupted:
            continue
        except OSError as error:
            error.add_note(f"sock_diag dump of {what}")
            raise
    raise InterruptedError(f"sock_diag: the {what} changed during each of {_ATTEMPTS} dumps")


def _attributes(body: bytes, offset: int) -> dict[int, bytes]:
    attributes = {}
    while offset + _nlattr.size <= len(body):
        length, kind = _nlattr.unpack_from(body, offset)
        attributes[kind] = body[offset + _nlattr.size : offset + length]
        offset += length + 3 & ~3
    return attributes


def _unix(body: bytes) -> UnixDiag:
    _, kind, state, _, ino, _ = _unix_diag_msg.unpack_from(body)
    attributes = _attributes(body, _unix_diag_msg.size)
    vfs = None
    if raw := attributes.get(_UNIX_DIAG_VFS):
        inode, dev = _two_u32.unpack(raw)
        # The kernel's own dev_t: 20 bits of minor.
        vfs = (os.makedev(dev >> 20, dev & 0xFFFFF), inode)
    raw = attributes.get(_UNIX_DIAG_PEER)
    peer = _u32.unpack(raw)[0] if raw else None
    icons = attributes.get(_UNIX_DIAG_ICONS, b"")
    raw = attributes.get(_UNIX_DIAG_RQLEN)
    rqueue, wqueue = _two_u32.unpack(raw) if raw else (0, 0)
    raw = attributes.get(_UNIX_DIAG_SHUTDOWN)
    shutdown = raw[0] if raw else 0
    raw = attributes.get(_UNIX_DIAG_UID)
    uid = _u32.unpack(raw)[0] if raw else 0
    return UnixDiag(
        kind,
        state,
        ino,
        attributes.get(_UNIX_DIAG_NAME),
        vfs,
        peer,
        struct.unpack(f"={len(icons) // 4}I", icons),
        rqueue,
        wqueue,
        shutdown,
        uid,
    )


def unix_sockets() -> dict[int, UnixDiag]:
    """Dump the Unix sockets by inode."""
    request = _unix_diag_req.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _UDIAG_SHOW_ALL, b"\0" * 8)
    return {diag.ino: diag for diag in map(_unix, _dump(request, "Unix sockets"))}


_packet_diag_req = struct.Struct("=BBHIIII")
_packet_diag_msg = struct.Struct("=BBHIII")
_packet_diag_mclist = struct.Struct("=IIHH32s")
_PACKET_SHOW = 0x01 | 0x02 | 0x04 | 0x08  # info, memberships, rings, fanout
_PACKET_INFO, _PACKET_MCLIST, _PACKET_RX_RING, _PACKET_TX_RING, _PACKET_FANOUT = range(5)
assert _packet_diag_msg.size == 16


def packet_sockets() -> dict[int, PacketDiag]:
    """Dump the packet sockets by inode."""
    request = _packet_diag_req.pack(socket.AF_PACKET, 0, 0, 0, _PACKET_SHOW, 0, 0)
    return {diag.ino: diag for diag in map(_packet, _dump(request, "packet sockets"))}


def _packet(body: bytes) -> PacketDiag:
    _, _, protocol, ino, _, _ = _packet_diag_msg.unpack_from(body)
    attributes = _attributes(body, _packet_diag_msg.size)
    interface = _u32.unpack_from(attributes[_PACKET_INFO])[0] if _PACKET_INFO in attributes else 0
    memberships = tuple(
        (index, count, kind, address[:size])
        for index, count, kind, size, address in _packet_diag_mclist.iter_unpack(attributes.get(_PACKET_MCLIST, b""))
    )
    fanout = attributes.get(_PACKET_FANOUT)
    return PacketDiag(
        ino,
        protocol,
        interface,
        memberships,
        _u32.unpack(fanout)[0] if fanout else -1,
        attributes.get(_PACKET_RX_RING, b""),
        attributes.get(_PACKET_TX_RING, b""),
    )


def _idle_ms(body: bytes) -> int:
    info = _attributes(body, _inet_diag_msg.size).get(_INET_DIAG_INFO, b"")
    return _u32.unpack_from(info, _LAST_DATA_SENT_AT)[0] if len(info) >= _LAST_DATA_SENT_AT + 4 else 0


def inet_sockets(family: int, protocol: int, *, idle: bool = False) -> list[InetDiag]:
    """Dump the sockets of AF_INET or AF_INET6 and one IPPROTO_*. ``idle``: with ``idle_ms``, of TCP.

    A socket that is neither bound nor connected is in no list of the kernel and is not found. OSError
    ENOENT where the kernel has no diag module for the protocol.
    """
    request = _inet_diag_req_v2.pack(family, protocol, _SHOW_INFO if idle else 0, 0, 0xFFFFFFFF, b"\0" * 48)
    bodies = _dump(request, f"family {family} protocol {protocol} sockets")
    return [_inet(family, body, idle=idle) for body in bodies]


def inet_shutdowns(family: int, protocol: int) -> dict[int, int]:
    """Dump which directions are shut down, by the inodes of the sockets."""
    request = _inet_diag_req_v2.pack(family, protocol, _SHOW_SHUTDOWN, 0, 0xFFFFFFFF, b"\0" * 48)
    found = {}
    for body in _dump(request, f"family {family} protocol {protocol} sockets"):
        raw = _attributes(body, _inet_diag_msg.size).get(_INET_DIAG_SHUTDOWN)
        found[_inet(family, body).ino] = raw[0] if raw else 0
    return found


def _inet(family: int, body: bytes, *, idle: bool = False) -> InetDiag:
    size = 4 if family == socket.AF_INET else 16
    (_, state, _, _, sport, dport, src, dst, interface, _, _, rqueue, wqueue, uid, ino) = _inet_diag_msg.unpack_from(
        body
    )
    return InetDiag(
        state,
        socket.inet_ntop(family, src[:size]),
        int.from_bytes(sport, "big"),
        socket.inet_ntop(family, dst[:size]),
        int.from_bytes(dport, "big"),
        ino,
        uid,
        rqueue,
        wqueue,
        interface,
        _idle_ms(body) if idle else 0,
        _attributes(body, _inet_diag_msg.size).get(_INET_DIAG_MD5SIG, b"") if idle else b"",
    )


def find_inet(family: int, protocol: int, source: tuple[str, int], target: tuple[str, int]) -> InetDiag | None:
    """Return the one socket that is connected from ``source`` to ``target`` (host, port)."""
    asked = InetDiag(0, *source, *target, 0, 0, 0, 0, 0)
    request = _inet_diag_req_v2.pack(family, protocol, 0, 0, 0xFFFFFFFF, _identity(family, asked))
    try:
        body = _ask_one(_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, request)
    except FileNotFoundError:
        return None
    found = _inet(family, body)
    return found if (found.dst, found.dport) == target else None


def _identity(family: int, diag: InetDiag) -> bytes:
    """Encode struct inet_diag_sockid, with the cookie that fits any."""
    source, target = (socket.inet_pton(family, host).ljust(16, b"\0") for host in (diag.src, diag.dst))
    return struct.pack("!HH", diag.sport, diag.dport) + source + target + _u32.pack(diag.interface) + b"\xff" * 8


def _ask_one(kind: int, flags: int, request: bytes) -> bytes:
    """Send a request that is no dump; return the body of the answer, after its error was raised."""
    header = _nlmsghdr.pack(_nlmsghdr.size + len(request), kind, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.sendto(header + request, (0, 0))
        answer = netlink.recv(_RECEIVE_BYTES)
    length, answered, _, _, _ = _nlmsghdr.unpack_from(answer)
    body = answer[_nlmsghdr.size : length]
    number = -struct.unpack_from("=i", body)[0] if answered == _NLMSG_ERROR else 0
    if number:
        raise OSError(number, os.strerror(number))
    return body


def destroy(family: int, protocol: int, diag: InetDiag) -> None:
    """End a socket without a word to the other end. OSError ENOENT if it is gone meanwhile."""
    request = _inet_diag_req_v2.pack(family, protocol, 0, 0, 0xFFFFFFFF, _identity(family, diag))
    _ask_one(_SOCK_DESTROY, _NLM_F_REQUEST | _NLM_F_ACK, request)
