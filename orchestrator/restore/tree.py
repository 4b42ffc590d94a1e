"""Who forks whom, and when: the order in which a process tree is made again.

The rules come from what a fork hands on. A child has the session that its parent had at that moment, so
it is forked before or after the parent's setsid. A child that shares pages with its parent is forked when
these are in place, and one that shares none before, so that it does not carry them. What the job's own
processes cannot bring about by themselves is done by stand-ins, which go away as soon as everybody is
there: they found the sessions and groups whose leaders are dead or no part of the job, and they are the
parents that orphans lost (see ends.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from orchestrator.errors import CannotHonour
from orchestrator.ids import Pid
from orchestrator.kinds.task.process import OUTSIDE, Process, sharing_siblings
from orchestrator.restore.birth import BirthSessions, common_tables

CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_PARENT = 0x100, 0x200, 0x400, 0x800, 0x8000
INIT = Pid(1)
_SIGCHLD = 17
_SHARED = {"memory": CLONE_VM, "files": CLONE_FILES, "filesystem": CLONE_FS, "signal_actions": CLONE_SIGHAND}


class Node(msgspec.Struct, eq=False):
    """A process to be made."""

    pid: Pid
    process: Process | None = None
    """None for init and for stand-ins."""
    creator: Node | None = None
    """Who clones it; its parent, or (CLONE_PARENT) a sibling, or the parent that it lost."""
    parent: Node | None = None
    """Whose child it is in the end."""
    flags: int = 0
    """Sharing and CLONE_PARENT, for clone3."""
    makes_session: bool = False
    makes_group: bool = False
    """Whether it founds a group, when it has made its children: none is born into it."""
    joins_group: Pid | None = None
    """A group to enter once everybody is there; None if it is born into its group or founds it."""
    before_setsid: list[Node] = msgspec.field(default_factory=list)
    after_setsid: list[Node] = msgspec.field(default_factory=list)
    inherits: set[Pid] = msgspec.field(default_factory=set)
    """Those of the nodes it clones that share pages with it."""
    hands_to: Node | None = None
    """For a stand-in that is the lost parent of somebody: who adopts its children."""

    @property
    def is_stand_in(self) -> bool:
        """Whether it goes away before the job runs."""
        return self.process is None and self.pid != INIT

    @property
    def is_zombie(self) -> bool:
        """Whether it ends as soon as everybody is there, and stays a zombie."""
        return self.process is not None and self.process.state is None


class Tree(msgspec.Struct):
    """A plan: the origin makes the roots, and so on. ``nodes`` stand in an order of possible creation."""

    origin: Node
    nodes: list[Node]

    def by_pid(self, pid: Pid) -> Node:
        """Return the node of a process."""
        return next(node for node in self.nodes if node.pid == pid)


SharesPages = Callable[[Process, Process], bool]
"""(child, parent): whether the child has pages in common with the parent."""


def plan_tree(processes: Sequence[Process], shares_pages: SharesPages) -> Tree:
    """Decide who forks whom. ``processes`` stand parents first."""
    return _Planner(processes, shares_pages).plan()


class _Planner:
    def __init__(self, processes: Sequence[Process], shares_pages: SharesPages) -> None:
        self._processes = processes
        self._shares_pages = shares_pages
        self._known = {p.pid: p for p in processes}
        self._births = BirthSessions(processes)
        self._nodes: dict[Pid, Node] = {}
        self._placing: set[Pid] = set()
        self._origin = Node(INIT, self._known.get(INIT))
        self._nodes[INIT] = self._origin
        self._order = [self._origin]
        self._partners = {p.pid: q.pid for p, q in sharing_siblings(processes)}
        self._next_free = max([2, *self._known, *(p.session for p in processes), *(p.group for p in processes)]) + 1

    def plan(self) -> Tree:
        if self._origin.process is not None:
            self._found(self._origin, self._origin.process)
        for process in self._processes:
            self._place(process.pid)
        groups = {process.group for process in self._processes}
        for process in self._processes:
            self._place_in_group(process, process.pid in groups)
        # a stand-in may have been made after others that its creator makes: creators first is all that counts
        return Tree(self._origin, self._order)

    def _found(self, node: Node, process: Process) -> None:
        node.makes_session = process.session == process.pid
        node.makes_group = process.group == process.pid and not node.makes_session

    def _place(self, pid: Pid) -> Node:
        """Decide who makes a process, after its parent and the leader of its session."""
        if pid in self._nodes:
            return self._nodes[pid]
        process = self._known[pid]
        if pid in self._placing:
            raise CannotHonour(f"process {pid} ({process.name}) has a place in the tree that no order of forks makes")
        self._placing.add(pid)
        parent = self._place(process.parent if process.parent != OUTSIDE else INIT)
        node = Node(pid, process, parent=parent)
        self._found(node, process)
        partner = self._partners.get(pid)
        maker = parent if partner is None else self._place(partner)
        session = self._births.of(process)
        if session is None or session == self._session_of(maker):
            self._born_of(node, maker, after_setsid=True)
        elif maker.makes_session and maker.process and session == self._births.of(maker.process):
            self._born_of(node, maker, after_setsid=False)
        else:
            self._refuse_sharing(process, maker)
            self._born_elsewhere(node, parent, session)
        if node.creator is not parent and node.creator is not None and not node.creator.hands_to:
            node.flags |= CLONE_PARENT
        self._nodes[pid] = node
        self._order.append(node)
        return node

    def _refuse_sharing(self, process: Process, other: Node) -> None:
        for table in common_tables(process, other.process):
            raise CannotHonour(
                f"process {process.pid} ({process.name}) shares its {table.replace('_', ' ')} with "
                f"process {other.pid}, which was never in the session that it was born into"
            )

    def _session_of(self, node: Node) -> Pid:
        """Return the session of a node in the end."""
        while node.process is None and not node.makes_session:
            if node.creator is None:
                return OUTSIDE
            node = node.creator
        return node.process.session if node.process else node.pid

    def _born_of(self, node: Node, creator: Node, *, after_setsid: bool) -> None:
        node.creator = creator
        (creator.after_setsid if after_setsid else creator.before_setsid).append(node)
        if node.process is None or node.process.state is None:
            return
        real = creator
        while real.is_stand_in and real.creator is not None:
            real = real.creator
        shared = common_tables(node.process, creator.process)
        for table in shared:
            node.flags |= _SHARED[table]
        if real.process is None or real.process.state is None:
            return
        if "memory" in shared or self._shares_pages(node.process, real.process):
            below = node
            while below is not real and below.creator is not None:  # stand-ins hand the pages on
                below.creator.inherits.add(below.pid)
                below = below.creator

    def _born_elsewhere(self, node: Node, parent: Node, session: Pid) -> None:
        """Let a process be born into a session that its parent never was in."""
        leader = self._leader(session)
        exit_signal = leader.process.exit_signal if leader.process else _SIGCHLD
        assert node.process is not None
        if leader.parent is parent and exit_signal == node.process.exit_signal:
            self._born_of(node, leader, after_setsid=True)
        else:
            between = self._stand_in(self._unused(), leader)
            between.hands_to = parent
            self._born_of(node, between, after_setsid=True)

    def _leader(self, session: Pid) -> Node:
        if session in self._known:
            return self._place(session)
        if session not in self._nodes:
            # below all who adopted one of its members, so that each of them can do it again
            adopters = self._births.adopters(session)
            deepest = max(adopters, key=self._births.depth, default=INIT)
            self._stand_in(session, self._place(deepest), makes_session=True)
        return self._nodes[session]

    def _unused(self) -> Pid:
        self._next_free += 1
        return Pid(self._next_free - 1)

    def _stand_in(self, pid: Pid, creator: Node, *, makes_session: bool = False, makes_group: bool = False) -> Node:
        node = Node(pid, None, creator, creator, makes_session=makes_session, makes_group=makes_group)
        creator.after_setsid.append(node)
        self._nodes[pid] = node
        self._order.append(node)
        return node

    def _place_in_group(self, process: Process, has_namesakes: bool) -> None:
        node = self._nodes[process.pid]
        if node.makes_session or process.group == process.pid:
            return
        if has_namesakes:
            # It founded a group that it has left, and others are in there: somebody must stay until they are.
            node.makes_group = True
            self._stand_in(self._unused(), node).joins_group = process.pid
        elif process.group == self._group_at_birth(node):
            return
        if process.group == OUTSIDE:
            raise CannotHonour(f"process {process.pid} ({process.name}) is in a group that it cannot go back to")
        if process.group not in self._nodes:
            self._stand_in(process.group, self._in_session(process, node.creator), makes_group=True)
        node.joins_group = process.group

    def _in_session(self, process: Process, creator: Node | None) -> Node:
        while creator is not None and creator.hands_to is not None:  # it ends while its other children are still needed
            creator = creator.creator
        for node in (creator, self._origin, self._nodes.get(process.session)):
            if node is not None and self._session_of(node) == process.session:
                return node
        raise CannotHonour(
            f"process group {process.group} of process {process.pid} has no leader, and session "
            f"{process.session} has nobody who could stand in for it"
        )

    def _group_at_birth(self, node: Node) -> Pid:
        creator = node.creator
        while creator is not None:
            if creator.makes_session and node in creator.after_setsid:
                return creator.pid
            node, creator = creator, creator.creator
        return OUTSIDE
