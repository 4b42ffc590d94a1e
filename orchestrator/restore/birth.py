"""Which session every process was born into: what is left of the history of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.ids import Pid
from orchestrator.kinds.task.process import OUTSIDE, Process

_INIT = Pid(1)
_SIGCHLD = 17
_TABLES = ("memory", "files", "filesystem", "signal_actions")


def common_tables(process: Process, other: Process | None) -> Iterator[str]:
    """Yield what two processes share, as clone(2) makes it so."""
    if other is None or other.state is None or process.state is None:
        return
    for table in _TABLES:
        if getattr(process.state, table) == getattr(other.state, table):
            yield table


class BirthSessions:
    """Answers for a whole tree."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._known = {p.pid: p for p in processes}
        self._children: dict[Pid, list[Process]] = {}
        self._members: dict[Pid, list[Process]] = {}
        for p in processes:
            self._children.setdefault(p.parent, []).append(p)
            self._members.setdefault(p.session, []).append(p)
        self._found: dict[Pid, Pid | None] = {}

    def of(self, process: Process) -> Pid | None:
        """Return the session that a process must be born into; None if any will do, as it makes its own."""
        if process.session != process.pid:
            return process.session
        if process.pid not in self._found:
            self._found[process.pid] = None  # while it is not known
            self._found[process.pid] = self._of_leader(process)
        return self._found[process.pid]

    def _of_leader(self, leader: Process) -> Pid | None:
        """Look for a child that must be older than the leader's session."""
        for child in self._children.get(leader.pid, []):
            session = self.of(child)
            if session is not None and session != leader.pid and self._is_older(session, leader, child):
                return session
        return None

    def _is_older(self, session: Pid, leader: Process, child: Process) -> bool:
        """Tell a child from before setsid from one adopted: that one's session began below the leader."""
        if session == OUTSIDE:
            return True
        founder = self._known.get(session)
        if founder is not None:
            return not self._is_below(founder, leader)
        if child.exit_signal != _SIGCHLD or any(common_tables(child, leader)):
            return True  # adoption leaves no such thing
        return not all(self._is_below(member, leader) for member in self._members[session])

    def _is_below(self, process: Process, above: Process) -> bool:
        at: Process | None = process
        while at is not None and at is not above:
            at = self._known.get(at.parent)
        return at is above

    def adopters(self, session: Pid) -> list[Pid]:
        """List the parents of members of a session who never were in it: they adopted them."""
        found = []
        for process in self._known.values():
            if process.pid != session and self.of(process) == session:
                parent = self._known.get(process.parent if process.parent != OUTSIDE else _INIT)
                if parent is None:
                    found.append(_INIT)
                elif session not in (parent.session, self.of(parent)):
                    found.append(parent.pid)
        return found

    def depth(self, pid: Pid) -> int:
        """Return how far a process is below process 1."""
        count = 0
        at = self._known.get(pid)
        while at is not None and at.pid != _INIT:
            count += 1
            at = self._known.get(at.parent)
        return count
