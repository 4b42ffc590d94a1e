"""Netlink messages as they are: dumped as bytes, and sent back as bytes. See netlink(7), rtnetlink(7).

What the kernel dumps as RTM_NEWx it takes again as RTM_NEWx: so addresses, routes and rules are kept
without knowing every attribute.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from typing import Self

NETLINK_ROUTE = 0
NETLINK_XFRM = 6
NETLINK_NETFILTER = 12

RTM_GETLINK, RTM_GETQDISC = 18, 38
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
XFRM_MSG_GETSA, XFRM_MSG_GETPOLICY = 0x12, 0x15
NFT_MSG_GETTABLE = 10 << 8 | 1

NLM_F_REPLACE, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x400, 0x800
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ATTRIBUTE_TYPE = 0x3FFF

_nlmsghdr = struct.Struct("=IHHII")
_nlattr = struct.Struct("=HH")
assert _nlmsghdr.size == 16
_RECEIVE_BYTES = 1 << 18
_ATTEMPTS = 16


class Netlink:
    """A netlink socket of the network namespace that the caller is in when it is made."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dump(self, type: int, request: bytes) -> list[bytes]:  # noqa: A002
        """Return the payload of every message of a dump."""
        for _ in range(_ATTEMPTS):
            self._send(type, _NLM_F_REQUEST | _NLM_F_DUMP, request)
            found = []
            interrupted = False
            for kind, flags, payload in self._answers():
                interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                if kind == _NLMSG_DONE:
                    break
                found.append(payload)
            if not interrupted:
                return found
        raise OSError(errno.EBUSY, f"netlink: the list of type {type} changed under {_ATTEMPTS} dumps")

    def request(self, type: int, payload: bytes, flags: int = 0) -> None:  # noqa: A002
        """Send one message and wait for its acknowledgement."""
        self._send(type, _NLM_F_REQUEST | _NLM_F_ACK | flags, payload)
        for _ in self._answers():
            return

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        self._sequence += 1
        self._socket.sendto(_nlmsghdr.pack(16 + len(payload), kind, flags, self._sequence, 0) + payload, (0, 0))

    def _answers(self) -> Iterator[tuple[int, int, bytes]]:
        while True:  # the kernel has put the whole answer there before sendto(2) returns, or its first part
            data = self._socket.recv(_RECEIVE_BYTES)
            at = 0
            while at < len(data):
                length, kind, flags, sequence, _ = _nlmsghdr.unpack_from(data, at)
                payload = data[at + 16 : at + length]
                at += length + 3 & ~3
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_ERROR:
                    code = -int.from_bytes(payload[:4], "little", signed=True)
                    if code:
                        raise OSError(code, os.strerror(code))
                yield kind, flags, payload


def attributes(payload: bytes, fixed: int) -> Iterator[tuple[int, bytes]]:
    """Split a payload behind its fixed part of ``fixed`` bytes into (type, value)."""
    at = fixed + 3 & ~3
    while at + 4 <= len(payload):
        length, kind = _nlattr.unpack_from(payload, at)
        if length < 4:
            raise ValueError("netlink: a broken attribute")
        yield kind & _ATTRIBUTE_TYPE, payload[at + 4 : at + length]
        at += length + 3 & ~3


def without_attributes(payload: bytes, fixed: int, types: Collection[int]) -> bytes:
    """Return a payload without the attributes of ``types``."""
    kept = bytearray(payload[: fixed + 3 & ~3])
    for kind, value in attributes(payload, fixed):
        if kind not in types:
            kept += _nlattr.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)
    return bytes(kept)
