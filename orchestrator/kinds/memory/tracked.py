"""Which pages of an address space were not written since an image was made: asked of the kernel, which notes writes.

A page is left out of a delta only if all of this holds: its mapping is registered with our own userfaultfd, so that
the kernel notes writes to it; it is there, and no write was noted since it was armed for that image; and that image has
a place for this address. New mappings are not registered, nor are moved ones, those of a child, and those behind an
execve. Contents are read only after they are armed, so that a later write is noted if it is not in them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from orchestrator.kinds.memory.known import KnownPages
from orchestrator.kinds.memory.record import PageRun
from orchestrator.linux import pagemap, userfaultfd
from orchestrator.linux.proc_maps import MapLine, VmFlags, is_private

UNWRITTEN = 1 << 62
"""Beside the categories of a region: no write to it was noted."""
_OURS = "uw"
_NEAR = 1 << 20
_NEVER = frozenset(("io", "pf", "dp", "ht", "um", "uw"))


class Scanner(Protocol):
    """What finds pages of the process by category."""

    def scan(self, start: int, end: int) -> list[pagemap.Region]:
        """Find the pages with contents of their own, and guards."""

    def scan_tracked(self, start: int, end: int) -> list[pagemap.Region]:
        """Find such pages of registered mappings, and whether they were written."""

    def arm(self, start: int, end: int) -> None:
        """Have writes to such pages noted from here on."""


class TrackedMemory:
    """One address space with its userfaultfd."""

    def __init__(self, uffd: int, known: KnownPages | None, *, arm: bool) -> None:
        """``known``: what the image has that the memory was armed for. ``arm``: do so for the image being made."""
        self._uffd = uffd
        self._known = known
        self._arm = arm
        self._ours: set[int] = set()
        self._registered: list[MapLine] = []
        self._seen: list[pagemap.Region] = []

    def without_ours(self, line: MapLine, flags: VmFlags) -> VmFlags:
        """Take the flag of a registration away if it is our own."""
        if _OURS not in flags or not self._register(line.start, line.end):
            return flags
        self._ours.add(line.start)
        return tuple(flag for flag in flags if flag != _OURS)

    def look(self, pages: Scanner, lines: Sequence[MapLine]) -> None:
        """Find out what was written, while nobody knows the flags of the mappings yet."""
        private = [line for line in lines if is_private(line)]
        self._seen = pages.scan_tracked(private[0].start, private[-1].end) if private else []

    def regions(self, pages: Scanner, lines: Sequence[tuple[MapLine, VmFlags]]) -> list[pagemap.Region]:
        """Find what must be stored, as Scanner.scan() does; what was not written has UNWRITTEN among its categories.

        After :meth:`look`, since when nothing was written.
        """
        others = self._part(lines)
        regions = [region for start, end in others for region in pages.scan(start, end)]
        ours = [line for line in self._registered if line.start in self._ours]
        found = list(_within(self._seen, ours))
        if self._arm:
            written = (region for region in found if region[2] & pagemap.PAGE_IS_WRITTEN)
            for start, end in pagemap.spans(written, _NEAR):
                pages.arm(start, end)
        for line in self._registered:
            if line.start not in self._ours:
                found += pages.scan_tracked(line.start, line.end)
                pages.arm(line.start, line.end)
        regions += [
            (start, end, categories if categories & pagemap.PAGE_IS_WRITTEN else categories | UNWRITTEN)
            for start, end, categories in found
        ]
        regions.sort()
        return regions

    def arm(self, pages: Scanner, lines: Sequence[tuple[MapLine, VmFlags]]) -> None:
        """Have all writes noted from here on."""
        self._part(lines)
        found = self._registered
        if found:
            pages.arm(found[0].start, found[-1].end)

    def _part(self, lines: Sequence[tuple[MapLine, VmFlags]]) -> list[list[int]]:
        """Register what can be, and return the ranges of the other private mappings."""
        private = [(line, flags) for line, flags in lines if is_private(line)]
        registered = self._registered
        others: list[list[int]] = []
        for line, flags in private:
            if line.start in self._ours or (self._arm and self._can_register(line, flags)):
                registered.append(line)
            elif others and (not registered or others[-1][0] > registered[-1].start):
                others[-1][1] = line.end
            else:
                others.append([line.start, line.end])
        return others

    def known_in(self, start: int, end: int) -> Sequence[PageRun]:
        """Return where the pages of an unwritten region lie already."""
        return () if self._known is None else self._known.within(start, end)

    def _can_register(self, line: MapLine, flags: VmFlags) -> bool:
        return _can_be_tracked(line, flags) and self._register(line.start, line.end)

    def _register(self, start: int, end: int) -> bool:
        try:
            userfaultfd.register_writes(self._uffd, start, end)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ESRCH, errno.ENOMEM, errno.EPERM):
                raise
            return False
        return True


def _can_be_tracked(line: MapLine, flags: VmFlags) -> bool:
    """Whether it is anonymous memory of this process alone.

    Not that of a file: there the kernel can have a page read anew in place of one that it had noted as unwritten.
    """
    return line.inode == 0 and not _NEVER & {*flags}


def _within(regions: Iterable[pagemap.Region], lines: Sequence[MapLine]) -> Iterator[pagemap.Region]:
    """Yield what of regions lies in mappings; both ascend."""
    ahead = list(reversed(lines))
    for start, end, categories in regions:
        while ahead and ahead[-1].end <= start:
            ahead.pop()
        for line in reversed(ahead):
            if line.start >= end:
                break
            yield max(start, line.start), min(end, line.end), categories
