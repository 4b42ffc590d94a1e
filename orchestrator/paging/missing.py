"""Which pages of an address space are still to come, and from where in the image."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple


class Run(NamedTuple):
    """Pages that are missing, one behind the other here and in the image. In bytes."""

    start: int
    end: int
    at: int
    """Offset from the start of the page data."""

    def part(self, start: int, end: int) -> Run:
        """Return what of it lies in a range that it has a part in."""
        low = max(self.start, start)
        return Run(low, min(self.end, end), self.at + low - self.start)


class MissingPages:
    """The runs of one address space, which no other address is to be filled with."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._runs = sorted(runs)
        self._ends = [run.end for run in self._runs]
        self.length = sum(run.end - run.start for run in self._runs)
        """Bytes in all."""

    def __bool__(self) -> bool:
        return bool(self._runs)

    def runs(self) -> list[Run]:
        """List all, ascending."""
        return list(self._runs)

    def copy(self) -> MissingPages:
        """Return a second one like it."""
        twin = MissingPages()
        twin._runs, twin._ends, twin.length = self._runs.copy(), self._ends.copy(), self.length
        return twin

    def at(self, address: int) -> Run | None:
        """Return the run that an address is in."""
        number = bisect_right(self._ends, address)
        if number < len(self._runs) and self._runs[number].start <= address:
            return self._runs[number]
        return None

    def next(self, address: int) -> Run | None:
        """Return what is missing from an address on, or else from the first; None if nothing is."""
        if not self._runs:
            return None
        number = bisect_right(self._ends, address)
        if number == len(self._runs):
            return self._runs[0]
        run = self._runs[number]
        return run if run.start >= address else run.part(address, run.end)

    def within(self, start: int, end: int) -> list[Run]:
        """Return what is missing in a range, ascending."""
        first = bisect_right(self._ends, start)
        found = []
        while first < len(self._runs) and self._runs[first].start < end:
            found.append(self._runs[first].part(start, end))
            first += 1
        return found

    def remove(self, start: int, end: int) -> list[Run]:
        """Forget what is missing in a range, and return it."""
        first = bisect_right(self._ends, start)
        last = first
        while last < len(self._runs) and self._runs[last].start < end:
            last += 1
        if first == last:
            return []
        gone = [run.part(start, end) for run in self._runs[first:last]]
        left = []
        head, tail = self._runs[first], self._runs[last - 1]
        if head.start < start:
            left.append(head._replace(end=start))
        if tail.end > end:
            left.append(tail.part(end, tail.end))
        self._runs[first:last] = left
        self._ends[first:last] = [run.end for run in left]
        self.length -= sum(run.end - run.start for run in gone)
        return gone

    def move(self, start: int, to: int, length: int) -> None:
        """Follow a mapping to where mremap(2) has moved it; nothing else is there any more."""
        moved = self.remove(start, start + length)
        self.remove(to, to + length)
        if not moved:
            return
        runs = [Run(run.start - start + to, run.end - start + to, run.at) for run in moved]
        place = bisect_left(self._ends, to)
        while place < len(self._runs) and self._runs[place].start < to:
            place += 1
        self._runs[place:place] = runs
        self._ends[place:place] = [run.end for run in runs]
        self.length += sum(run.end - run.start for run in runs)
