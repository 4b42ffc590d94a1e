"""Huge pages of hugetlbfs, which come from a pool of the machine: their size, their contents, how they are made again.

A file of them can be read, but not written but by a mapping, and its holes do not show.
"""

from __future__ import annotations

import os

from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.record import Content, Extent
from orchestrator.kinds.scope import FileCopy, Scope
from orchestrator.linux.statfs import HUGETLBFS_MAGIC, filesystem_magic
from orchestrator.tape.build import Tape

ANONYMOUS = b"/anon_hugepage"
"""What maps shows of mmap(MAP_ANONYMOUS | MAP_HUGETLB)."""
_MAP_HUGETLB, _MFD_HUGETLB, _SHM_HUGETLB = 0x40000, 4, 0o4000
_SHIFT = 26
_PROT_READ_WRITE = 3
_MAP_SHARED, _MAP_FIXED_NOREPLACE = 0x01, 0x100000
_MOST_AT_ONCE = 8 << 20


def huge_bits(path: str) -> int:
    """Return the size of the huge pages behind a file, as a power of two; 0 if it is of another kind."""
    return os.statvfs(path).f_bsize.bit_length() - 1 if filesystem_magic(path) == HUGETLBFS_MAGIC else 0


def map_flags(bits: int) -> int:
    """Return the flags of mmap(2) for pages of this size."""
    return _MAP_HUGETLB | bits << _SHIFT if bits else 0


def memfd_flags(bits: int) -> int:
    """Return the flags of memfd_create(2) for pages of this size."""
    return _MFD_HUGETLB | bits << _SHIFT if bits else 0


def segment_flags(bits: int) -> int:
    """Return the flags of shmget(2) for pages of this size."""
    return _SHM_HUGETLB | bits << _SHIFT if bits else 0


def store_huge(scope: Scope, fd: int, size: int, bits: int) -> Content:
    """Plan to copy a file of huge pages into the image, without those that are all zeros."""
    page = 1 << bits
    extents = [
        Extent(start, min(page, size - start), scope.layout.place(min(page, size - start)))
        for start in range(0, size, page)
        if not _is_zero(fd, start, min(page, size - start))
    ]
    if extents:
        scope.copies.append(FileCopy(fd, extents))
    return Content(size, extents)


def _is_zero(fd: int, start: int, length: int) -> bool:
    for at in range(start, start + length, _MOST_AT_ONCE):
        part = os.pread(fd, min(_MOST_AT_ONCE, start + length - at), at)
        if part.count(0) != len(part):
            return False
    return True


def scratch_for(depot: Depot, bits: int) -> int:
    """Return a free address of the depot where pages of this size can be mapped."""
    page = 1 << max(bits, 12)
    return depot.scratch_address + page - 1 & -page


def fill_huge(depot: Depot, fd: int, content: Content, bits: int) -> None:
    """Set the size of a file of huge pages, and copy its contents from the image."""
    tape, at = depot.tape, scratch_for(depot, bits)
    tape.ftruncate(fd, content.size)
    if content.extents:
        tape.mmap(at, content.size, _PROT_READ_WRITE, _MAP_SHARED | _MAP_FIXED_NOREPLACE, fd, 0)
        read_contents(depot, tape, at, content)
        tape.munmap(at, content.size)


def read_contents(depot: Depot, tape: Tape, at: int, content: Content) -> None:
    """Read contents from the image into a mapping."""
    for extent in content.extents:
        done = 0
        while done < extent.length:  # a read moves at most 0x7ffff000 bytes
            part = min(extent.length - done, 0x4000_0000)
            tape.pread64(depot.image, at + extent.start + done, part, depot.pages_at + extent.at + done)
            done += part
