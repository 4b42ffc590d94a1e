"""One door for system calls that neither ``os`` nor libc offers."""

from __future__ import annotations

import ctypes
import os
from functools import cache

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long] * 7
_get_errno = ctypes.get_errno


@cache
def machine() -> str:
    """Name this machine's architecture as the kernel spells it: "x86_64" or "aarch64"."""
    return os.uname().machine


def syscall(number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
    """Make one system call; raise OSError on failure. Pointers are passed as plain addresses."""
    result = _syscall(number, a, b, c, d, e, f)
    if result == -1:
        errno = _get_errno()
        raise OSError(errno, os.strerror(errno))
    return int(result)
