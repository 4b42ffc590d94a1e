"""The memory of a lone, large process, described from its replica when the job runs again.

What the kernel tells of mappings and pages it tells by walking page tables: that takes tens of milliseconds a GiB, as
much as to copy them for a replica. The replica has the same mappings and pages, and can be asked instead. But not all
that a mapping may have goes over into a child. So this is for processes that had nothing of the kind shortly before
they were held, and whose replicas have the same mappings; else the process itself is asked, as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from orchestrator.capture.hold import HeldProcess
from orchestrator.capture.replica import Cloning, Replica
from orchestrator.errors import CaptureFailed
from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.memory.capture import Mappers, Range, is_file, without
from orchestrator.kinds.memory.record import Vma
from orchestrator.linux.proc_maps import SPECIAL, MapLine, VmFlags, read_maps, read_smaps_flags
from orchestrator.linux.proc_status import read_status

_WORTHWHILE_KIB = 8 * 1024
_LOST_IN_A_CHILD = frozenset(("lo", "lf", "dc", "wf", "um", "uw", "ht"))
"""Locked, not inherited, wiped, watched by userfaultfd, huge pages of a pool."""


class Foreseen(NamedTuple):
    """What a process had mapped shortly before it was held."""

    pid: HostPid
    flags: dict[MapLine, VmFlags]

    @classmethod
    def of(cls, pid: HostPid) -> Foreseen | None:
        """Look at a running process; None if it has anything that a child would not have."""
        with contextlib.suppress(OSError):
            found = read_smaps_flags(pid)
            if all(_LOST_IN_A_CHILD.isdisjoint(flags) and not line.key for line, flags in found):
                return cls(pid, {_as_in_maps(line): flags for line, flags in found})
        return None


class LateMemory(NamedTuple):
    """The memory of a process that is not described yet."""

    process: HeldProcess
    describe: Callable[[HostPid], None]
    """Describe it as it is in the process itself, or in its replica."""

    def replicate(self) -> Replica | None:
        """Return a replica that has all that the process has; None if there can be none."""
        replica = Cloning(self.process).finish()
        if replica is not None and read_maps(replica.host) != read_maps(self.process.seen):
            replica.end()
            return None
        return replica


def look_at(
    process: HeldProcess, foreseen: Foreseen | None, mappers: Mappers, ours: Range
) -> tuple[list[MapLine], Mappers] | None:
    """Return the mappings of a process and who knows the files behind them; None if it must be described at once."""
    if foreseen is None or foreseen.pid != process.host or process.status.vm_rss_kib < _WORTHWHILE_KIB:
        return None
    if read_status(process.seen).vm_locked_kib:  # asked now, when our own mapping tells of those to come
        return None
    lines = [part for line in read_maps(process.seen) for part in without(ours, line)]
    files = [line for line in lines if line.inode and line.path not in SPECIAL]
    if not all(is_file(line) and (not line.shared or line in foreseen.flags) for line in files):
        return None
    known: dict[int, ObjectId] = {}
    for line in files:
        known[line.start] = mappers.file(process.seen, line, line.shared and "mw" in foreseen.flags[line])
    return lines, Mappers(lambda _pid, line, _writable: known[line.start], _never, _never)


def refuse_changed(vmas: Iterable[Vma]) -> None:
    """Raise CaptureFailed if a mapping of a replica is one whose contents a child does not get."""
    if not all(_LOST_IN_A_CHILD.isdisjoint(vma.flags) for vma in vmas):
        raise CaptureFailed(
            "the job changed what its children inherit (madvise) just when it was held", hint="try again"
        )


def _as_in_maps(line: MapLine) -> MapLine:
    return line._replace(page_size=0)


def _never(_pid: HostPid, line: MapLine) -> ObjectId:
    raise AssertionError(f"{line} was no file when it was looked at")
