"""The address spaces that are served, and what events do to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def apply(world: World, message: Message) -> None:
    """Let an event take effect."""
    pages = world.get(message.source)
    if pages is None:
        return
    if message.event == UFFD_EVENT_FORK:
        world.pop(message.child, None)
        world[message.child] = pages.copy()
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
    return {message.child for messages in left.values() for message in messages if message.event == UFFD_EVENT_FORK}
