"""Addresses, routes, rules and fixed neighbours: kept as the kernel's own messages, and brought back by difference."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

from orchestrator.kinds.record import Record
from orchestrator.linux import netlink
from orchestrator.linux.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, Netlink, without_attributes

_ifaddrmsg = struct.Struct("=BBBBI")  # family prefixlen flags scope index
_rtmsg = struct.Struct("=BBBBBBBBI")  # family dst_len src_len tos table protocol scope type flags
_ndmsg = struct.Struct("=BBHiHBB")  # family pad pad ifindex state flags type
_fib_rule_hdr = struct.Struct("=BBBBBBBBI")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_IFA_F_NODAD, _IFA_F_TENTATIVE, _IFA_F_PERMANENT = 0x02, 0x40, 0x80
_IFA_F_DYNAMIC = 0x08 | 0x20 | _IFA_F_TENTATIVE  # DADFAILED, DEPRECATED: states, not settings
_RTA_CACHEINFO = 12
_RTPROT_KERNEL = 2
_RTM_F_CLONED = 0x200
_RTM_STATE = 0x01 | 0x08 | 0x10 | 0x20 | 0x40 | 0x4000 | 0x8000 | 0x20000000  # RTNH_F_DEAD... RTM_F_OFFLOAD_FAILED
_NDA_CACHEINFO, _NDA_PROBES = 3, 4
_NUD_PERMANENT = 0x80
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class NetMessages(Record, frozen=True):
    """Payloads of rtnetlink messages, in the kernel's order."""

    addresses: list[bytes]
    routes: list[bytes]
    rules: list[bytes]
    neighbours: list[bytes]


def read_messages() -> NetMessages:
    """Read those of our own network namespace."""
    with Netlink() as link:
        return NetMessages(
            [address for family in _FAMILIES for address in _addresses(link, family)],
            [route for family in _FAMILIES for route in _routes(link, family)],
            [
                rule
                for family in _FAMILIES
                for rule in link.dump(netlink.RTM_GETRULE, _fib_rule_hdr.pack(family, *[0] * 8))
            ],
            [neighbour for family in _FAMILIES for neighbour in _neighbours(link, family)],
        )


def _addresses(link: Netlink, family: int) -> list[bytes]:
    found = []
    for payload in link.dump(netlink.RTM_GETADDR, _ifaddrmsg.pack(family, 0, 0, 0, 0)):
        flags = _address_flags(payload)
        drop = {_IFA_FLAGS} | ({_IFA_CACHEINFO} if flags & _IFA_F_PERMANENT else set())
        rest = without_attributes(payload, _ifaddrmsg.size, drop)
        found.append(_with_flags(rest, flags & ~_IFA_F_DYNAMIC))
    return found


def _address_flags(payload: bytes) -> int:
    for kind, value in netlink.attributes(payload, _ifaddrmsg.size):
        if kind == _IFA_FLAGS:
            return int.from_bytes(value, "little")
    return payload[2]


def _with_flags(payload: bytes, flags: int) -> bytes:
    family, prefix, _, scope, index = _ifaddrmsg.unpack_from(payload)
    attribute = struct.pack("=HHI", 8, _IFA_FLAGS, flags)
    return _ifaddrmsg.pack(family, prefix, flags & 0xFF, scope, index) + payload[_ifaddrmsg.size :] + attribute


def _address_key(payload: bytes) -> tuple[object, ...]:
    family, prefix, _, _, index = _ifaddrmsg.unpack_from(payload)
    values = dict(netlink.attributes(payload, _ifaddrmsg.size))
    return family, prefix, index, values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))


def _routes(link: Netlink, family: int) -> list[bytes]:
    found = []
    for payload in link.dump(netlink.RTM_GETROUTE, _rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
        *head, flags = _rtmsg.unpack_from(payload)
        if flags & _RTM_F_CLONED:
            continue
        rest = without_attributes(payload, _rtmsg.size, {_RTA_CACHEINFO})
        found.append(_rtmsg.pack(*head, flags & ~_RTM_STATE) + rest[_rtmsg.size :])
    return found


def _neighbours(link: Netlink, family: int) -> list[bytes]:
    return [
        without_attributes(payload, _ndmsg.size, {_NDA_CACHEINFO, _NDA_PROBES})
        for payload in link.dump(netlink.RTM_GETNEIGH, _ndmsg.pack(family, 0, 0, 0, 0, 0, 0))
        if _ndmsg.unpack_from(payload)[4] & _NUD_PERMANENT
    ]


def rebuild_messages(wanted: NetMessages) -> None:
    """Make those of our own network namespace what they were; its links are there, and up as they were."""
    with Netlink() as link:
        have = read_messages()
        keys = {_address_key(payload) for payload in wanted.addresses}
        for payload in have.addresses:
            if _address_key(payload) not in keys:
                link.request(netlink.RTM_DELADDR, payload)
        standing = {_address_key(payload) for payload in have.addresses}
        for payload in wanted.addresses:
            if _address_key(payload) not in standing:
                link.request(netlink.RTM_NEWADDR, _without_detection(payload), NLM_F_CREATE | NLM_F_REPLACE)
        have = read_messages()
        for payload in have.routes:
            if payload not in wanted.routes:
                _tolerate((errno.ESRCH,), link, netlink.RTM_DELROUTE, payload)
        missing = [payload for payload in wanted.routes if payload not in have.routes]
        _add_routes(link, [payload for payload in missing if not _comes_by_itself(payload)])
        if have.rules != wanted.rules:
            for payload in have.rules:
                link.request(netlink.RTM_DELRULE, payload)
            for payload in wanted.rules:
                link.request(netlink.RTM_NEWRULE, payload, NLM_F_CREATE)
        for payload in wanted.neighbours:
            link.request(netlink.RTM_NEWNEIGH, payload, NLM_F_CREATE | NLM_F_REPLACE)


def _without_detection(payload: bytes) -> bytes:
    """Skip the detection of duplicates, which would leave an IPv6 address unusable for a second or two."""
    if payload[0] != socket.AF_INET6:
        return payload
    flags = _address_flags(payload) | _IFA_F_NODAD
    return _with_flags(without_attributes(payload, _ifaddrmsg.size, {_IFA_FLAGS}), flags)


def _comes_by_itself(payload: bytes) -> bool:
    """Whether the kernel makes a route for an address; for IPv6 it may do so a little later."""
    return payload[0] == socket.AF_INET6 and payload[5] == _RTPROT_KERNEL


def _add_routes(link: Netlink, routes: list[bytes]) -> None:
    """Add routes in rounds: one through a gateway needs the one to the gateway first."""
    waiting = routes
    while waiting:
        failed: list[tuple[bytes, OSError]] = []
        for payload in waiting:
            try:
                # Several IPv6 routes to one place are one in the dump, and each is sent for itself.
                _tolerate((errno.EEXIST,), link, netlink.RTM_NEWROUTE, payload, NLM_F_CREATE | NLM_F_APPEND)
            except OSError as error:
                failed.append((payload, error))
        if len(failed) == len(waiting):
            payload, reason = failed[0]
            reason.add_note(f"add route {payload.hex()}")
            raise reason
        waiting = [payload for payload, _ in failed]


def _tolerate(numbers: tuple[int, ...], link: Netlink, kind: int, payload: bytes, flags: int = 0) -> None:
    request: Callable[[int, bytes, int], None] = link.request
    try:
        request(kind, payload, flags)
    except OSError as error:
        if error.errno not in numbers:
            raise
