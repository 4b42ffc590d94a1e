"""When stand-ins end: the order that hands every orphan to who adopted it before.

The children of a process that ends go to the nearest subreaper above it. So subreapers become that from
the top of the tree downwards, and in between those stand-ins end whose children belong to them. See
PR_SET_CHILD_SUBREAPER in prctl(2).
"""

from __future__ import annotations

import msgspec

from orchestrator.errors import CannotHonour
from orchestrator.restore.tree import CLONE_PARENT, Node, Tree


class Round(msgspec.Struct):
    """What happens between two barriers: first these become subreapers, then those end and are reaped."""

    subreapers: list[Node] = msgspec.field(default_factory=list)
    ends: list[Node] = msgspec.field(default_factory=list)


def plan_ends(tree: Tree) -> list[Round]:
    """Order the ends of stand-ins; raise CannotHonour if an orphan would go to somebody else."""
    depths = {tree.origin: 0}
    for node in _parents_first(tree):
        assert node.parent is not None
        depths[node] = depths[node.parent] + 1
    waiting = sorted((n for n in tree.nodes if _is_subreaper(n) and n is not tree.origin), key=depths.__getitem__)
    rounds = []
    handing: dict[int, list[Node]] = {}
    for node in tree.nodes:
        if node.hands_to is not None:
            handing.setdefault(depths[node.hands_to], []).append(node)
    for depth in sorted(handing):
        now = [node for node in waiting if depths[node] <= depth]
        waiting = waiting[len(now) :]
        rounds.append(Round(now, handing[depth]))
    _check(tree, rounds)
    rounds.append(Round(waiting))
    others = [node for node in tree.nodes if node.is_stand_in and node.hands_to is None]
    levels = sorted({_generation(node) for node in others}, reverse=True)  # children before their parents
    return rounds + [Round([], [node for node in others if _generation(node) == level]) for level in levels]


def _is_subreaper(node: Node) -> bool:
    return bool(node.process and node.process.state and node.process.state.attributes.child_subreaper)


def _parents_first(tree: Tree) -> list[Node]:
    children: dict[Node, list[Node]] = {}
    for node in tree.nodes:
        if node.parent is not None:
            children.setdefault(node.parent, []).append(node)
    ordered, queue = [], [tree.origin]
    while queue:
        below = children.get(queue.pop(), [])
        ordered += below
        queue += below
    return ordered


def _generation(node: Node) -> int:
    count = 0
    while node.creator is not None:
        node, count = node.creator, count + 1
    return count


def _check(tree: Tree, rounds: list[Round]) -> None:
    """Go through the adoptions and compare with what is wanted."""
    parents: dict[Node, Node] = {}
    for node in tree.nodes:
        if node.creator is not None:
            parents[node] = parents[node.creator] if node.flags & CLONE_PARENT else node.creator
    reapers = {tree.origin}
    for step in rounds:
        reapers.update(step.subreapers)
        for node in step.ends:
            above = parents[node]
            while above not in reapers:
                above = parents[above]
            for child in [child for child, parent in parents.items() if parent is node]:
                parents[child] = above
    for node, parent in parents.items():
        if node.process is not None and parent is not node.parent:
            assert node.parent is not None
            raise CannotHonour(
                f"process {node.pid} ({node.process.name}) was adopted by process {node.parent.pid}, which no order of "
                "forks and ends brings about again"
            )
