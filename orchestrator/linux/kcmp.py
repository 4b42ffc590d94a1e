"""kcmp(2): whether two tasks share a kernel object."""

from __future__ import annotations

import ctypes
import os

from orchestrator.linux.call import machine
from orchestrator.linux.syscalls import numbers

KCMP_FILE = 0
KCMP_VM = 1
KCMP_FILES = 2
KCMP_FS = 3
KCMP_SIGHAND = 4
KCMP_IO = 5
KCMP_SYSVSEM = 6
KCMP_EPOLL_TFD = 7


class kcmp_epoll_slot(ctypes.Structure):
    """Name one registration of an epoll. See kcmp(2)."""

    _fields_ = (("efd", ctypes.c_uint32), ("tfd", ctypes.c_uint32), ("toff", ctypes.c_uint32))


assert ctypes.sizeof(kcmp_epoll_slot) == 12

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong]
_NR_kcmp = numbers(machine())["kcmp"]


def kcmp(pid1: int, pid2: int, type: int, idx1: int = 0, idx2: int = 0) -> int:  # noqa: A002
    """Compare two objects: 0 the same, 1 and 2 less and greater, 3 different without an order.

    The order is the kernel's, the same for every pair of one type, so objects can be sorted by it.
    """
    result: int = _syscall(_NR_kcmp, pid1, pid2, type, idx1, idx2)
    if result < 0:
        number = ctypes.get_errno()
        error = OSError(number, os.strerror(number))
        error.add_note(f"kcmp({pid1}, {pid2}, {type}, {idx1}, {idx2})")
        raise error
    return result


def kcmp_epoll_tfd(pid1: int, fd1: int, pid2: int, efd: int, tfd: int, toff: int = 0) -> int:
    """Compare the file at ``fd1`` of ``pid1`` with one that the epoll at ``efd`` of ``pid2`` watches.

    ``tfd`` is the number it was added with, ``toff`` which of several with that number (from 0).
    FileNotFoundError where the epoll has none such.
    """
    slot = kcmp_epoll_slot(efd, tfd, toff)
    return kcmp(pid1, pid2, KCMP_EPOLL_TFD, fd1, ctypes.addressof(slot))


def same_file(pid1: int, fd1: int, pid2: int, fd2: int) -> bool:
    """Say whether two descriptors share one open file description."""
    return kcmp(pid1, pid2, KCMP_FILE, fd1, fd2) == 0
