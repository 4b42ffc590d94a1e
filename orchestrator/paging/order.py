"""In which order things have happened to an address space.

Events are read in the order in which they were told. That is the order in which one thread did things, and in which
anything was done that depends on what another has done. But who has changed mappings tells of it a moment later, and
another thread may have used the address meanwhile, or have forked, and have told of that first. Then what is mapped
now decides, here and in the children.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise, permutations

from orchestrator.linux.userfaultfd import UFFD_EVENT_FORK, UFFD_EVENT_REMAP, UFFD_EVENT_REMOVE, UFFD_EVENT_UNMAP
from orchestrator.paging.journal import Message
from orchestrator.paging.missing import MissingPages, Run
from orchestrator.paging.world import apply

Look = Callable[[int, int], int]
"""(descriptor, address) -> why nothing can be put there, as :func:`orchestrator.linux.userfaultfd.look_at` says."""

_MOST_COMPARED = 7


class OutOfOrder(Exception):
    """What has happened to an address space cannot be told from the events."""


class NotYet(Exception):
    """Something is under way in the address space, which is to be read first."""


def in_order(messages: Sequence[Message], pages: MissingPages, look: Look) -> list[Message]:
    """Put all events of an address space that have not taken effect in the order in which they happened.

    ``pages`` is what was missing before them. Raises NotYet, OutOfOrder.
    """
    if len(messages) == 1:
        return list(messages)
    left_behind = _left_behind(messages)
    changes = [one for one in messages if one.event != UFFD_EVENT_FORK and one not in left_behind.values()]
    forks = [one for one in messages if one.event == UFFD_EVENT_FORK]
    groups = []
    for group in _groups([one for one in changes if one.event != UFFD_EVENT_REMOVE]):
        history = _History(group, left_behind, pages)
        if len(group) > 1:
            places = [changes.index(one) for one in group]
            history = history.as_it_was([fork.child for fork in forks], look)
            for place, one in zip(places, history.order, strict=True):
                changes[place] = one
        groups.append(history)
    ordered = _with_forks(changes, forks, groups, look)
    return [one for message in ordered for one in (message, left_behind.get(message)) if one is not None]


def _left_behind(messages: Sequence[Message]) -> dict[Message, Message]:
    """Find for each move what tells that nothing is mapped where it was from: told later, but done at once."""
    found = {}
    left = list(messages)
    for move in [message for message in messages if message.event == UFFD_EVENT_REMAP]:
        behind = left[left.index(move) + 1 :]
        ends = (move.first, move.first + move.length)
        told = (one for one in behind if one.event == UFFD_EVENT_UNMAP and (one.first, one.second) == ends)
        source = next(told, None)
        if source is not None:
            left.remove(source)
            found[move] = source
    return found


def _ranges(message: Message) -> list[tuple[int, int]]:
    if message.event == UFFD_EVENT_REMAP:
        return [
            (message.first, message.first + message.length),
            (message.second, message.second + message.length),
        ]
    return [(message.first, message.second)]


def _groups(messages: Sequence[Message]) -> list[list[Message]]:
    """Part changes into those that have nothing to do with each other."""
    groups: list[list[Message]] = []
    for message in messages:
        touched = [group for group in groups if any(_meet(message, other) for other in group)]
        groups = [group for group in groups if group not in touched]
        groups.append([*(other for group in touched for other in group), message])
    return [sorted(group) for group in groups]


def _meet(one: Message, other: Message) -> bool:
    return any(a < d and c < b for a, b in _ranges(one) for c, d in _ranges(other))


class _History:
    """Changes of some addresses in one order."""

    def __init__(self, order: Sequence[Message], left_behind: Collection[Message], pages: MissingPages) -> None:
        self.order = order
        self._left_behind = left_behind
        self._pages = pages
        spans = [span for message in order for span in _ranges(message)]
        edges = sorted({edge for span in spans for edge in span})
        self._pieces = [(low, high) for low, high in pairwise(edges) if any(a <= low and high <= b for a, b in spans)]
        self._sample: dict[int, int] = {}
        """An address in each piece, by its start."""
        self._first: dict[int, bool] = {}
        """Whether it was watched before, by the start of a piece; what is not in it may have been."""
        for low, high in self._pieces:
            missing = pages.next(low)
            is_missing = missing is not None and low <= missing.start < high
            self._sample[low] = missing.start if is_missing and missing is not None else low
            if is_missing:
                self._first[low] = True

    def as_it_was(self, children: Sequence[int], look: Look) -> _History:
        """Return the order that fits. The fewer have overtaken others the likelier it is.

        Of several that come to the same, it is one in which most of the children are accounted for. Raises OutOfOrder
        if none fits, or another that comes to something else.
        """
        source = self.order[0].source
        if len(self.order) > _MOST_COMPARED:
            raise _confused(self.order)
        fitting = sorted((one for one in permutations(self.order) if self._fits(one, source, look)), key=_turned)
        if not fitting or any(self._outcome(order) != self._outcome(fitting[0]) for order in fitting):
            raise _confused(self.order)
        alike = [self._like(order) for order in fitting]
        return max(alike, key=lambda history: sum(bool(history._fitting(child, look)) for child in children))

    def _fitting(self, child: int, look: Look) -> list[int]:
        """Return after how many of the changes a child may have been forked, as far as can be seen."""
        seen = {low: look(child, sample) for low, sample in self._sample.items()}
        return [number for number, watched in enumerate(self._stages(self.order) or ()) if _agree(watched, seen)]

    def before_fork(self, child: int, told_before: int, look: Look) -> int:
        """Return how many of the changes a child has inherited, if it should be so many."""
        fitting = self._fitting(child, look)
        if not fitting or len(fitting) > len(self.order):  # it has changed its own mappings, or is gone
            return told_before
        outcomes = [self._outcome(self.order[:number]) for number in fitting]
        if any(outcome != outcomes[0] for outcome in outcomes):
            raise _confused(self.order)
        return min(fitting, key=lambda number: abs(number - told_before))

    def _like(self, order: Sequence[Message]) -> _History:
        return _History(order, self._left_behind, self._pages)

    def _fits(self, order: Sequence[Message], source: int, look: Look) -> bool:
        stages = self._stages(order)
        if stages is None:
            return False
        seen = {low: look(source, self._sample[low]) for low in stages[-1]}
        if errno.EAGAIN in seen.values():
            raise NotYet
        return _agree(stages[-1], seen)

    def _stages(self, order: Sequence[Message]) -> list[dict[int, bool]] | None:
        """Return which pieces are watched before each change and after the last; None if they cannot happen so."""
        watched = dict(self._first)
        stages = [dict(watched)]
        for message in order:
            first = list(self._within(*_ranges(message)[0]))
            if all(watched.get(low) is False for low in first):
                return None  # nobody is told of what is not there
            watched.update(dict.fromkeys(first, False))
            if message.event == UFFD_EVENT_REMAP:
                if message not in self._left_behind:  # MREMAP_DONTUNMAP: it may be mapped
                    for low in first:
                        del watched[low]
                there = list(self._within(*_ranges(message)[1]))
                if any(watched.get(low) for low in there):
                    return None  # what is there is unmapped first
                watched.update(dict.fromkeys(there, True))
            stages.append(dict(watched))
        return stages

    def _within(self, start: int, end: int) -> Iterator[int]:
        return (low for low, high in self._pieces if start <= low and high <= end)

    def _outcome(self, order: Sequence[Message]) -> list[Run]:
        world = {self.order[0].source: self._pages.copy()}
        for message in order:
            apply(world, message)
        return world[self.order[0].source].runs()


def _agree(watched: dict[int, bool], seen: dict[int, int]) -> bool:
    """Whether what should be watched is, and what should not is not, as far as can be seen."""
    told = {errno.EFAULT: True, errno.ENOENT: False}
    return all(told.get(seen[low], is_watched) == is_watched for low, is_watched in watched.items())


def _turned(order: Sequence[Message]) -> int:
    return sum(one.number > other.number for nth, one in enumerate(order) for other in order[nth + 1 :])


def _confused(group: Sequence[Message]) -> OutOfOrder:
    return OutOfOrder(f"threads moved memory at one time, and in which order cannot be told ({len(group)} changes)")


def _with_forks(
    changes: Sequence[Message], forks: Sequence[Message], groups: Sequence[_History], look: Look
) -> list[Message]:
    """Put forks between changes, each where its child says."""
    inherited: list[tuple[Message, set[Message]]] = []
    for fork in forks:
        before = {one for one in changes if one.event == UFFD_EVENT_REMOVE and one.number < fork.number}
        for history in groups:
            told_before = sum(one.number < fork.number for one in history.order)
            before.update(history.order[: history.before_fork(fork.child, told_before, look)])
        inherited.append((fork, before))
    inherited.sort(key=lambda pair: len(pair[1]))
    ordered: list[Message] = []
    done: set[Message] = set()
    for fork, before in inherited:
        if not done <= before:
            raise _confused([*forks, *changes])
        ordered += [one for one in changes if one in before - done]
        ordered.append(fork)
        done |= before
    return ordered + [one for one in changes if one not in done]
