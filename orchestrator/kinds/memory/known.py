"""Pages whose contents an image holds already, by address: what a delta refers to in place of storing it again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from orchestrator.errors import ImageCorrupt
from orchestrator.image.places import ONE_IMAGE, number_of, offset_in
from orchestrator.kinds.memory.record import AddressSpace, PageRun, Vma


class KnownPages:
    """Runs of pages of one address space."""

    def __init__(self, runs: Iterable[PageRun]) -> None:
        self._runs = sorted(runs)
        self._ends = [run.start + run.length for run in self._runs]

    @property
    def runs(self) -> Sequence[PageRun]:
        """All of it, ascending."""
        return self._runs

    @property
    def bytes(self) -> int:
        """How much it is."""
        return sum(run.length for run in self._runs)

    def within(self, start: int, end: int) -> list[PageRun]:
        """Return the runs, and parts of runs, that lie in [start, end), ascending."""
        runs = self._runs
        first = bisect_right(self._ends, start)
        if first == len(runs):
            return []
        run_start, length, at = runs[first]
        if run_start <= start and end <= run_start + length:  # mostly
            return [PageRun(start, end - start, at + start - run_start)]
        last = first
        while last < len(runs) and runs[last].start < end:
            last += 1
        found = runs[first:last]
        if found and found[0].start < start:
            run = found[0]
            found[0] = PageRun(start, run.end - start, run.at + start - run.start)
        if found and found[-1].end > end:
            run = found[-1]
            found[-1] = PageRun(run.start, end - run.start, run.at)
        return found


def pages_of(vmas: Iterable[Vma]) -> Iterator[PageRun]:
    """Yield the runs of a record's private mappings as a delta to its image names them."""
    for vma in vmas:
        if not vma.shared:
            for start, length, at in vma.runs:
                yield PageRun(start, length, at + ONE_IMAGE)


def check_places(memories: Sequence[AddressSpace], sizes: Mapping[int, int]) -> None:
    """Raise ImageCorrupt unless every run lies in the page data of an image that is there.

    ``sizes``: bytes of page data, by the number of the image.
    """
    for memory in memories:
        for vma in memory.vmas:
            for run in vma.runs:
                offset = offset_in(run.at)
                if run.at < 0 or run.length <= 0 or offset + run.length > sizes.get(number_of(run.at), -1):
                    where = f"memory {run.start:#x}-{run.end:#x}"
                    raise ImageCorrupt(f"the image has the pages of {where} where there are none: {run.at:#x}")
