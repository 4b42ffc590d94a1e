"""Have the disk begin with what was written, while something else is done."""

from __future__ import annotations

import ctypes

_SYNC_FILE_RANGE_WRITE = 2


def begin_writeback(fd: int) -> None:
    """Start to write a file's dirty pages to the disk, and do not wait. Errors show at fsync(2).

    See sync_file_range(2).
    """
    call = ctypes.CDLL(None).sync_file_range
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    call(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)
