"""Reserve room on the file system before anything is written."""

from __future__ import annotations

import ctypes
import errno
import os

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)


def preallocate(fd: int, length: int) -> None:
    """Make the file `length` bytes long, all of them reserved. Raises OSError: ENOSPC, EDQUOT, EFBIG.

    fallocate(2) itself and not posix_fallocate(3), which writes every block where the file system
    cannot reserve. There, free space is compared instead: the disk may still fill up later.
    """
    if length <= 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = libc.fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while fallocate(fd, 0, 0, length):
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number))
        reserve_by_length(fd, length)
        return


def reserve_by_length(fd: int, length: int) -> None:
    """Set the length, if the file system says that it has so much room. Raises OSError."""
    room = os.fstatvfs(fd)
    if room.f_bavail * room.f_frsize < length and room.f_blocks:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(fd, length)
