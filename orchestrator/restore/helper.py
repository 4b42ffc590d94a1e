"""Fill the memory of a process from outside, while it fills the rest itself: on two processors, twice as fast."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

from orchestrator.ids import HostPid
from orchestrator.image.places import number_of, offset_in
from orchestrator.image.reader import ImageFile
from orchestrator.kinds.memory.record import PageRun
from orchestrator.linux.process_vm import IOVEC, write_memory

_WINDOW = 2 << 20
"""Bytes of the image that we have mapped at a time."""


def halves(runs: Sequence[PageRun]) -> tuple[list[PageRun], list[PageRun]]:
    """Part runs into two lists with as many pages each, but for one."""
    first: list[PageRun] = []
    second: list[PageRun] = []
    room = sum(run.length for run in runs) // 2 // mmap.PAGESIZE * mmap.PAGESIZE
    for run in runs:
        size = min(run.length, room)
        room -= size
        if size:
            first.append(run._replace(length=size))
        if size < run.length:
            second.append(PageRun(run.start + size, run.length - size, run.at + size))
    return first, second


def by_image(runs: Sequence[PageRun], image: ImageFile) -> list[tuple[ImageFile, list[PageRun]]]:
    """Part runs by the images that they lie in: an image and its ancestors."""
    parts: dict[int, list[PageRun]] = {}
    for run in runs:
        parts.setdefault(number_of(run.at), []).append(run)
    return [(image.ancestors[number] if number else image, part) for number, part in parts.items()]


def write_pages(pid: HostPid, image: int, pages_at: int, runs: Sequence[PageRun]) -> list[PageRun]:
    """Copy page runs of the image into a process; return those that could not be copied, wholly or in part.

    Nobody else writes there meanwhile.
    """
    left: list[PageRun] = []
    for run in runs:
        for done in range(0, run.length, _WINDOW):
            size = min(_WINDOW, run.length - done)
            part = PageRun(run.start + done, size, run.at + done)
            if left or not _write(pid, image, pages_at, part):  # what failed once fails again
                left.append(part)
    return left


def _write(pid: HostPid, image: int, pages_at: int, run: PageRun) -> bool:
    # Private and writable, as ctypes gives no address otherwise; nobody writes to it.
    at = pages_at + offset_in(run.at)
    window = mmap.mmap(image, run.length, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=at)
    anchor = ctypes.c_char.from_buffer(window)
    try:
        there = IOVEC.pack(run.start, run.length)
        return write_memory(pid, ctypes.addressof(anchor), run.length, there) == run.length
    finally:
        del anchor
        window.close()
