"""The address spaces that are served, and what events do to them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise, permutations

from orchestrator.linux.userfaultfd import (
    UFFD_EVENT_FORK,
    UFFD_EVENT_REMAP,
    UFFD_EVENT_REMOVE,
    UFFD_EVENT_UNMAP,
)
from orchestrator.paging.journal import Closed, Journal, Message
from orchestrator.paging.missing import MissingPages

World = dict[int, MissingPages]
"""By the descriptor of each, the oldest first."""

Look = Callable[[int, int], int]
"""(descriptor, address) -> why nothing can be put there, as :func:`orchestrator.linux.userfaultfd.look_at` says."""

_MOST_ORDERS = 5040


class OutOfOrder(Exception):
    """What has happened to an address space cannot be told from the events."""


def apply(world: World, message: Message) -> None:
    """Let an event take effect."""
    pages = world.get(message.source)
    if pages is None:
        return
    if message.event == UFFD_EVENT_FORK:
        fd = message.first & 0xFFFFFFFF
        world.pop(fd, None)
        world[fd] = pages.copy()
    elif message.event == UFFD_EVENT_REMAP:
        pages.move(message.first, message.second, message.length)
    elif message.event in (UFFD_EVENT_REMOVE, UFFD_EVENT_UNMAP):
        pages.remove(message.first, message.second)


def replay(world: World, journal: Journal) -> dict[int, list[Message]]:
    """Bring what was known when a journal was begun up to date; return what was read and not applied, by source."""
    for step in journal.replay():
        if isinstance(step, Closed):
            world.pop(step.fd, None)
            continue
        for message in step:
            apply(world, message)
    left: dict[int, list[Message]] = {}
    for message in journal.left():
        left.setdefault(message.source, []).append(message)
    return left


def unborn(left: Mapping[int, Iterable[Message]]) -> set[int]:
    """Return the descriptors of processes whose fork has not taken effect yet, from such events."""
    return {
        message.first & 0xFFFFFFFF
        for messages in left.values()
        for message in messages
        if message.event == UFFD_EVENT_FORK
    }


def in_order(messages: Sequence[Message], look: Look) -> list[Message]:
    """Put events of one address space in the order in which they happened. Nothing is under way there now.

    They are read in the order in which they were told. That is the order in which one thread did things, and in which
    anything was done that depends on what another has done. But who has changed mappings tells of it a moment later,
    and another may have used the address meanwhile, and have told of that first. Then what is mapped now decides.
    Raises OutOfOrder.
    """
    moving = [message for message in messages if message.event != UFFD_EVENT_REMOVE]
    groups = _groups(moving)
    if all(len(group) == 1 for group in groups):
        return list(messages)
    ordered = list(messages)
    for group in groups:
        if len(group) == 1:
            continue
        places = [messages.index(message) for message in group]
        for order in islice(permutations(group), _MOST_ORDERS):
            if _is_true(order, look):
                for place, message in zip(places, order, strict=True):
                    ordered[place] = message
                break
        else:
            raise OutOfOrder(f"{len(group)} threads or more moved memory at one time")
    return ordered


def _ranges(message: Message) -> list[tuple[int, int]]:
    if message.event == UFFD_EVENT_REMAP:
        return [
            (message.first, message.first + message.length),
            (message.second, message.second + message.length),
        ]
    return [(message.first, message.second)] if message.event == UFFD_EVENT_UNMAP else []


def _groups(messages: Sequence[Message]) -> list[list[Message]]:
    """Part events into those that have nothing to do with each other; a fork has with all."""
    if any(message.event == UFFD_EVENT_FORK for message in messages):
        return [list(messages)]
    groups: list[list[Message]] = []
    for message in messages:
        touched = [group for group in groups if any(_meet(message, other) for other in group)]
        groups = [group for group in groups if group not in touched]
        groups.append([*(other for group in touched for other in group), message])
    return [sorted(group) for group in groups]


def _meet(one: Message, other: Message) -> bool:
    return any(a < d and c < b for a, b in _ranges(one) for c, d in _ranges(other))


def _is_true(order: Sequence[Message], look: Look) -> bool:
    """Whether events in this order lead to what is mapped now."""
    edges = sorted({edge for message in order for span in _ranges(message) for edge in span})
    pieces = list(pairwise(edges))
    watched: dict[int, bool] = {}  # by the start of a piece; not there: it may be or not

    def within(start: int, end: int) -> Iterator[int]:
        return (low for low, high in pieces if start <= low and high <= end)

    for message in order:
        if message.event == UFFD_EVENT_UNMAP:
            watched.update(dict.fromkeys(within(message.first, message.second), False))
        elif message.event == UFFD_EVENT_REMAP:
            end = message.first + message.length
            if any(watched.get(low) is False for low in within(message.first, end)):
                return False  # what is not there is not moved
            for low in within(message.first, end):
                watched.pop(low, None)  # MREMAP_DONTUNMAP leaves it mapped
            watched.update(dict.fromkeys(within(message.second, message.second + message.length), True))
        elif not _agrees(message.first & 0xFFFFFFFF, watched.items(), look):
            return False
    return _agrees(order[0].source, watched.items(), look)


def _agrees(fd: int, expected: Iterable[tuple[int, bool]], look: Look) -> bool:
    for address, is_watched in expected:
        found = look(fd, address)
        if found in (errno.EFAULT, errno.ENOENT) and (found == errno.EFAULT) != is_watched:
            return False
    return True
