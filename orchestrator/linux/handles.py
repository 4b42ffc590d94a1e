"""Files by handles, which lead to them without a name. See open_by_handle_at(2)."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_open_by_handle_at = _libc.open_by_handle_at
_open_by_handle_at.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
_name_to_handle_at = _libc.name_to_handle_at
_name_to_handle_at.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
_file_handle = struct.Struct("=Ii")
_MAX_HANDLE_SZ = 128
_AT_EMPTY_PATH = 0x1000


def name_to_handle(fd: int) -> tuple[int, bytes]:
    """Return the handle of an open file, as (type, bytes). EOPNOTSUPP where the file system has none."""
    buffer = ctypes.create_string_buffer(pack_handle(0, bytes(_MAX_HANDLE_SZ)))
    mount = ctypes.c_int()
    if _name_to_handle_at(fd, b"", buffer, ctypes.byref(mount), _AT_EMPTY_PATH) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    length, handle_type = _file_handle.unpack_from(buffer)
    return handle_type, buffer.raw[_file_handle.size : _file_handle.size + length]


def pack_handle(handle_type: int, handle: bytes) -> bytes:
    """Return a struct file_handle."""
    return _file_handle.pack(len(handle), handle_type) + handle


def open_by_handle_at(mount_fd: int, handle_type: int, handle: bytes, flags: int) -> int:
    """Open a file of the file system that ``mount_fd`` is on. ESTALE if it is gone."""
    fd = _open_by_handle_at(mount_fd, pack_handle(handle_type, handle), flags | os.O_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        error = OSError(number, os.strerror(number))
        error.add_note(f"open_by_handle_at({mount_fd}, type {handle_type}, {handle.hex()})")
        raise error
    return int(fd)
