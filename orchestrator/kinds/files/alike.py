"""Tell which descriptors are of one open file description: kcmp(2) among those that look the same in procfs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from orchestrator.ids import HostPid
from orchestrator.linux.kcmp import KCMP_FILE, kcmp
from orchestrator.linux.proc_fd import FdInfo


class Looks(NamedTuple):
    """What is the same for all descriptors of one open file description."""

    inode: int
    mount: int
    flags: int
    position: int
    eventfd: str | None


class Numbered(Protocol):
    """A descriptor of a process."""

    @property
    def pid(self) -> HostPid:
        """Whose it is."""

    @property
    def fd(self) -> int:
        """Its number there."""


def looks(info: FdInfo) -> Looks:
    """Return by what a descriptor is compared with others at all."""
    return Looks(info.ino, info.mnt_id, info.flags & ~os.O_CLOEXEC, info.pos, info.get("eventfd-id"))


def find(alike: Sequence[Numbered], pid: HostPid, fd: int) -> int:
    """Find the open file description among others in the order of kcmp(2): its place, or ~P if P is to be its place."""
    low, high = 0, len(alike)
    while low < high:
        middle = (low + high) // 2
        other = alike[middle]
        order = kcmp(other.pid, pid, KCMP_FILE, other.fd, fd)
        if order == 0:
            return middle
        low, high = (middle + 1, high) if order == 1 else (low, middle)
    return ~low
