"""The first process of a restore: a static program of one page that only pauses.

It also holds the code that process 1 of restored namespaces runs when the job has no process 1 of its
own: reap, and end as the job's root ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from collections.abc import Mapping

from orchestrator.ids import FarAddr, HostPid
from orchestrator.linux.arch import x86_64 as arch

BASE = 0x20_0000
_PAGE = 4096
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_CODE_AT = 0x100
_INIT_AT = 0x140
PAUSE = FarAddr(BASE + _CODE_AT)
SYSCALL = FarAddr(BASE + _CODE_AT + arch.SEED_PAUSE.index(arch.SYSCALL_INSTRUCTION))
INIT = FarAddr(BASE + _INIT_AT)
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551
_R, _W, _X = 4, 2, 1


def elf() -> bytes:
    """Return the program: headers, and two pieces of code. See the manual page of the ELF format."""
    header = _EHDR.pack(
        b"\x7fELF\x02\x01\x01", 2, arch.ELF_MACHINE, 1, PAUSE, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, 2, 0, 0, 0
    )
    load = _PHDR.pack(_PT_LOAD, _R | _X, 0, BASE, BASE, _PAGE, _PAGE, _PAGE)
    stack = _PHDR.pack(_PT_GNU_STACK, _R | _W, 0, 0, 0, 0, 0, 16)
    image = bytearray(header + load + stack)
    image += bytes(_CODE_AT - len(image)) + arch.SEED_PAUSE
    image += bytes(_INIT_AT - len(image)) + arch.INIT_REAP
    return bytes(image) + bytes(_PAGE - len(image))


def spawn(descriptors: Mapping[int, int]) -> HostPid:
    """Start a seed that holds copies of our descriptors: number there -> our number. It has default signal actions."""
    program = _beside(os.memfd_create("orch-seed", os.MFD_CLOEXEC), descriptors)
    moved: list[int] = []
    try:
        os.write(program, elf())
        actions = []
        for there, ours in descriptors.items():
            if ours in descriptors:  # another would be put there first
                ours = _beside(os.dup(ours), descriptors)
                moved.append(ours)
            actions.append((os.POSIX_SPAWN_DUP2, ours, there))
        pid = os.posix_spawn(
            f"/proc/self/fd/{program}",
            ["orch-init"],
            {},
            file_actions=actions,
            setsigmask=[],
            setsigdef=[s for s in signal.Signals if s not in (signal.SIGKILL, signal.SIGSTOP)],
        )
    finally:
        for fd in (program, *moved):
            os.close(fd)
    return HostPid(pid)


def _beside(fd: int, numbers: Mapping[int, int]) -> int:
    """Move a descriptor of ours to a number that is none of these."""
    while fd in numbers:
        free = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, fd + 1)
        os.close(fd)
        fd = free
    return fd
