"""Whether both ends of every TCP connection are in the job."""

from __future__ import annotations

import ipaddress
import socket
from functools import cached_property, partial

import msgspec

from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.holders import in_net_namespace, socket_holders
from orchestrator.kinds.sockets.inet_address import InetAddress
from orchestrator.kinds.sockets.refused import Refused
from orchestrator.kinds.sockets.tcp_agree import AgreeingEnd, agree
from orchestrator.linux import sockdiag
from orchestrator.linux.proc_fd import list_fds, readlink_fd

_QUEUED = (sockdiag.TCP_ESTABLISHED, sockdiag.TCP_CLOSE_WAIT)
"""States of a connection that waits to be accepted; any other that no process has was closed."""

End = tuple[str, int, int]
"""Host, port, scope. Mapped IPv4 addresses stand as IPv4."""


def _end(address: InetAddress) -> End:
    return address.plain, address.port, address.scope_id


class _Connection(msgspec.Struct, frozen=True):
    pid: HostPid
    what: str
    ino: int
    remote: InetAddress
    end: AgreeingEnd


class TcpPeers(msgspec.Struct, dict=True):
    """The connections of one capture. It is one of the scope's finishers."""

    scope: Scope
    pid: HostPid
    """A process in the job's network namespace."""
    connections: dict[tuple[End, End], _Connection] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, scope: Scope, pid: HostPid) -> TcpPeers:
        """Return the capture's, beginning one at its first connection."""
        return scope.sole(cls, lambda: cls(scope, pid))

    def add(self, view: FdView, local: InetAddress, remote: InetAddress, end: AgreeingEnd) -> None:
        """Note a connection of the job."""
        connection = _Connection(view.pid, view.what, view.stat.st_ino, remote, end)
        self.connections[_end(local), _end(remote)] = connection

    def __call__(self) -> None:
        """Let the two ends of connections agree, and note the connections whose other end is not in the job."""
        for (local, remote), connection in self.connections.items():
            other_end = self.connections.get((remote, local))
            if other_end is not None:
                if local <= remote:
                    self._let_agree(connection, other_end)
            else:
                other = f"{connection.remote}{self._held_by(local, remote)}"
                reason = f"it is a TCP connection with {other}, outside of the job"
                hint = "--tcp keep keeps such connections, with --kill; --tcp close lets a restored job find them reset"
                self.scope.outside(connection.pid, connection.what, reason, hint)

    def _let_agree(self, one: _Connection, other: _Connection) -> None:
        try:
            agree(one.end, other.end)
        except Refused as refusal:
            self.scope.unsupported(one.pid, one.what, f"a TCP connection: {refusal.reason}", refusal.hint)

    def state_of(self, ino: int) -> sockdiag.InetDiag | None:
        """Return what the kernel lists of a socket of the job."""
        return self._by_ino.get(ino)

    def with_outside(self) -> list[tuple[tuple[str, int], tuple[str, int]]]:
        """Return the two ends of every connection of the job whose other end is not in it."""
        found = []
        for diag in self._dump:
            if diag.ino in self.of_job and diag.dport:
                local, remote = InetAddress(diag.src, diag.sport), InetAddress(diag.dst, diag.dport)
                if not self.is_inside(local, remote):
                    found.append((_end(local)[:2], _end(remote)[:2]))
        return found

    def answered(self, local: InetAddress, remote: InetAddress) -> sockdiag.InetDiag | None:
        """Return what stands for a client at a listener of the job that has not accepted it yet."""
        known = self._all.get((_end(remote)[:2], _end(local)[:2]))
        if known is None or known.ino or known.state not in (*_QUEUED, sockdiag.TCP_SYN_RECV):
            return None
        return known if any(listener in self.of_job for listener in self._listeners_of(known)) else None

    def waiting_at(self, ino: int, count: int) -> list[sockdiag.InetDiag]:
        """Return the ``count`` connections that wait at a listener of the job, the oldest first.

        Listeners of one port (SO_REUSEPORT) share what waits at all of them. Raises Refused if it is not that many.
        """
        mine = [diag for diag in self._queued if ino in self._listeners_of(diag)][:count]
        if len(mine) < count:
            raise Refused("connections came in while it was looked at", "try again")
        for diag in mine:
            self._queued.remove(diag)
        return mine

    def client_of(self, diag: sockdiag.InetDiag) -> int:
        """Return the inode of the socket at the other end of one that waits; 0 if nobody has it, -1 if it is away."""
        local, remote = InetAddress(diag.src, diag.sport), InetAddress(diag.dst, diag.dport)
        known = self._all.get((_end(remote)[:2], _end(local)[:2]))
        if known is not None and known.ino:
            return known.ino
        return 0 if self.is_gone(local, remote) else -1

    def _listeners_of(self, diag: sockdiag.InetDiag) -> list[int]:
        host = _end(InetAddress(diag.src, diag.sport))[0]
        alike = [one for one in self._listeners if one.sport == diag.sport]
        exact = [one.ino for one in alike if _end(InetAddress(one.src, one.sport))[0] == host]
        return exact or [one.ino for one in alike if InetAddress(one.src, 0).is_any]

    @cached_property
    def _listeners(self) -> list[sockdiag.InetDiag]:
        return [diag for diag in self._dump if diag.state == sockdiag.TCP_LISTEN]

    @cached_property
    def _queued(self) -> list[sockdiag.InetDiag]:
        """All that nobody has accepted, the oldest first; the kernel tells their age in ticks of its clock.

        Of the same age, the client whose socket is older comes first, or, where one has closed its own, who has the
        lower port: ports are mostly given in ascending order.
        """
        found = [diag for diag in self._dump if not diag.ino and diag.state in _QUEUED]
        ages: dict[int, list[sockdiag.InetDiag]] = {}
        for diag in found:
            ages.setdefault(diag.idle_ms, []).append(diag)
        ordered = []
        for age in sorted(ages, reverse=True):
            clients = {diag.dport: self.client_of(diag) for diag in ages[age]}
            known = all(ino > 0 for ino in clients.values())
            places = clients if known else {port: port for port in clients}
            ordered += sorted(ages[age], key=lambda diag: places[diag.dport])
        return ordered

    @cached_property
    def _by_ino(self) -> dict[int, sockdiag.InetDiag]:
        return {diag.ino: diag for diag in self._dump if diag.ino}

    def is_gone(self, local: InetAddress, remote: InetAddress) -> bool:
        """Whether the other end was on this machine, and no process has it any more."""
        if _end(remote)[0] != _end(local)[0] and not ipaddress.ip_address(_end(remote)[0]).is_loopback:
            return False
        known = self._all.get((_end(remote)[:2], _end(local)[:2]))
        return known is None or not known.ino

    def is_inside(self, local: InetAddress, remote: InetAddress) -> bool:
        """Whether a process of the job has the other end, or the last that had it has closed it."""
        known = self._all.get((_end(remote)[:2], _end(local)[:2]))
        return known.ino in self.of_job if known is not None and known.ino else self.is_gone(local, remote)

    @cached_property
    def of_job(self) -> set[int]:
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
        return {
            (_end(InetAddress(diag.src, diag.sport))[:2], _end(InetAddress(diag.dst, diag.dport))[:2]): diag
            for diag in self._dump
        }

    @cached_property
    def _dump(self) -> list[sockdiag.InetDiag]:
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            ask = partial(sockdiag.inet_sockets, family, socket.IPPROTO_TCP, idle=True)
            found += in_net_namespace(self.pid, ask)
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
