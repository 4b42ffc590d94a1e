"""Who forks whom, and when: the order in which a process tree is made again.

The rules come from what a fork hands on. A child has the session and the group that its parent had at
that moment, so it is forked before or after the parent's setsid. A child that shares pages with its
parent is forked when these are in place, and one that shares none before, so that it does not carry
them. A session or a group whose leader is dead, or is no part of the job, is founded by a stand-in:
a process with the right number that goes away as soon as everybody is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import CannotHonour
from orchestrator.ids import Pid
from orchestrator.kinds.task.process import OUTSIDE, Process, sharing_siblings

CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_PARENT = 0x100, 0x200, 0x400, 0x800, 0x8000
INIT = Pid(1)


@dataclass(eq=False, slots=True)
class Node:
    """A process to be made."""

    pid: Pid
    process: Process | None = None
    """None for init and for stand-ins."""
    creator: Node | None = None
    """Who clones it; its parent, or (CLONE_PARENT) a sibling."""
    parent: Node | None = None
    flags: int = 0
    """Sharing and CLONE_PARENT, for clone3."""
    makes_session: bool = False
    makes_group: bool = False
    joins_group: Pid | None = None
    """A group to enter once everybody is there; None if it is born into its group."""
    before_setsid: list[Node] = field(default_factory=list)
    after_setsid: list[Node] = field(default_factory=list)
    inherits: set[Pid] = field(default_factory=set)
    """Those of the nodes it clones that share pages with it."""

    @property
    def is_stand_in(self) -> bool:
        """Whether it goes away before the job runs."""
        return self.process is None and self.pid != INIT

    @property
    def is_zombie(self) -> bool:
        """Whether it ends as soon as everybody is there, and stays a zombie."""
        return self.process is not None and self.process.state is None


@dataclass(slots=True)
class Tree:
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
        self._nodes: dict[Pid, Node] = {}
        own_init = self._known.get(INIT)
        self._origin = Node(INIT, own_init)
        self._nodes[INIT] = self._origin
        self._children: dict[Pid, list[Process]] = {}
        for p in processes:
            self._children.setdefault(p.parent, []).append(p)
        self._order = [self._origin]
        self._partners = {p.pid: q.pid for p, q in sharing_siblings(processes)}
        self._next_free = max([2, *self._known, *(p.session for p in processes), *(p.group for p in processes)]) + 1

    def plan(self) -> Tree:
        if self._origin.process is not None:
            self._found(self._origin, self._origin.process)
        for process in self._processes:
            if process.pid != INIT:
                self._place(process)
        for process in self._processes:
            self._place_in_group(process)
        return Tree(self._origin, self._order)

    def _found(self, node: Node, process: Process) -> None:
        node.makes_session = process.session == process.pid
        node.makes_group = process.group == process.pid and not node.makes_session

    def _born_session(self, process: Process) -> Pid | None:
        """Return the session that a process must be born into; None if any will do.

        Session 0 has its leader outside the PID namespace that the job had.
        """
        if process.session == OUTSIDE:
            return None
        if process.session != process.pid:
            return process.session
        for child in self._children.get(process.pid, []):
            born = self._born_session(child)
            if born is not None and born != process.pid:
                return born
        return None

    def _place(self, process: Process) -> None:
        parent = self._nodes[process.parent if process.parent != OUTSIDE else INIT]
        node = Node(process.pid, process, parent=parent)
        self._found(node, process)
        born = self._born_session(process)
        partner = self._partners.get(process.pid)
        if partner is not None:
            node.flags |= CLONE_PARENT
            self._born_of(node, self._nodes[partner], after_setsid=True)
        elif born is None or born == self._session_of(parent):
            self._born_of(node, parent, after_setsid=True)
        elif parent.makes_session and parent.process and born == self._born_session(parent.process):
            self._born_of(node, parent, after_setsid=False)
        else:
            self._born_elsewhere(node, parent, born)
        self._nodes[process.pid] = node
        self._order.append(node)

    def _session_of(self, node: Node) -> Pid | None:
        return node.process.session if node.process else node.pid if node.makes_session else None

    def _born_of(self, node: Node, creator: Node, *, after_setsid: bool) -> None:
        node.creator = creator
        (creator.after_setsid if after_setsid else creator.before_setsid).append(node)
        if node.process is None or creator.process is None:
            return
        child, maker = node.process.state, creator.process.state
        if child is None or maker is None:
            return
        if child.memory == maker.memory:
            node.flags |= CLONE_VM
            creator.inherits.add(node.pid)
        elif self._shares_pages(node.process, creator.process):
            creator.inherits.add(node.pid)
        node.flags |= CLONE_FILES if child.files == maker.files else 0
        node.flags |= CLONE_FS if child.filesystem == maker.filesystem else 0
        node.flags |= CLONE_SIGHAND if child.signal_actions == maker.signal_actions else 0

    def _born_elsewhere(self, node: Node, parent: Node, session: Pid) -> None:
        """Let a process be born into a session that its parent never was in."""
        leader = self._nodes.get(session)
        if leader is None:
            leader = self._stand_in(session, parent, makes_session=True)
        if leader.parent is parent:
            node.flags |= CLONE_PARENT
            self._born_of(node, leader, after_setsid=True)
        else:
            # the parent adopted it: born of a stand-in below the leader, orphaned when that goes
            between = self._stand_in(self._unused(), leader)
            self._born_of(node, between, after_setsid=True)

    def _unused(self) -> Pid:
        while self._next_free in self._known:
            self._next_free += 1
        self._next_free += 1
        return Pid(self._next_free - 1)

    def _stand_in(self, pid: Pid, creator: Node, *, makes_session: bool = False, makes_group: bool = False) -> Node:
        node = Node(pid, None, creator, creator, makes_session=makes_session, makes_group=makes_group)
        creator.after_setsid.append(node)
        self._nodes[pid] = node
        self._order.append(node)
        return node

    def _place_in_group(self, process: Process) -> None:
        node = self._nodes[process.pid]
        if process.group == process.pid or node.makes_session or process.group == OUTSIDE:
            return
        if process.group == self._group_at_birth(node):
            return
        if process.group not in self._nodes:
            member_of = node.creator
            assert member_of is not None
            self._stand_in(process.group, self._in_session(process, member_of), makes_group=True)
        node.joins_group = process.group

    def _in_session(self, process: Process, creator: Node) -> Node:
        if self._session_of(creator) == process.session:
            return creator
        node = self._nodes.get(process.session)
        if node is None:
            raise CannotHonour(
                f"process group {process.group} of process {process.pid} has no leader, and session "
                f"{process.session} has nobody who could stand in for it"
            )
        return node

    def _group_at_birth(self, node: Node) -> Pid | None:
        creator = node.creator
        while creator is not None:
            born_after = node in creator.after_setsid
            if creator.makes_group or (creator.makes_session and born_after):
                return creator.pid
            node, creator = creator, creator.creator
        return None
