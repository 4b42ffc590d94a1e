"""The page data of an image, mapped: what is put into place is taken from there without passing through us."""

from __future__ import annotations

import ctypes
import mmap
import os

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


class PageSource:
    """Where the pages of an image lie in our memory. They are read by the kernel alone."""

    def __init__(self, fd: int, offset: int, length: int) -> None:
        flags = _MAP_SHARED | _MAP_NORESERVE
        self._length = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        base = _libc.mmap(None, self._length, _PROT_READ, flags, fd, offset)
        if base == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._base: int = base
        self._asked_for = 0
        self._used = 0

    def address(self, at: int) -> int:
        """Return where the page data at an offset lies."""
        return self._base + at

    def fetch_ahead(self, at: int) -> None:
        """Let the disk be read for what comes next."""
        block = at // _AHEAD + 1
        if block != self._asked_for:
            self._asked_for = block
            start = block * _AHEAD
            if start < self._length:
                _libc.madvise(self._base + start, min(_AHEAD, self._length - start), _MADV_WILLNEED)

    def used(self, length: int) -> None:
        """Say that so many bytes were taken; what was taken long ago is unmapped from us."""
        self._used += length
        if self._used >= _KEPT:
            self._used = 0
            _libc.madvise(self._base, self._length, _MADV_DONTNEED)
