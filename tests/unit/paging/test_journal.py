"""What was read outlives its reader."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from orchestrator.linux.userfaultfd import (
    UFFD_EVENT_FORK,
    UFFD_EVENT_PAGEFAULT,
    UFFD_EVENT_REMAP,
    UFFD_EVENT_REMOVE,
)
from orchestrator.paging.journal import Closed, Journal, Message
from orchestrator.paging.missing import MissingPages, Run
from orchestrator.paging.world import replay

PAGE = 4096


def message(event: int, *words: int) -> bytes:
    return struct.pack("=BBHIQQQ", event, 0, 0, 0, *words, *(0,) * (3 - len(words)))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Give a pipe, which here stands for a userfaultfd."""
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


def test_messages_are_told_in_order(pipe: tuple[int, int]) -> None:
    journal = Journal()
    assert journal.read(pipe[0]) == []
    os.write(pipe[1], message(UFFD_EVENT_REMAP, 1, 2, 3) + message(UFFD_EVENT_PAGEFAULT, 0, 5))
    assert journal.read(pipe[0]) == [
        Message(0, pipe[0], UFFD_EVENT_REMAP, 1, 2, 3),
        Message(1, pipe[0], UFFD_EVENT_PAGEFAULT, 0, 5, 0),
    ]


def test_what_a_dead_reader_has_taken_is_there(pipe: tuple[int, int]) -> None:
    """Also that which it had no time to look at."""
    journal = Journal()
    world = {pipe[0]: MissingPages([Run(0, 8 * PAGE, 0)])}
    os.write(pipe[1], message(UFFD_EVENT_REMOVE, 0, PAGE))
    reader = os.fork()
    if reader == 0:
        try:
            (first,) = journal.read(pipe[0])
            journal.note_applied([first.number])
            os.write(pipe[1], message(UFFD_EVENT_REMAP, 4 * PAGE, 20 * PAGE, PAGE) + message(UFFD_EVENT_FORK, 77))
            journal.read(pipe[0])
        finally:
            os._exit(0)
    os.waitpid(reader, 0)
    left = replay(world, journal)
    assert world[pipe[0]].runs() == [Run(PAGE, 8 * PAGE, PAGE)]
    assert [one.event for one in left[pipe[0]]] == [UFFD_EVENT_REMAP, UFFD_EVENT_FORK]
    assert journal.read(pipe[0]) == []
    carried = Journal().carry_over(left[pipe[0]])
    assert [one._replace(number=0) for one in carried] == [one._replace(number=0) for one in left[pipe[0]]]


def test_half_of_a_decision_is_none(pipe: tuple[int, int]) -> None:
    journal = Journal()
    os.write(pipe[1], message(UFFD_EVENT_REMOVE, 0, PAGE) + message(UFFD_EVENT_REMOVE, PAGE, 2 * PAGE))
    read = journal.read(pipe[0])
    journal._add(0x80, read[1].number)
    assert list(journal.replay()) == []
    assert journal.left() == read
    journal.note_applied([read[1].number, read[0].number])
    (applied,) = journal.replay()
    assert isinstance(applied, list)
    assert applied[-2:] == [read[1], read[0]]
    assert journal.left() == []


def test_a_number_is_used_again(pipe: tuple[int, int]) -> None:
    """A child that has ended leaves its descriptor's number to the next."""
    journal = Journal()
    world = {pipe[0]: MissingPages([Run(0, PAGE, 0)]), 50: MissingPages([Run(0, 9 * PAGE, 0)])}
    journal.note_closed(50)
    os.write(pipe[1], message(UFFD_EVENT_FORK, 50))
    journal.note_applied([one.number for one in journal.read(pipe[0])])
    assert Closed(50) in list(journal.replay())
    assert replay(world, journal) == {}
    assert world[50].runs() == [Run(0, PAGE, 0)]
