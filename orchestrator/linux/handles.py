"""Files by the handles that fdinfo shows. See open_by_handle_at(2)."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_open_by_handle_at = _libc.open_by_handle_at
_open_by_handle_at.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
_file_handle = struct.Struct("=Ii")


def open_by_handle_at(mount_fd: int, handle_type: int, handle: bytes, flags: int) -> int:
    """Open a file of the file system that ``mount_fd`` is on. ESTALE if it is gone."""
    fd = _open_by_handle_at(mount_fd, _file_handle.pack(len(handle), handle_type) + handle, flags | os.O_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        error = OSError(number, os.strerror(number))
        error.add_note(f"open_by_handle_at({mount_fd}, type {handle_type}, {handle.hex()})")
        raise error
    return int(fd)
