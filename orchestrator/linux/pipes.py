"""Look into a pipe without taking anything out. See tee(2)."""

from __future__ import annotations

import fcntl
import os

from orchestrator.linux.call import machine, syscall
from orchestrator.linux.syscalls import numbers

_NR_tee = numbers(machine())["tee"]
_SPLICE_F_NONBLOCK = 2


def tee(source: int, target: int, length: int) -> int:
    """Duplicate up to ``length`` bytes of one pipe into another; neither call nor pipes block."""
    try:
        return syscall(_NR_tee, source, target, length, _SPLICE_F_NONBLOCK)
    except OSError as error:
        error.add_note(f"tee({source}, {target}, {length}, SPLICE_F_NONBLOCK)")
        raise


def peek_pipe(fd: int, capacity: int) -> list[bytes]:
    """Return what waits in a pipe, given a descriptor that can read it; packets come one by one.

    ``capacity`` is the pipe's own, in bytes. PermissionError where it is above what we may have.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(writer, 1031, capacity)  # F_SETPIPE_SZ: as many buffers as there
        tee(fd, writer, 0x7FFF_F000)
        os.close(writer)
        writer = -1
        pieces = []
        while piece := os.read(reader, 1 << 21):
            pieces.append(piece)
        return pieces
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
