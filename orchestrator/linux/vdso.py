"""The vDSO: where it lies, and a system-call instruction inside of it. See vdso(7)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

_AT_SYSINFO_EHDR = 33
_HEAD_BYTES = 1024


def base_from_auxv(auxv: bytes) -> int:
    """Return AT_SYSINFO_EHDR of an auxiliary vector, 0 without one."""
    for at in range(0, len(auxv) - 15, 16):
        if int.from_bytes(auxv[at : at + 8], "little") == _AT_SYSINFO_EHDR:
            return int.from_bytes(auxv[at + 8 : at + 16], "little")
    return 0


@cache
def own_image() -> bytes:
    """Return the bytes of the vDSO that this kernel gives to native processes."""
    with open("/proc/self/maps", "rb", buffering=1 << 16) as maps:
        for line in maps:
            if line.endswith(b"[vdso]\n"):
                start, end = (int(x, 16) for x in line.split(b" ", 1)[0].split(b"-"))
                return ctypes.string_at(start, end - start)
    return b""


def is_mapped_at(base: int, read: Callable[[int, int], bytes]) -> bool:
    """Say whether a process that ``read`` reads from has its vDSO at ``base``: it may have unmapped or moved it."""
    head = own_image()[:_HEAD_BYTES]
    try:
        return bool(base and head) and read(base, len(head)) == head
    except OSError:
        return False


@cache
def syscall_offset(instruction: bytes) -> int:
    """Return the offset of ``instruction`` in the vDSO, -1 if it holds none."""
    return own_image().find(instruction)


@cache
def slack_offset(size: int) -> int:
    """Return the offset of ``size`` unused bytes behind the vDSO's own, -1 if there are not so many."""
    image = own_image()
    start = len(image.rstrip(b"\0")) + 63 & ~63
    return start if image and start + size <= len(image) else -1


@cache
def digest() -> str:
    """Name this kernel's vDSO, to know one that came from another kernel."""
    import hashlib

    return f"{os.uname().release}:{hashlib.sha256(own_image()).hexdigest()[:16]}"
