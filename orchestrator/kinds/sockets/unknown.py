"""Sockets that belong to no other kind, refused by name."""

from __future__ import annotations

import socket

from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.census import external_hint
from orchestrator.kinds.sockets.option_table import SOL_SOCKET

_FAMILIES = {
    value: name for name, value in vars(socket).items() if name.startswith("AF_") and isinstance(value, int)
} | {
    20: "AF_ASH", 25: "AF_PPPOX", 27: "AF_IB", 28: "AF_MPLS", 31: "AF_BLUETOOTH", 33: "AF_RXRPC", 34: "AF_ISDN",
    35: "AF_PHONET", 36: "AF_IEEE802154", 37: "AF_CAIF", 39: "AF_NFC", 41: "AF_KCM", 42: "AF_QIPCRTR", 43: "AF_SMC",
    44: "AF_XDP", 45: "AF_MCTP",
}  # fmt: skip
_PROTOCOLS = {1: "ICMP", 33: "DCCP", 58: "ICMPv6", 132: "SCTP", 255: "raw", 262: "MPTCP"}


class OtherSocket(Record, frozen=True, tag="other-socket"):
    """Stands in no image: such sockets are refused."""


def _recognise(view: FdView) -> bool:
    return view.link.startswith("socket:[")


def capture_unknown(view: FdView, scope: Scope) -> None:
    """Say what kind of socket it is that cannot be rebuilt."""
    sock = view.sock
    family = sock.getsockopt(SOL_SOCKET, socket.SO_DOMAIN)
    protocol = sock.getsockopt(SOL_SOCKET, socket.SO_PROTOCOL)
    name = _FAMILIES.get(family, f"family {family}")
    if family in (socket.AF_INET, socket.AF_INET6):
        name = f"{_PROTOCOLS.get(protocol, f'protocol {protocol}')} ({name})"
    scope.unsupported(view.pid, view.what, f"{name} sockets cannot be rebuilt", external_hint(view.stat.st_ino))


def _never(file: OpenFile, _depot: Depot) -> None:
    raise AssertionError(f"open file {file.id} was never recorded")


UNKNOWN = FileKind("socket", OtherSocket, _recognise, capture_unknown, _never, links="socket:")
