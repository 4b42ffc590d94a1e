"""The page data of an image, mapped: what is put into place is taken from there without passing through us."""

from __future__ import annotations

import ctypes
import mmap
import os

from orchestrator.image.places import number_of, offset_in
from orchestrator.image.reader import ImageFile

_PROT_READ, _MAP_SHARED, _MAP_NORESERVE = 1, 0x01, 0x4000
_MADV_WILLNEED, _MADV_DONTNEED = 3, 4
_AHEAD = 4 << 20
_KEPT = 16 << 20
"""Bytes that may stay mapped in our page tables; they count as our memory."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


class _Mapped:
    """The page data of one image."""

    def __init__(self, fd: int, offset: int, length: int) -> None:
        flags = _MAP_SHARED | _MAP_NORESERVE
        self._length = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        base = _libc.mmap(None, max(self._length, mmap.PAGESIZE), _PROT_READ, flags, fd, offset)
        if base == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self.base: int = base
        self._asked_for = 0

    def fetch_ahead(self, at: int) -> None:
        block = at // _AHEAD + 1
        if block != self._asked_for:
            self._asked_for = block
            start = block * _AHEAD
            if start < self._length:
                _libc.madvise(self.base + start, min(_AHEAD, self._length - start), _MADV_WILLNEED)

    def let_go(self) -> None:
        _libc.madvise(self.base, self._length, _MADV_DONTNEED)


class PageSource:
    """Where the pages of an image, and of those that it refers to, lie in our memory. Only the kernel reads them."""

    def __init__(self, image: ImageFile) -> None:
        images = {0: image, **image.ancestors}
        self._mapped = {number: _Mapped(one.fd, one.pages_offset, one.pages_length) for number, one in images.items()}
        self._used = 0

    def address(self, at: int) -> int:
        """Return where the page data of a place lies."""
        return self._mapped[number_of(at)].base + offset_in(at)

    def fetch_ahead(self, at: int) -> None:
        """Let the disk be read for what comes next."""
        self._mapped[number_of(at)].fetch_ahead(offset_in(at))

    def used(self, length: int) -> None:
        """Say that so many bytes were taken; what was taken long ago is unmapped from us."""
        self._used += length
        if self._used >= _KEPT:
            self._used = 0
            for mapped in self._mapped.values():
                mapped.let_go()
