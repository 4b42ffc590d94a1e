"""Whether both ends of every TCP connection are in the job."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from functools import cached_property, partial

from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.holders import in_net_namespace, socket_holders
from orchestrator.kinds.sockets.inet_address import InetAddress
from orchestrator.kinds.sockets.tcp_ended import CUT
from orchestrator.linux import sockdiag
from orchestrator.linux.proc_fd import list_fds, readlink_fd

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
                hint = f"--external {CUT} lets a restored job find all such connections reset"
                self.scope.outside(connection.pid, connection.what, reason, hint)

    def is_gone(self, local: InetAddress, remote: InetAddress) -> bool:
        """Whether the other end was on this machine, and no process has it any more."""
        if _end(remote)[0] != _end(local)[0] and not ipaddress.ip_address(_end(remote)[0]).is_loopback:
            return False
        known = self._all.get((_end(remote)[:2], _end(local)[:2]))
        return known is None or not known.ino

    def is_inside(self, local: InetAddress, remote: InetAddress) -> bool:
        """Whether a process of the job has the other end, or the last that had it has closed it."""
        known = self._all.get((_end(remote)[:2], _end(local)[:2]))
        return known.ino in self._of_job if known is not None and known.ino else self.is_gone(local, remote)

    @cached_property
    def _of_job(self) -> set[int]:
        """The inodes of all sockets of the job."""
        return {
            int(link[8:-1])
            for pid in self.scope.seen()
            for fd in list_fds(pid)
            if (link := readlink_fd(pid, fd)).startswith("socket:[")
        }

    @cached_property
    def _all(self) -> dict[tuple[tuple[str, int], tuple[str, int]], sockdiag.InetDiag]:
        """Every TCP socket of the namespace that the kernel lists, by its ends."""
        found = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            ask = partial(sockdiag.inet_sockets, family, socket.IPPROTO_TCP)
            for diag in in_net_namespace(self.pid, ask):
                ends = (_end(InetAddress(diag.src, diag.sport)), _end(InetAddress(diag.dst, diag.dport)))
                found[ends[0][:2], ends[1][:2]] = diag
        return found

    def _held_by(self, local: End, remote: End) -> str:
        diag = self._all.get((remote[:2], local[:2]))
        if diag is None:
            return ""
        if not diag.ino:
            return f" (in state {diag.state}, and held by no process)"
        for pid, name in socket_holders({diag.ino}).values():
            return f", held by {pid} ({name})"
        return ""
