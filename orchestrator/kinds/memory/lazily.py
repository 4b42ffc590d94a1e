"""Which memory of a restored job may come later, from the image, when it is used or when there is time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from orchestrator.kinds.memory.record import AddressSpace, PageRun, Vma
from orchestrator.kinds.task.process import Thread

LEAST_OF_MAPPING = 256 << 10
"""Bytes of a mapping that are worth it."""
LEAST_OF_JOB = 4 << 20
"""Bytes of a job that are worth two processes to stand by them."""
_PAGE = 4096
_READ_AND_WRITE = 3
_AT_ONCE = frozenset(("lo", "lf", "dp", "ht", "gd"))
"""Locked, droppable, huge, growing down."""
_NOT_IN_CHILD = frozenset(("wf", "dc"))
"""Wiped on fork, not inherited."""


class Interval(NamedTuple):
    """A part of the page data, in bytes."""

    start: int
    end: int


class Area(NamedTuple):
    """A mapping with what is missing of it."""

    start: int
    end: int
    runs: tuple[PageRun, ...]


class Later(msgspec.Struct):
    """What comes later of one address space."""

    shared: Sequence[Interval]
    """Pages that others have, too: they share them by copy-on-write only if they are there before the fork."""
    needed: Collection[int]
    """Pages that the kernel may want when it cannot wait for them, ascending."""
    least: int
    """Bytes of a mapping that are worth it."""
    areas: list[Area] = msgspec.field(default_factory=list)

    def take(self, vma: Vma, fill: list[PageRun]) -> list[PageRun]:
        """Take over what may come later of the runs of a mapping, and return the rest."""
        if not _may_be_missing(vma):
            return fill
        later, now = part(fill, vma, self.shared, self.needed)
        if sum(run.length for run in later) < self.least:
            return fill
        self.areas.append(Area(vma.start, vma.end, tuple(later)))
        return now


def can_wait(vma: Vma) -> bool:
    """Whether pages can still be filled in when the mapping has all its properties."""
    plain = vma.prot & 3 == _READ_AND_WRITE and not vma.guards and vma.policy is None
    return plain and not _AT_ONCE & {*vma.flags}


def _may_be_missing(vma: Vma) -> bool:
    plain = vma.backing == "anonymous" and not vma.shared and not vma.huge_bits
    return plain and can_wait(vma) and not _NOT_IN_CHILD & {*vma.flags}


def part(
    runs: Iterable[PageRun], vma: Vma, shared: Sequence[Interval], needed: Collection[int]
) -> tuple[list[PageRun], list[PageRun]]:
    """Part runs into what may come later, and what must be there at once."""
    wanted = [page for page in needed if vma.start <= page < vma.end]
    later: list[PageRun] = []
    now: list[PageRun] = []
    for run in runs:
        cuts = {run.start, run.end}
        taken = [Interval(page, page + _PAGE) for page in wanted if run.start <= page < run.end]
        taken += [
            Interval(max(run.at, low) - run.at + run.start, min(run.at + run.length, high) - run.at + run.start)
            for low, high in _meeting(shared, run.at, run.at + run.length)
        ]
        for span in taken:
            cuts.update(span)
        for start, end in pairwise(sorted(cuts)):
            piece = PageRun(start, end - start, run.at + start - run.start)
            (now if any(low <= start < high for low, high in taken) else later).append(piece)
    return later, now


def _meeting(intervals: Sequence[Interval], start: int, end: int) -> list[Interval]:
    first = bisect_right(intervals, start, key=lambda interval: interval.end)
    found = []
    while first < len(intervals) and intervals[first].start < end:
        found.append(intervals[first])
        first += 1
    return found


def shared_places(memories: Sequence[AddressSpace]) -> list[Interval]:
    """Return the parts of the page data that more than one address space has, ascending."""
    if len(memories) < 2:
        return []
    everything = sorted(
        Interval(run.at, run.at + run.length) for memory in memories for vma in memory.vmas for run in vma.runs
    )
    shared: list[Interval] = []
    end = -1
    for interval in everything:
        if interval.start < end:
            low, high = interval.start, min(interval.end, end)
            if shared and low <= shared[-1].end:
                shared[-1] = Interval(shared[-1].start, max(shared[-1].end, high))
            else:
                shared.append(Interval(low, high))
        end = max(end, interval.end)
    return shared


def needed_pages(threads: Iterable[Thread]) -> list[int]:
    """Return the pages that the kernel writes to, or reads, when a thread ends or is resumed, ascending."""
    pages: set[int] = set()
    for thread in threads:
        address, length, _, _ = thread.addresses.rseq
        spans = [(thread.addresses.clear_tid, 4), (thread.addresses.robust_list, thread.addresses.robust_list_size)]
        for start, size in (*spans, (address, length)):
            if start:
                pages.update(range(start & -_PAGE, start + max(size, 1), _PAGE))
    return sorted(pages)
