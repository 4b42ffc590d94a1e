"""Bind sockets to what they were bound to, though by now their options or the machine's addresses would not allow it.

IP_FREEBIND, SO_REUSEADDR and SO_REUSEPORT count at the moment of bind(2) and listen(2), and may be changed behind it.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import combinations

import msgspec

from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.files.kind import Depot, OpenFile
from orchestrator.kinds.record import Record
from orchestrator.kinds.sockets.holders import in_net_namespace
from orchestrator.kinds.sockets.inet_address import FREEBIND, InetAddress
from orchestrator.kinds.sockets.option_table import SOL_IPV6, SOL_SOCKET
from orchestrator.kinds.sockets.options import SocketOptions, set_int, write_filter

_V6ONLY = (SOL_IPV6, 26)
_REUSEADDR = (SOL_SOCKET, socket.SO_REUSEADDR)
_REUSEPORT = (SOL_SOCKET, socket.SO_REUSEPORT)
_DEVICE = (SOL_SOCKET, socket.SO_BINDTODEVICE)
_SO_ATTACH_REUSEPORT_CBPF, _SO_DETACH_REUSEPORT_BPF = 51, 68
_BPF_RET_K = 6
_sock_filter = struct.Struct("=HBBI")


class Bound(Record, frozen=True):
    """What a socket binds, and with what options."""

    family: int
    protocol: int
    local: InetAddress
    options: SocketOptions
    listens: bool = False
    connected: bool = False
    owner: tuple[int, int] = (0, 0)

    @property
    def space(self) -> tuple[int, int]:
        """Sockets of different spaces do not meet."""
        return self.protocol, self.local.port

    def has(self, option: tuple[int, int]) -> bool:
        """Whether an option is on."""
        return any(one.at == option and any(one.value) for one in self.options.others)


def note_freedom(pid: HostPid, family: int, local: InetAddress | None) -> InetAddress | None:
    """Say in an address if the network namespace of ``pid`` does not have it: only IP_FREEBIND binds to it then."""
    if local is None or local.is_any:
        return local
    address = ipaddress.ip_address(local.plain)
    if address.is_loopback or address.is_multicast or local.plain == "255.255.255.255":
        return local
    if in_net_namespace(pid, partial(_is_here, family, local)):
        return local
    return msgspec.structs.replace(local, freely=True)


def _is_here(family: int, local: InetAddress) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((local.host, 0, local.flowinfo, local.scope_id)[: 2 if family == socket.AF_INET else 4])
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def write_bind(depot: Depot, file: ObjectId, bound: Bound) -> None:
    """Bind descriptor 0 of the depot."""
    tape = depot.tape
    lent = depot.sole(_Ports, lambda: _Ports.of(depot.files)).lent.get(file)
    if lent is not None and not bound.has(lent):
        set_int(tape, 0, *lent, 1)
    name = bound.local.pack(bound.family)
    if bound.local.freely:
        freebind = FREEBIND[socket.AddressFamily(bound.family)]
        set_int(tape, 0, *freebind, 1)
        tape.bind(0, name, len(name))
        set_int(tape, 0, *freebind, int(bound.has(freebind)))
    else:
        tape.bind(0, name, len(name))


@contextmanager
def dealt_to(depot: Depot, file: ObjectId) -> Iterator[None]:
    """Let what comes in for sockets that share a port (SO_REUSEPORT), and are dealt it, all come to one of them."""
    place = depot.sole(_Ports, lambda: _Ports.of(depot.files)).places.get(file)
    if place is None:
        yield
        return
    tape, fd = depot.tape, depot.slot(file)
    write_filter(tape, fd, _sock_filter.pack(_BPF_RET_K, 0, 0, place), _SO_ATTACH_REUSEPORT_CBPF)
    yield
    set_int(tape, fd, SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)


def return_lent(depot: Depot, file: ObjectId, bound: Bound) -> None:
    """Take back what let a socket share its port, when all are bound."""
    lent = depot.sole(_Ports, lambda: _Ports.of(depot.files)).lent.get(file)
    if lent is not None and not bound.has(lent):
        set_int(depot.tape, depot.slot(file), *lent, 0)


class _Ports(msgspec.Struct):
    """The ports of a restore that several sockets share."""

    lent: dict[ObjectId, tuple[int, int]] = msgspec.field(default_factory=dict)
    """The option that a socket needs to be on as it is bound, whether it has it or not."""
    places: dict[ObjectId, int] = msgspec.field(default_factory=dict)
    """Which one a socket is of those that are dealt what comes in: they are bound in the order of their numbers."""

    @classmethod
    def of(cls, files: Mapping[ObjectId, OpenFile]) -> _Ports:
        spaces: dict[tuple[int, int], list[tuple[ObjectId, Bound]]] = {}
        for number, file in files.items():
            bound = getattr(file.body, "bound", None)
            if isinstance(bound, Bound):
                spaces.setdefault(bound.space, []).append((number, bound))
        ports = cls()
        for sharers in spaces.values():
            ports._deal(sharers)
            if all(bound.has(_REUSEPORT) for _, bound in sharers):
                continue
            for (first, one), (second, other) in combinations(sharers, 2):
                if _overlap(one, other) and not _may_share(one, other):
                    lent = _REUSEADDR if _by_address(one, other) else _REUSEPORT
                    for number in (first, second):
                        if ports.lent.get(number) != _REUSEPORT:
                            ports.lent[number] = lent
        return ports

    def _deal(self, sharers: Sequence[tuple[ObjectId, Bound]]) -> None:
        groups: dict[object, list[ObjectId]] = {}
        for number, bound in sorted(sharers, key=lambda sharer: sharer[0]):
            if bound.connected or bound.has(_DEVICE):
                return  # who is dealt what is not as simple
            if bound.has(_REUSEPORT):
                key = (bound.family, bound.local.host, bound.local.scope_id, bound.has(_V6ONLY), bound.owner)
                groups.setdefault(key, []).append(number)
        for group in groups.values():
            if len(group) > 1:
                self.places.update((number, place) for place, number in enumerate(group))


def _overlap(one: Bound, other: Bound) -> bool:
    if one.family != other.family and (one if one.family == socket.AF_INET6 else other).has(_V6ONLY):
        return False
    return one.local.is_any or other.local.is_any or one.local.plain == other.local.plain


def _may_share(one: Bound, other: Bound) -> bool:
    if one.has(_REUSEPORT) and other.has(_REUSEPORT):
        return True
    return one.has(_REUSEADDR) and other.has(_REUSEADDR) and not (one.listens or other.listens)


def _by_address(one: Bound, other: Bound) -> bool:
    """Whether SO_REUSEADDR will do; it makes no group of sockets that are dealt what comes in."""
    return not (one.listens or other.listens or one.has(_REUSEPORT) or other.has(_REUSEPORT))
