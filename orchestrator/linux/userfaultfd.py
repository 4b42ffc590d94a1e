"""Page faults by descriptor. See userfaultfd(2), ioctl_userfaultfd(2).

A descriptor stands for one address space, that of the process which made it, and whoever holds it may serve it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import NamedTuple

from orchestrator.linux.pagemap import PAGE_SIZE

_UFFDIO_API = 0xC018AA3F
_UFFDIO_REGISTER = 0xC020AA00
_UFFDIO_UNREGISTER = 0x8010AA01
_UFFDIO_WAKE = 0x8010AA02
_UFFDIO_COPY = 0xC028AA03
_UFFDIO_ZEROPAGE = 0xC020AA04
_UFFD_API = 0xAA
_MODE_MISSING = 1
_MODE_WRITES = 2

UFFD_USER_MODE_ONLY = 1
"""A flag of userfaultfd(2): what needs no privilege. Writes that are only noted are noted from kernel mode, too."""
UFFD_FEATURE_WP_UNPOPULATED = 1 << 13
UFFD_FEATURE_WP_ASYNC = 1 << 15
"""Since Linux 6.7: a write to a protected page takes the protection away, and nobody waits."""

UFFD_FEATURE_EVENT_FORK = 1 << 1
UFFD_FEATURE_EVENT_REMAP = 1 << 2
UFFD_FEATURE_EVENT_REMOVE = 1 << 3
UFFD_FEATURE_EVENT_UNMAP = 1 << 6

ALL_EVENTS = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP
"""All that an address space can do to memory that is watched."""

UFFD_EVENT_PAGEFAULT = 0x12
UFFD_EVENT_FORK = 0x13
UFFD_EVENT_REMAP = 0x14
UFFD_EVENT_REMOVE = 0x15
UFFD_EVENT_UNMAP = 0x16

MESSAGE_BYTES = 32
"""The size of struct uffd_msg."""


class uffdio_api(ctypes.Structure):
    """See <linux/userfaultfd.h>, as all here."""

    _fields_ = (("api", ctypes.c_uint64), ("features", ctypes.c_uint64), ("ioctls", ctypes.c_uint64))


class uffdio_range(ctypes.Structure):
    """Addresses."""

    _fields_ = (("start", ctypes.c_uint64), ("len", ctypes.c_uint64))


class uffdio_register(ctypes.Structure):
    """What faults are asked for."""

    _fields_ = (
        ("start", ctypes.c_uint64),
        ("len", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("ioctls", ctypes.c_uint64),
    )


class uffdio_copy(ctypes.Structure):
    """The argument of UFFDIO_COPY."""

    _fields_ = (
        ("dst", ctypes.c_uint64),
        ("src", ctypes.c_uint64),
        ("len", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("copy", ctypes.c_int64),
    )


class uffdio_zeropage(ctypes.Structure):
    """The argument of UFFDIO_ZEROPAGE."""

    _fields_ = (
        ("start", ctypes.c_uint64),
        ("len", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("zeropage", ctypes.c_int64),
    )


assert ctypes.sizeof(uffdio_api) == 24
assert ctypes.sizeof(uffdio_range) == 16
assert ctypes.sizeof(uffdio_register) == 32
assert ctypes.sizeof(uffdio_copy) == 40
assert ctypes.sizeof(uffdio_zeropage) == 32

_ioctl = ctypes.CDLL(None, use_errno=True).ioctl
_ioctl.restype = ctypes.c_int
_ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
_get_errno = ctypes.get_errno


def _call(fd: int, request: int, argument: ctypes.Structure, what: str) -> None:
    if _ioctl(fd, request, ctypes.addressof(argument)) < 0:
        number = _get_errno()
        error = OSError(number, os.strerror(number))
        error.add_note(f"ioctl({fd}, {what})")
        raise error


def enable(fd: int, features: int) -> None:
    """Agree on the interface and ask for events, which all are then waited for by who causes them.

    EVENT_FORK needs CAP_SYS_PTRACE.
    """
    _call(fd, _UFFDIO_API, uffdio_api(_UFFD_API, features, 0), f"UFFDIO_API, features {features:#x}")


def register_missing(fd: int, start: int, length: int) -> None:
    """Ask for the faults on pages of a mapping that are not there."""
    argument = uffdio_register(start, length, _MODE_MISSING, 0)
    _call(fd, _UFFDIO_REGISTER, argument, f"UFFDIO_REGISTER, {start:#x}, {length:#x}")


def wake(fd: int, start: int, length: int) -> None:
    """Let those who wait for pages of a range try again."""
    _call(fd, _UFFDIO_WAKE, uffdio_range(start, length), f"UFFDIO_WAKE, {start:#x}, {length:#x}")


class Filled(NamedTuple):
    """What became of pages that were to be put into place."""

    length: int
    """Bytes that are there now, from the start."""
    errno: int
    """Why no more, 0 if it is all. EEXIST: a page is there. EAGAIN: events are to be read first. ENOENT: the range is
    not in one mapping, or in none that is watched. ESRCH: the address space is gone. EFAULT: the source cannot be read.
    """


def copy(fd: int, start: int, source: int, length: int) -> Filled:
    """Put copies of pages of ours into place, and wake who waits for them."""
    argument = uffdio_copy(start, source, length, 0, 0)
    if _ioctl(fd, _UFFDIO_COPY, ctypes.addressof(argument)) == 0:
        return Filled(length, 0)
    number = _get_errno()
    return Filled(argument.copy, 0) if argument.copy > 0 else Filled(0, number)


def put_zeros(fd: int, start: int, length: int) -> Filled:
    """Put zero pages into place, and wake who waits for them."""
    argument = uffdio_zeropage(start, length, 0, 0)
    if _ioctl(fd, _UFFDIO_ZEROPAGE, ctypes.addressof(argument)) == 0:
        return Filled(length, 0)
    number = _get_errno()
    return Filled(argument.zeropage, 0) if argument.zeropage > 0 else Filled(0, number)


def look_at(fd: int, page: int) -> int:
    """Try a copy that cannot be made, and return why: EFAULT if the page is in a watched mapping, ENOENT if in none.

    EAGAIN: an event is under way. ESRCH: the address space is gone.
    """
    number = copy(fd, page, PAGE_SIZE, PAGE_SIZE).errno  # nothing is ever mapped in the first pages
    return errno.EFAULT if number == errno.EEXIST else number


def register_writes(fd: int, start: int, end: int) -> None:
    """Have writes to mappings noted; those that are registered with this descriptor already stay so.

    Raises OSError: EBUSY if one is registered with another descriptor, EINVAL if one cannot be or is not there, ESRCH
    if the address space is gone.
    """
    argument = uffdio_register(start, end - start, _MODE_WRITES, 0)
    _call(fd, _UFFDIO_REGISTER, argument, f"UFFDIO_REGISTER, {start:#x}, {end - start:#x}")


def unregister(fd: int, start: int, end: int) -> None:
    """Let nothing of mappings be registered. Raises OSError, as for one that cannot be."""
    _call(fd, _UFFDIO_UNREGISTER, uffdio_range(start, end - start), f"UFFDIO_UNREGISTER, {start:#x}")
