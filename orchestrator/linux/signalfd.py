"""Signals read from a descriptor. See signalfd(2)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from signal import Signals
from typing import NamedTuple

SFD_CLOEXEC = os.O_CLOEXEC
SFD_NONBLOCK = os.O_NONBLOCK

_SIGINFO_BYTES = 128
_SIGSET_BYTES = 128  # glibc's sigset_t, of which the kernel reads the first eight
_libc = ctypes.CDLL(None, use_errno=True)
_signalfd = _libc.signalfd
_signalfd.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int]


class signalfd_siginfo(NamedTuple):
    """The first fields of <linux/signalfd.h>'s struct."""

    ssi_signo: int
    ssi_errno: int
    ssi_code: int
    ssi_pid: int
    ssi_uid: int


def signalfd(signals: Iterable[Signals], flags: int = SFD_CLOEXEC | SFD_NONBLOCK) -> int:
    """Open a descriptor that is readable while one of the signals is pending. Block them first."""
    mask = sum(1 << (signo - 1) for signo in signals)
    fd = _signalfd(-1, mask.to_bytes(_SIGSET_BYTES, "little"), flags)
    if fd < 0:
        number = ctypes.get_errno()
        error = OSError(number, os.strerror(number))
        error.add_note("signalfd")
        raise error
    return int(fd)


def read_signals(fd: int) -> list[signalfd_siginfo]:
    """Take the signals that are pending; none is an empty list."""
    try:
        raw = os.read(fd, 32 * _SIGINFO_BYTES)
    except BlockingIOError:
        return []
    return [
        signalfd_siginfo(*struct.unpack_from("=IiiII", raw, offset)) for offset in range(0, len(raw), _SIGINFO_BYTES)
    ]
