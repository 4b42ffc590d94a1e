"""Whether both ends of every TCP connection are in the job."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from functools import partial

from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.census import external_hint
from orchestrator.kinds.sockets.holders import in_net_namespace, socket_holders
from orchestrator.kinds.sockets.inet_address import InetAddress
from orchestrator.linux import sockdiag

End = tuple[str, int, int]
"""Host, port, scope. Mapped IPv4 addresses stand as IPv4."""


def _end(address: InetAddress) -> End:
    host = ipaddress.ip_address(address.host)
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return str(mapped or host), address.port, address.scope_id


@dataclass(frozen=True, slots=True)
class _Connection:
    pid: HostPid
    what: str
    ino: int
    remote: InetAddress


@dataclass
class TcpPeers:
    """The connections of one capture. It is one of the scope's finishers."""

    scope: Scope
    pid: HostPid
    """A process in the job's network namespace."""
    connections: dict[tuple[End, End], _Connection] = field(default_factory=dict)

    @classmethod
    def of(cls, scope: Scope, pid: HostPid) -> TcpPeers:
        """Return the capture's, beginning one at its first connection."""
        for finisher in scope.finishers:
            if isinstance(finisher, TcpPeers):
                return finisher
        peers = cls(scope, pid)
        scope.finishers.append(peers)
        return peers

    def add(self, view: FdView, local: InetAddress, remote: InetAddress) -> None:
        """Note a connection of the job."""
        connection = _Connection(view.pid, view.what, view.stat.st_ino, remote)
        self.connections[_end(local), _end(remote)] = connection

    def __call__(self) -> None:
        """Note the connections whose other end is not in the job."""
        for (local, remote), connection in self.connections.items():
            if (remote, local) not in self.connections:
                other = f"{connection.remote}{self._held_by(local, remote)}"
                reason = f"it is a TCP connection with {other}, outside of the job"
                self.scope.outside(connection.pid, connection.what, reason, external_hint(connection.ino))

    def _held_by(self, local: End, remote: End) -> str:
        for family in (socket.AF_INET, socket.AF_INET6):
            ask = partial(sockdiag.inet_sockets, family, socket.IPPROTO_TCP)
            for diag in in_net_namespace(self.pid, ask):
                ends = (_end(InetAddress(diag.src, diag.sport)), _end(InetAddress(diag.dst, diag.dport)))
                if (ends[0][:2], ends[1][:2]) == (remote[:2], local[:2]):
                    if not diag.ino:
                        return f" (state {diag.state}, held by no process)"
                    for pid, name in socket_holders({diag.ino}).values():
                        return f", held by {pid} ({name})"
        return ""
