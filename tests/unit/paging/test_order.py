"""The order in which things happened to an address space, against a model of the kernel and of several threads."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.linux.userfaultfd import UFFD_EVENT_FORK, UFFD_EVENT_REMAP, UFFD_EVENT_REMOVE, UFFD_EVENT_UNMAP
from orchestrator.paging.journal import Message
from orchestrator.paging.missing import MissingPages, Run
from orchestrator.paging.order import OutOfOrder, in_order
from orchestrator.paging.world import World, apply

PAGE = 4096
PLACES = 4
PARENT = 3


@dataclass
class Kernel:
    """Some blocks of one page that are watched, with what belongs there; None is a page of zeros."""

    blocks: dict[int, int | None]
    children: dict[int, dict[int, int | None]] = field(default_factory=dict)

    def look(self, fd: int, address: int) -> int:
        blocks = self.blocks if fd == PARENT else self.children[fd]
        return errno.EFAULT if address // PAGE in blocks else errno.ENOENT

    def do(self, what: str, which: int) -> Iterator[tuple[int, int, int, int]]:
        """Let a thread do something; yield the events that it then tells of, one after the other."""
        mapped = sorted(self.blocks)
        if what == "fork":
            child = 100 + len(self.children)
            self.children[child] = dict(self.blocks)
            yield UFFD_EVENT_FORK, child, 0, 0
        elif not mapped:
            return
        elif what == "unmap":
            block = mapped[which % len(mapped)]
            del self.blocks[block]
            yield UFFD_EVENT_UNMAP, block * PAGE, (block + 1) * PAGE, 0
        elif what == "move":
            block = mapped[which % len(mapped)]
            free = min(set(range(1, PLACES + 9)) - set(mapped))  # as the kernel does: the same again and again
            self.blocks[free] = self.blocks.pop(block)
            yield UFFD_EVENT_REMAP, block * PAGE, free * PAGE, PAGE
            yield UFFD_EVENT_UNMAP, block * PAGE, (block + 1) * PAGE, 0


doing = st.tuples(st.sampled_from(["unmap", "move", "move", "fork"]), st.integers(0, 9))
few = st.lists(doing, min_size=2, max_size=2)
doings = st.lists(doing, min_size=2, max_size=4)


def told(kernel: Kernel, doings: list[tuple[str, int]], data: st.DataObject, slow: int) -> list[Message]:
    """Have each thing done by a thread of its own, and let some of these be slow to tell of it."""
    waiting: list[tuple[tuple[int, int, int, int], Iterator[tuple[int, int, int, int]]]] = []
    messages: list[Message] = []
    todo = list(doings)
    while todo or waiting:
        if todo and (not waiting or data.draw(st.booleans())):
            doing = kernel.do(*todo.pop(0))
        else:
            first = data.draw(st.integers(0, len(waiting) - 1)) if slow else 0
            slow -= bool(first)
            message, doing = waiting.pop(first)
            messages.append(Message(len(messages), PARENT, *message))
        event = next(doing, None)
        if event is not None:
            waiting.append((event, doing))
    return messages


def must_be(world: World, kernel: Kernel) -> None:
    for fd, blocks in ((PARENT, kernel.blocks), *kernel.children.items()):
        assert {run.start // PAGE: run.at // PAGE for run in _pages(world[fd])} == blocks, fd


def everything() -> MissingPages:
    return MissingPages(Run(block * PAGE, (block + 1) * PAGE, block * PAGE) for block in range(1, PLACES + 1))


@settings(max_examples=300)
@given(few, st.data())
def test_an_order_that_is_true_is_kept(doings: list[tuple[str, int]], data: st.DataObject) -> None:
    kernel = Kernel({block: block for block in range(1, PLACES + 1)})
    messages = told(kernel, doings, data, slow=0)
    world: World = {PARENT: everything()}
    for message in in_order(messages, everything(), kernel.look):
        apply(world, message)
    must_be(world, kernel)


@settings(max_examples=300)
@given(doings, st.data(), st.integers(0, 2))
def test_an_order_is_found_or_it_is_known_that_none_is(
    doings: list[tuple[str, int]], data: st.DataObject, slow: int
) -> None:
    kernel = Kernel({block: block for block in range(1, PLACES + 1)})
    messages = told(kernel, doings, data, slow)
    world: World = {PARENT: everything()}
    try:
        messages = in_order(messages, everything(), kernel.look)
    except OutOfOrder:
        return
    for message in messages:
        apply(world, message)
    must_be(world, kernel)


def test_who_took_the_place_of_what_was_unmapped_has_it() -> None:
    """The second thread tells first that its memory was moved to where that of the first was."""
    kernel = Kernel({1: 1, 2: 2})
    (unmapped,) = kernel.do("unmap", 0)
    moved = list(kernel.do("move", 0))
    messages = [Message(number, PARENT, *event) for number, event in enumerate([moved[0], unmapped, moved[1]])]
    pages = MissingPages([Run(PAGE, 3 * PAGE, PAGE)])
    assert [one.number for one in in_order(messages, pages, kernel.look)] == [1, 0, 2]


def _pages(missing: MissingPages) -> Iterator[Run]:
    for run in missing.runs():
        for start in range(run.start, run.end, PAGE):
            yield run.part(start, start + PAGE)


def test_what_has_no_order_is_an_error() -> None:
    """What was unmapped twice is not there."""
    told = [
        Message(0, PARENT, UFFD_EVENT_UNMAP, PAGE, 2 * PAGE, 0),
        Message(1, PARENT, UFFD_EVENT_UNMAP, PAGE, 2 * PAGE, 0),
    ]
    with pytest.raises(OutOfOrder):
        in_order(told, MissingPages(), lambda *_: errno.EFAULT)


def test_what_is_given_back_is_so_when_it_was_told() -> None:
    told = [
        Message(0, PARENT, UFFD_EVENT_REMOVE, PAGE, 2 * PAGE, 0),
        Message(1, PARENT, UFFD_EVENT_FORK, 100, 0, 0),
    ]
    assert in_order(told, MissingPages(), lambda *_: errno.EFAULT) == told
