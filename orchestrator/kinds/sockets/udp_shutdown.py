"""Which directions of UDP sockets were shut down. poll(2) does not tell of the sending one."""

from __future__ import annotations

import select
import socket
from functools import cached_property, partial

import msgspec

from orchestrator.ids import HostPid
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.holders import in_net_namespace
from orchestrator.linux.sockdiag import RCV_SHUTDOWN, SEND_SHUTDOWN, inet_shutdowns

SHUTDOWN_HOW = {1: socket.SHUT_RD, 2: socket.SHUT_WR, 3: socket.SHUT_RDWR}


class UdpShutdowns(msgspec.Struct, dict=True):
    """The UDP sockets of a network namespace."""

    pid: HostPid
    """A process in the namespace."""

    @classmethod
    def of(cls, scope: Scope, pid: HostPid) -> UdpShutdowns:
        """Return the capture's, made at the first UDP socket."""
        return scope.sole(cls, lambda: cls(pid))

    def of_socket(self, ino: int, ready: int) -> int:
        """Return RCV_SHUTDOWN | SEND_SHUTDOWN; ``ready`` is what poll(2) says of the socket."""
        if ready & select.POLLHUP:
            return RCV_SHUTDOWN | SEND_SHUTDOWN
        return self._all.get(ino, RCV_SHUTDOWN if ready & select.POLLRDHUP else 0)

    @cached_property
    def _all(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            found |= in_net_namespace(self.pid, partial(inet_shutdowns, family, socket.IPPROTO_UDP))
        return found
