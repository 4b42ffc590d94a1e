"""/proc/PID/pagemap: what backs each page. See the kernel's admin-guide/mm/pagemap."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from array import array
from collections.abc import Iterable
from functools import cache
from typing import cast

PAGE_SIZE = mmap.PAGESIZE

PAGEMAP_SCAN = 0xC0606610
PM_SCAN_WP_MATCHING = 1 << 0
PM_SCAN_CHECK_WPASYNC = 1 << 1

PAGE_IS_WPALLOWED = 1 << 0
PAGE_IS_WRITTEN = 1 << 1
PAGE_IS_FILE = 1 << 2
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4
PAGE_IS_PFNZERO = 1 << 5
PAGE_IS_HUGE = 1 << 6
PAGE_IS_SOFT_DIRTY = 1 << 7
PAGE_IS_GUARD = 1 << 8
"""Since Linux 6.15; an older kernel refuses a mask with this bit (EINVAL)."""

PM_PRESENT = 1 << 63
PM_SWAP = 1 << 62
PM_FILE = 1 << 61
PM_GUARD_REGION = 1 << 58
PM_UFFD_WP = 1 << 57
PM_MMAP_EXCLUSIVE = 1 << 56
PM_SOFT_DIRTY = 1 << 55
PFN_MASK = (1 << 55) - 1
"""The page frame number of a present page. Reads 0 without CAP_SYS_ADMIN."""


class page_region(ctypes.Structure):
    """One result of a scan."""

    _fields_ = (("start", ctypes.c_uint64), ("end", ctypes.c_uint64), ("categories", ctypes.c_uint64))


class pm_scan_arg(ctypes.Structure):
    """The argument of PAGEMAP_SCAN."""

    _fields_ = (
        ("size", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("walk_end", ctypes.c_uint64),
        ("vec", ctypes.c_uint64),
        ("vec_len", ctypes.c_uint64),
        ("max_pages", ctypes.c_uint64),
        ("category_inverted", ctypes.c_uint64),
        ("category_mask", ctypes.c_uint64),
        ("category_anyof_mask", ctypes.c_uint64),
        ("return_mask", ctypes.c_uint64),
    )


assert ctypes.sizeof(page_region) == 24
assert ctypes.sizeof(pm_scan_arg) == 96

_ioctl = ctypes.CDLL(None, use_errno=True).ioctl
_ioctl.restype = ctypes.c_int
_ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]

_REGION = struct.Struct("=QQQ")
_VEC_LEN = 16384


class _Vec:
    """A buffer for results. Pages of it that no scan fills cost nothing."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, _VEC_LEN * _REGION.size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))


# Taken for one scan and put back: the call releases the GIL, so two threads must not share one.
_spare: list[_Vec] = []

Region = tuple[int, int, int]


def spans(regions: Iterable[Region], near: int) -> list[list[int]]:
    """Return the ranges of ascending regions, those at most ``near`` bytes apart as one: calls cost more than pages."""
    found: list[list[int]] = []
    for start, end, _ in regions:
        if found and start - found[-1][1] <= near:
            found[-1][1] = end
        else:
            found.append([start, end])
    return found


def scan(
    pagemap_fd: int,
    start: int,
    end: int,
    *,
    category_inverted: int = 0,
    category_mask: int = 0,
    category_anyof_mask: int = 0,
    return_mask: int = 0,
    max_pages: int = 0,
    flags: int = 0,
) -> list[Region]:
    """Find the pages of [start, end) by category: (start, end, categories) each, ascending, in bytes.

    A page is found if all categories of ``category_mask`` and any of ``category_anyof_mask`` (when not
    0) hold after flipping those in ``category_inverted``. ``max_pages`` 0 is no bound; with a bound the scan
    has reached the end of the last region. See the kernel's admin-guide/mm/pagemap.
    """
    try:
        vec = _spare.pop()
    except IndexError:
        vec = _Vec()
    arg = pm_scan_arg(
        ctypes.sizeof(pm_scan_arg),
        flags,
        start,
        end,
        0,
        vec.address,
        _VEC_LEN,
        max_pages,
        category_inverted,
        category_mask,
        category_anyof_mask,
        return_mask,
    )
    address = ctypes.addressof(arg)
    regions: list[Region] = []
    try:
        while True:
            count = _ioctl(pagemap_fd, PAGEMAP_SCAN, address)
            if count < 0:
                number = ctypes.get_errno()
                error = OSError(number, os.strerror(number))
                error.add_note(f"ioctl(PAGEMAP_SCAN, {arg.start:#x}-{end:#x}, flags {flags:#x})")
                raise error
            found = cast("list[Region]", list(_REGION.iter_unpack(vec.memory[: count * _REGION.size])))
            if max_pages:
                arg.max_pages -= sum([last - first for first, last, _ in found]) // PAGE_SIZE
            if regions and found and regions[-1][1] == found[0][0] and regions[-1][2] == found[0][2]:
                regions[-1] = (regions[-1][0], found[0][1], found[0][2])
                del found[0]
            regions += found
            # Not walk_end says whether the walk is complete: a walk of more than 512 regions leaves there
            # where its inner buffer was last full, though it went on from there (6.18). So it is complete
            # when our buffer had room left, and what follows the last region is what is left.
            if count < _VEC_LEN or (max_pages and not arg.max_pages):
                return regions
            arg.start = max(arg.walk_end, regions[-1][1])
            if arg.start >= end:
                return regions
    finally:
        _spare.append(vec)


def read_entries(pagemap_fd: int, start: int, end: int) -> array[int]:
    """Read the raw 64-bit entries of the pages of [start, end), one a page.

    Shorter than asked only where the address space ends.
    """
    entries = array("Q", bytes((end - start) // PAGE_SIZE * 8))
    view = memoryview(entries).cast("B")
    offset = start // PAGE_SIZE * 8
    done = 0
    while done < len(view):
        step = os.preadv(pagemap_fd, [view[done:]], offset + done)
        if step == 0:
            break
        done += step
    view.release()
    del entries[done // 8 :]
    return entries


@cache
def shows_frames() -> bool:
    """Say whether we see page frame numbers, and not 0 in their place (CAP_SYS_ADMIN)."""
    page = mmap.mmap(-1, PAGE_SIZE)
    page[0] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(read_entries(fd, address, address + PAGE_SIZE)[0] & PFN_MASK)
    finally:
        os.close(fd)
