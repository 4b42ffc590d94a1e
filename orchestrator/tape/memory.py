"""Where a tape lies: memory of another task, reached from outside or shared with us."""

from __future__ import annotations

import mmap
import os
from typing import Protocol

from orchestrator.ids import FarAddr, HostPid


class Memory(Protocol):
    """Memory of a task that we can read and write."""

    def write(self, address: FarAddr, content: bytes) -> None:
        """Store ``content`` at ``address``."""

    def read(self, address: FarAddr, size: int) -> bytes:
        """Return ``size`` bytes from ``address``."""


class ProcMemory:
    """A task's memory through /proc/PID/mem, which passes over page protections. See proc_pid_mem(5)."""

    __slots__ = ("_fd",)

    def __init__(self, pid: HostPid) -> None:
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def write(self, address: FarAddr, content: bytes) -> None:
        """Store ``content`` at ``address``."""
        done = os.pwrite(self._fd, content, address)
        if done != len(content):
            raise OSError(14, f"short write of task memory at {address + done:#x}")

    def read(self, address: FarAddr, size: int) -> bytes:
        """Return ``size`` bytes from ``address``."""
        content = os.pread(self._fd, size, address)
        if len(content) != size:
            raise OSError(14, f"short read of task memory at {address + len(content):#x}")
        return content

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


class Arena:
    """Memory shared between orch and every process of a restore, at one address in all of theirs.

    Tapes are written once, here, and children find theirs when they are born.
    """

    def __init__(self, base: FarAddr, size: int) -> None:
        self.base = base
        self.size = size
        self.fd = os.memfd_create("orch-arena", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        self._next = 0

    def reserve(self, size: int) -> FarAddr:
        """Return the address of ``size`` unused bytes, 64-byte aligned."""
        at = self._next
        self._next = at + size + 63 & ~63
        if self._next > self.size:
            raise MemoryError(f"the tapes of this restore need more than {self.size} bytes")
        return FarAddr(self.base + at)

    def write(self, address: FarAddr, content: bytes) -> None:
        """Store ``content`` at ``address``."""
        start = address - self.base
        self._map[start : start + len(content)] = content

    def read(self, address: FarAddr, size: int) -> bytes:
        """Return ``size`` bytes from ``address``."""
        start = address - self.base
        return self._map[start : start + size]

    def close(self) -> None:
        """Unmap our view and give the descriptor back."""
        self._map.close()
        os.close(self.fd)
