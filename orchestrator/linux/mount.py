"""mount(2) and umount2(2) for ourselves; those of a job are made by its own tapes."""

from __future__ import annotations

import ctypes
import os

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_mount = _libc.mount
_mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_umount2 = _libc.umount2
_umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """Mount a filesystem, or change a mount."""
    name = None if fstype is None else fstype.encode()
    if _mount(os.fsencode(source), os.fsencode(target), name, flags, None if data is None else data.encode()) != 0:
        _fail(f"mount({source!r}, {target!r}, {fstype!r}, {flags:#x})")


def umount2(target: str, flags: int) -> None:
    """Unmount what is on top at ``target``."""
    if _umount2(os.fsencode(target), flags) != 0:
        _fail(f"umount2({target!r}, {flags:#x})")


def _fail(call: str) -> None:
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number))
    error.add_note(call)
    raise error
