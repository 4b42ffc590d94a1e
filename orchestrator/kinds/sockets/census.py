"""What the captures of sockets share: the namespace's Unix sockets, looked up once, and the leak check."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import cached_property

import msgspec

from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.creators import is_private, peers_inside
from orchestrator.kinds.sockets.holders import in_net_namespace, socket_holders
from orchestrator.linux import sockdiag

CUT_UNIX = "unix"
"""How --external allows that connections with the outside are cut."""


class Captured(msgspec.Struct):
    """A socket of the job."""

    pid: HostPid
    what: str
    object: ObjectId


class Leak(msgspec.Struct):
    """A socket of the job that needs another one, by inode, to be in the job too."""

    holder: Captured
    ino: int
    needs: int
    resolve: Callable[[ObjectId | None], bool]
    """Called in the end with the object of the other socket, None if it is outside; tells whether that will do."""


class Census(msgspec.Struct, dict=True):
    """The sockets of one capture. It is one of the scope's finishers."""

    scope: Scope
    pid: HostPid
    """A process in the job's network namespace."""
    sockets: dict[int, Captured] = msgspec.field(default_factory=dict)
    """The captured sockets by inode."""
    queues: deque[Callable[[], None]] = msgspec.field(default_factory=deque)
    """Looks into queues, made when all tables are known: descriptors in flight may bring more sockets, and looks."""
    leaks: list[Leak] = msgspec.field(default_factory=list)
    creators: list[tuple[int, Callable[[int], None]]] = msgspec.field(default_factory=list)
    """Our descriptors of sockets whose maker we do not see, and what takes its pid."""

    @classmethod
    def of(cls, scope: Scope, pid: HostPid) -> Census:
        """Return the capture's census, beginning one at its first socket."""
        return scope.sole(cls, lambda: cls(scope, pid))

    @cached_property
    def unix(self) -> dict[int, sockdiag.UnixDiag]:
        """Every Unix socket of the namespace, by inode."""
        return in_net_namespace(self.pid, sockdiag.unix_sockets)

    @cached_property
    def waiting(self) -> dict[int, int]:
        """Clients whose connections are not accepted yet, with the listener, both by inode."""
        return {client: diag.ino for diag in self.unix.values() for client in diag.icons if client}

    @cached_property
    def callers(self) -> Counter[int]:
        """How many sockets are connected to each, by its inode."""
        return Counter(diag.peer for diag in self.unix.values() if diag.peer)

    @cached_property
    def listening(self) -> set[tuple[int, bytes | None]]:
        """The types and names of all that listen."""
        return {(diag.type, diag.name) for diag in self.unix.values() if diag.state == sockdiag.TCP_LISTEN}

    def __call__(self) -> None:
        """Look into the queues, tie the sockets together, and note those whose other end is held outside."""
        while self.queues:
            self.queues.popleft()()
        self._find_creators()
        open_ends = []
        for leak in self.leaks:
            other = self.sockets.get(leak.needs)
            if not leak.resolve(other.object if other else None):
                open_ends.append(leak)
        holders = socket_holders({leak.needs for leak in open_ends})
        for leak in open_ends:
            found = holders.get(leak.needs)
            who = f"{found[0]} ({found[1]})" if found else "no process that can be found"
            self.scope.outside(
                leak.holder.pid,
                leak.holder.what,
                f"its other end, socket:[{leak.needs}], is held by {who}, outside of the job",
                f"--external {CUT_UNIX} lets a restored job find all such ends closed",
            )

    def _find_creators(self) -> None:
        if self.creators and is_private(self.pid):
            found = peers_inside(self.pid, [fd for fd, _ in self.creators])
            for (_, take), pid in zip(self.creators, found, strict=True):
                if pid:
                    take(pid)


def external_hint(ino: int) -> str:
    """Say which option leaves a socket of the job out of the image."""
    return f"--external socket[{ino}] leaves it out of the image"
