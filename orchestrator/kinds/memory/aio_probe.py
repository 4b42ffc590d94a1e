"""Find out whether requests are on their way in a context of asynchronous I/O. See io_submit(2).

The kernel shows that nowhere, but a context has a known number of places. A request takes one until its completion is
taken from the ring. So the process itself submits requests that do nothing until it is told that there is no place
left. What is missing then is on its way. In the same tape it takes them back by setting the head of the ring. Then it
goes round the ring once, so that head, tail and completions are where they were.

Requests that somebody waits for, as from a disk, come back while the process is held.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from orchestrator.ids import FarAddr
from orchestrator.kinds.memory.aio import (
    AT_ONCE,
    EVENT_BYTES,
    HEAD_AT,
    Ring,
    do_nothing,
    event_at,
    portions,
    read_ring,
)
from orchestrator.kinds.memory.record import Vma
from orchestrator.tape.build import Block, Played, Result, Tape, TapeError
from orchestrator.tape.memory import Memory

Play = Callable[[Tape], Played]
_MOST_ROUNDS = 8
_WAITS = (0.0, 0.002, 0.01, 0.03, 0.1)
_MASK_BYTES = 128
_iovec = struct.Struct("=QQ")


class Unclear(Exception):
    """Whether something is on its way cannot be found out."""


class _Attempt(NamedTuple):
    submitted: int
    cookie: int
    events: bytes
    """The ring behind it, if there was something in it that must not be lost."""


def requests_on_their_way(play: Play, memory: Memory, vma: Vma, fd: int, processors: Sequence[int]) -> int:
    """Return how many requests of a held process's context have not come back, and do not within a short time.

    ``fd``: the lowest number that the process has free. ``processors``: where it may have taken places.
    """
    missing = 0
    tail = read_ring(memory, vma).tail
    for wait in _WAITS:
        time.sleep(wait)
        for visited in ((), processors):
            ring = read_ring(memory, vma)
            room = ring.places - ring.waiting
            missing = room - _submit(play, memory, vma, ring, room, fd, visited)
            if missing == 0:
                _go_round(play, memory, vma, fd, tail)
                return 0
    return missing


def _submit(play: Play, memory: Memory, vma: Vma, ring: Ring, room: int, fd: int, processors: Sequence[int]) -> int:
    """Submit ``room`` requests and take them back; return how many there was place for."""
    if room <= 0:
        return room
    waiting = _waiting(memory, vma, ring)
    cookie = int.from_bytes(os.urandom(8), "little")
    tape = Tape("count the places of a context of asynchronous I/O")
    tape.memfd_create("orch", 0)
    pointers = do_nothing(tape, fd, cookie)
    mask = tape.space(_MASK_BYTES)
    tape.sched_getaffinity(0, _MASK_BYTES, mask)
    tried: list[Result] = []
    for processor in processors or (-1,):
        if processor >= 0:
            only = (1 << processor).to_bytes(_MASK_BYTES, "little")
            tape.sched_setaffinity(0, _MASK_BYTES, only, may_fail=True)
        most = min(room, 2 * ring.batch) if tried else room  # that many a processor may keep for itself
        tried += [tape.io_submit(vma.start, count, pointers, may_fail=True) for count in portions(most, AT_ONCE)]
    if processors:
        tape.sched_setaffinity(0, _MASK_BYTES, mask)
    events = tape.space(ring.nr * EVENT_BYTES if waiting else 0)
    if waiting:
        _copy(tape, [(event_at(vma, 0), events.size)], [(events, events.size)], into_task=False)
    end = (ring.tail + room) % ring.nr
    _write_back(tape, vma, ring.nr, end, waiting)
    tape.close(fd)
    try:
        played = play(tape)
    except TapeError as error:
        raise Unclear from error
    submitted = sum(max(0, played.result(one)) for one in tried)
    if submitted != room:
        _put_right(memory, vma, ring, _Attempt(submitted, cookie, played.data(events)), waiting)
    return submitted


def _waiting(memory: Memory, vma: Vma, ring: Ring) -> bytes:
    return b"".join(
        memory.read(event_at(vma, (ring.head + number) % ring.nr), EVENT_BYTES) for number in range(ring.waiting)
    )


def _write_back(tape: Tape, vma: Vma, nr: int, end: int, waiting: bytes) -> None:
    """Let the ring hold just these completions, in front of ``end``."""
    count = len(waiting) // EVENT_BYTES
    first = (end - count) % nr
    before_wrap = min(count, nr - first)
    targets = [
        (event_at(vma, first), before_wrap * EVENT_BYTES),
        (event_at(vma, 0), (count - before_wrap) * EVENT_BYTES),
        (FarAddr(vma.start + HEAD_AT), 4),
    ]
    content = tape.block(waiting + first.to_bytes(4, "little"))
    _copy(tape, [target for target in targets if target[1]], [(content, len(waiting) + 4)], into_task=True)


def _copy(
    tape: Tape, addresses: Sequence[tuple[int, int]], blocks: Sequence[tuple[Block, int]], *, into_task: bool
) -> None:
    """Copy between addresses of the process and blocks of its tape."""
    ranges = tape.block(b"".join(_iovec.pack(*one) for one in addresses))
    ours = tape.block(b"".join(_iovec.pack(0, size) for _, size in blocks))
    for number, (block, _) in enumerate(blocks):
        tape.point(ours, number * _iovec.size, block)
    local, remote = ((ranges, len(addresses)), (ours, len(blocks))) if into_task else (
        (ours, len(blocks)), (ranges, len(addresses))
    )  # fmt: skip
    tape.process_vm_readv(tape.getpid(), *local, *remote, 0)


def _put_right(memory: Memory, vma: Vma, was: Ring, attempt: _Attempt, waiting: bytes) -> None:
    """Take out what is left of our own requests, where the tape could not know how many there would be."""
    now = read_ring(memory, vma)
    came = (now.tail - was.tail) % now.nr
    kept = [waiting[at : at + EVENT_BYTES] for at in range(0, len(waiting), EVENT_BYTES)]
    for number in range(came):
        place = (was.tail + number) % now.nr
        if attempt.events:
            event = attempt.events[place * EVENT_BYTES : (place + 1) * EVENT_BYTES]
        else:
            event = memory.read(event_at(vma, place), EVENT_BYTES)
        if int.from_bytes(event[:8], "little") != attempt.cookie:
            kept.append(event)
    first = (now.tail - len(kept)) % now.nr
    for number, event in enumerate(kept):
        memory.write(event_at(vma, (first + number) % now.nr), event)
    memory.write(FarAddr(vma.start + HEAD_AT), first.to_bytes(4, "little"))


def _go_round(play: Play, memory: Memory, vma: Vma, fd: int, tail: int) -> None:
    """Bring the ring from where counting has left it to where it was, if that does not take too long."""
    ring = read_ring(memory, vma)
    portion = max(1, (ring.places - ring.waiting) // 2)  # what surely is there, whichever processor this is
    left = portions((tail - ring.tail) % ring.nr, portion)
    if len(left) > _MOST_ROUNDS:
        return
    for count in left:
        if _submit(play, memory, vma, read_ring(memory, vma), count, fd, ()) != count:
            return
