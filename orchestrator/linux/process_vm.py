"""Copy between our memory and that of another process. See process_vm_readv(2)."""

from __future__ import annotations

import ctypes
import struct

IOVEC = struct.Struct("=QQ")
"""struct iovec: address and length."""

_libc = ctypes.CDLL(None, use_errno=True)
_readv, _writev = _libc.process_vm_readv, _libc.process_vm_writev
for _call in (_readv, _writev):
    _call.restype = ctypes.c_ssize_t
    _call.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong
    ]  # fmt: skip


def read_memory(pid: int, address: int, size: int, ranges: bytes) -> int:
    """Read ``ranges`` of a process, each an IOVEC, to our own ``address``; return how many bytes, or -1."""
    return int(_readv(pid, IOVEC.pack(address, size), 1, ranges, len(ranges) // IOVEC.size, 0))


def write_memory(pid: int, address: int, size: int, ranges: bytes) -> int:
    """Write our own memory at ``address`` to ``ranges`` of a process; return how many bytes, or -1."""
    return int(_writev(pid, IOVEC.pack(address, size), 1, ranges, len(ranges) // IOVEC.size, 0))
