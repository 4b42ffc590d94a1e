"""The multicast groups that a socket has joined. See ip(7), ipv6(7), RFC 3678.

No list shows the groups of one socket. The kernel lists those of the interfaces, and a socket can be asked for each
of them whether it is a member.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence
from functools import cached_property

import msgspec

from orchestrator.errors import CannotHonour
from orchestrator.ids import HostPid
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.option_table import SOL_IP, SOL_IPV6
from orchestrator.linux.procfs import read_file
from orchestrator.tape.build import Tape

_MCAST_JOIN_GROUP, _MCAST_BLOCK_SOURCE, _MCAST_JOIN_SOURCE_GROUP, _MCAST_MSFILTER = 42, 43, 46, 48
_INCLUDE = 1
_MOST_SOURCES = 128
_STORAGE = 128
_group_filter = struct.Struct(f"=I4x{_STORAGE}sII")
assert _group_filter.size == 144
_NOT_A_MEMBER = (errno.EADDRNOTAVAIL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)
_getsockopt = ctypes.CDLL(None, use_errno=True).getsockopt


class Membership(Record, frozen=True, array_like=True):
    """A group that a socket is in."""

    group: str
    interface: int
    name: str
    """Of the interface."""
    only: bool
    """Whether ``sources`` are those that it hears, or those that it does not."""
    sources: tuple[str, ...] = ()


class JoinedGroups(msgspec.Struct, dict=True):
    """The groups of a network namespace."""

    pid: HostPid
    """A process in the namespace."""

    @classmethod
    def of(cls, scope: Scope, pid: HostPid) -> JoinedGroups:
        """Return the capture's, made at the first socket that asks."""
        return scope.sole(cls, lambda: cls(pid))

    @cached_property
    def known(self) -> list[tuple[int, str, str]]:
        """What somebody may have joined: (interface, its name, group)."""
        four = parse_igmp(read_file(f"/proc/{self.pid}/net/igmp").decode())
        try:
            six = parse_igmp6(read_file(f"/proc/{self.pid}/net/igmp6").decode())
        except FileNotFoundError:  # a kernel without IPv6
            six = []
        return four + six

    def of_socket(self, sock: socket.socket, family: int) -> tuple[Membership, ...]:
        """Return the groups that a socket is in."""
        found = []
        for interface, name, group in self.known:
            if family == socket.AF_INET and ":" in group:
                continue
            answer = _ask(sock.fileno(), interface, group)
            if answer is not None:
                found.append(Membership(group, interface, name, *answer))
        return tuple(found)


def parse_igmp(text: str) -> list[tuple[int, str, str]]:
    """Interpret /proc/net/igmp, without the group of all hosts where only the kernel is in it."""
    found = []
    index, name = 0, ""
    for line in text.splitlines()[1:]:
        words = line.split()
        if not line.startswith("\t"):
            index, name = int(words[0]), words[1]
            continue
        group = socket.inet_ntop(socket.AF_INET, int(words[0], 16).to_bytes(4, "little"))
        if group != "224.0.0.1" or words[1] != "1":
            found.append((index, name, group))
    return found


def parse_igmp6(text: str) -> list[tuple[int, str, str]]:
    """Interpret /proc/net/igmp6, without the groups of all nodes where only the kernel is in them."""
    found = []
    for line in text.splitlines():
        index, name, packed, users, *_ = line.split()
        group = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed))
        if group not in ("ff01::1", "ff02::1") or users != "1":
            found.append((int(index), name, group))
    return found


def _ask(fd: int, interface: int, group: str) -> tuple[bool, tuple[str, ...]] | None:
    """Return how a socket is a member of a group, None if it is not."""
    level = SOL_IPV6 if ":" in group else SOL_IP
    size = _group_filter.size + _MOST_SOURCES * _STORAGE
    buffer = ctypes.create_string_buffer(_group_filter.pack(interface, _storage(group), 0, _MOST_SOURCES), size)
    length = ctypes.c_uint32(size)
    if _getsockopt(fd, level, _MCAST_MSFILTER, buffer, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        if number in _NOT_A_MEMBER:
            return None
        raise OSError(number, os.strerror(number))
    _, _, mode, count = _group_filter.unpack_from(buffer.raw)
    found = []
    for number in range(min(count, _MOST_SOURCES)):
        at = _group_filter.size + number * _STORAGE
        found.append(_host(buffer.raw[at : at + _STORAGE]))
    return mode == _INCLUDE, tuple(found)


def _storage(host: str) -> bytes:
    """Encode a struct sockaddr_storage."""
    if ":" in host:
        return struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, host), 0).ljust(
            _STORAGE, b"\0"
        )
    return struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_pton(socket.AF_INET, host)).ljust(_STORAGE, b"\0")


def _host(storage: bytes) -> str:
    (family,) = struct.unpack_from("=H", storage)
    if family == socket.AF_INET6:
        return socket.inet_ntop(family, storage[8:24])
    return socket.inet_ntop(family, storage[4:8])


def join(tape: Tape, fd: int, memberships: Sequence[Membership]) -> None:
    """Join the groups again."""
    for one in memberships:
        level = SOL_IPV6 if ":" in one.group else SOL_IP
        start = struct.pack("=I4x", one.interface) + _storage(one.group)
        if not one.only:
            tape.setsockopt(fd, level, _MCAST_JOIN_GROUP, start, len(start))
        option = _MCAST_JOIN_SOURCE_GROUP if one.only else _MCAST_BLOCK_SOURCE
        for source in one.sources:
            value = start + _storage(source)
            tape.setsockopt(fd, level, option, value, len(value))


def check_interfaces(memberships: Sequence[Membership]) -> None:
    """Raise CannotHonour if an interface is not here by the number that it had."""
    for one in memberships:
        try:
            name = socket.if_indextoname(one.interface)
        except OSError:
            name = ""
        if name != one.name:
            raise CannotHonour(
                f"a socket has joined the group {one.group} on interface {one.interface} ({one.name}), which this "
                f"machine {'calls ' + name if name else 'does not have'}",
                hint="restore where the interfaces are the same",
            )
