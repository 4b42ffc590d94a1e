"""Connections with the outside that outlive their job: nobody at the other end may hear that our end is gone.

While a job is captured and until it runs again, a packet filter drops what comes and goes over these connections.
For as long as the job may yet go on, the filter belongs to a netlink socket of orch, and ends with it whatever
happens. A second one, that stays, is made at the moment the job is killed; its name is in the image.
"""

from __future__ import annotations

import uuid
from functools import partial

import msgspec

from orchestrator.ids import HostPid
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.holders import in_net_namespace
from orchestrator.kinds.sockets.tcp_peers import TcpPeers
from orchestrator.linux.nftables import Flow, Nftables

KEEP = "tcp-keep"
"""How --external (and --tcp keep) allows that connections with the outside are kept."""


class TcpHold(msgspec.Struct):
    """The connections with the outside of one capture."""

    scope: Scope
    pid: HostPid
    name: str
    """Of the filter that stays."""
    flows: list[Flow]

    @classmethod
    def of(cls, scope: Scope, pid: HostPid, peers: TcpPeers) -> TcpHold:
        """Return the capture's, holding all connections with the outside from its first on."""
        return scope.sole(cls, lambda: cls._hold(scope, pid, peers))

    @classmethod
    def _hold(cls, scope: Scope, pid: HostPid, peers: TcpPeers) -> TcpHold:
        flows = []
        for local, remote in peers.with_outside():
            flows += [Flow(local, remote), Flow(remote, local)]
        hold = cls(scope, pid, f"orch-{uuid.uuid4().hex}", flows)
        scope.closers.append(in_net_namespace(pid, hold._begin))
        scope.farewells.append(partial(in_net_namespace, pid, hold._stay))
        return hold

    def _begin(self) -> int:
        filters = Nftables()
        try:
            filters.drop(f"{self.name}-now", self.flows, owned=True)
        except BaseException:
            filters.__exit__()
            raise
        return filters.detach()

    def _stay(self) -> None:
        with Nftables() as filters:
            filters.drop(self.name, self.flows, owned=False)


def let_through(names: set[str]) -> int:
    """Remove filters in our own network namespace; return how many there were."""
    with Nftables() as filters:
        return sum(filters.remove(name) for name in sorted(names))
