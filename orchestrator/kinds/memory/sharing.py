"""Private pages that several processes of a job map: found by page frame, and stored once.

fork(2) leaves a child its parent's pages at the same addresses until one of the two writes. So those of a process are
looked for at the same address in its ancestors, and then, since siblings may share what their parent has written to
since, among all that ancestors did not have.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

PAGE = 4096
_ENTRY_BYTES = 8
_PRESENT, _MAPPED_ONCE = 0x80, 0x01  # of an entry's last byte: bits 63 and 56
_SHARED = re.compile(
    b"[" + b"".join(re.escape(bytes([top])) for top in range(256) if top & _PRESENT and not top & _MAPPED_ONCE) + b"]+"
)


class SharedRun(NamedTuple):
    """Pages of a process that others map as well, with their page frames and their place in the image."""

    start: int
    end: int
    at: int
    entries: array[int]
    """Raw /proc/PID/pagemap entries."""


class Known(NamedTuple):
    """Pages [first, last) of a list of entries whose content has the place ``at`` already; -1 if it has none."""

    first: int
    last: int
    at: int


def shared_parts(entries: array[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last + 1) of the pages in memory that more than one process, or mapping, has."""
    tops = entries.tobytes()[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]
    return (found.span() for found in _SHARED.finditer(tops))


def equal_parts(mine: array[int], theirs: array[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last + 1) of where two lists of the same length have the same entries."""
    if mine == theirs:
        yield 0, len(mine)
        return
    at = 0
    for same, group in groupby([a == b for a, b in zip(mine, theirs, strict=True)]):
        count = sum(1 for _ in group)
        if same:
            yield at, at + count
        at += count


class Sharing:
    """What the address spaces of a job share with each other."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        """By pagemap entry: of pages that no ancestor had."""

    def find(self, ancestors: list[list[SharedRun]], start: int, entries: array[int]) -> list[Known]:
        """Say of shared pages at ``start`` which have a place, and where; cover all of them, ascending."""
        left = [(0, len(entries))]
        found: list[Known] = []
        for runs in ancestors:
            if not left:
                break
            left = self._at_same_address(runs, start, entries, left, found)
        for first, last in left:
            found += self._anywhere(entries, first, last)
        return sorted(found) if len(found) > 1 else found

    def _at_same_address(
        self,
        runs: list[SharedRun],
        start: int,
        entries: array[int],
        wanted: list[tuple[int, int]],
        found: list[Known],
    ) -> list[tuple[int, int]]:
        """Add to ``found`` what an ancestor has of the wanted pages; return the rest."""
        left: list[tuple[int, int]] = []
        for first, last in wanted:
            low, high = start + first * PAGE, start + last * PAGE
            at = first
            for run in _overlapping(runs, low, high):
                begin, end = max(low, run.start), min(high, run.end)
                shift, skip = (begin - start) // PAGE, (begin - run.start) // PAGE
                count = (end - begin) // PAGE
                for one, other in equal_parts(entries[shift : shift + count], run.entries[skip : skip + count]):
                    if at < shift + one:
                        left.append((at, shift + one))
                    found.append(Known(shift + one, shift + other, run.at + (skip + one) * PAGE))
                    at = shift + other
            if at < last:
                left.append((at, last))
        return left

    def _anywhere(self, entries: array[int], first: int, last: int) -> list[Known]:
        get = self._places.get
        found: list[Known] = []
        begin, at, expected = first, -1, -1
        for page in range(first, last):
            place = get(entries[page], -1)
            if place != expected:
                if begin < page:
                    found.append(Known(begin, page, at))
                begin, at = page, place
            expected = place + PAGE if place >= 0 else -1
        if begin < last:
            found.append(Known(begin, last, at))
        return found

    def remember(self, run: SharedRun) -> None:
        """Let siblings find pages that no ancestor had."""
        self._places.update(zip(run.entries, range(run.at, run.at + (run.end - run.start), PAGE), strict=True))


def _overlapping(runs: list[SharedRun], low: int, high: int) -> Iterator[SharedRun]:
    first, last = 0, len(runs)
    while first < last:
        middle = (first + last) // 2
        if runs[middle].end <= low:
            first = middle + 1
        else:
            last = middle
    while first < len(runs) and runs[first].start < high:
        yield runs[first]
        first += 1
