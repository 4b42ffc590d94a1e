"""Memory that is described from replicas, when the job runs again.

What the kernel tells of mappings and pages it tells by walking page tables: that takes tens of milliseconds a GiB, as
much as to copy them for a replica, and in a tree of small processes it is a third of the time that they stand still.
A replica has the same mappings and pages, and can be asked instead. But not all that a mapping may have goes over into
a child. So this is for jobs that had nothing of the kind shortly before they were held, and whose replicas have the
same mappings; else the processes themselves are asked, as ever. It is for all processes of a job or for none, as
whoever describes one looks at what others have in common with it.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.capture.hold import HeldProcess
from orchestrator.errors import CaptureFailed
from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.memory.capture import REFUSED_FLAGS, CapturedMemory, Mappers, Range, is_file, without
from orchestrator.linux.proc_maps import SPECIAL, MapLine, VmFlags, parse_maps, read_smaps_flags
from orchestrator.linux.procfs import read_file
from orchestrator.tape.tracee import Workspace

_WORTHWHILE_BYTES = 8 << 20
WORTHWHILE_PROCESSES = 16
_COMPARED_BYTES = 1 << 30
"""Of a tree, no more: with replicas all pages are mapped more than once, and each is looked for among all others."""
_LOST_IN_A_CHILD = frozenset(("lo", "lf", "dc", "wf", "um", "uw", "ht"))
"""Locked, not inherited, wiped, watched by userfaultfd, huge pages of a pool."""
_UNFIT = _LOST_IN_A_CHILD.union(REFUSED_FLAGS)

Foreseen = Mapping[MapLine, VmFlags]
"""What a process had mapped shortly before it was held."""


def foresee(pids: Sequence[HostPid], private: int) -> dict[HostPid, Foreseen]:
    """Look at the running processes of a job with so many bytes of memory; {} if their replicas would not do."""
    worthwhile = private >= _WORTHWHILE_BYTES or len(pids) >= WORTHWHILE_PROCESSES
    if not worthwhile or (len(pids) > 1 and private > _COMPARED_BYTES):
        return {}
    found: dict[HostPid, Foreseen] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = read_smaps_flags(pid)
            if resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
                return {}
            if not all(_goes_over(line, flags) for line, flags in lines):
                return {}
            found[pid] = {line._replace(page_size=0): flags for line, flags in lines}  # as in maps
    return found


def _goes_over(line: MapLine, flags: VmFlags) -> bool:
    return line.path in SPECIAL or (not line.key and _UNFIT.isdisjoint(flags))


class LateMemory:
    """Memory that is not described yet; several processes may have the like."""

    def __init__(self, lines: list[MapLine], files: dict[int, ObjectId]) -> None:
        self.lines = lines
        """Its mappings."""
        self._files = files

    @property
    def mappers(self) -> Mappers:
        """The files behind its mappings."""
        return Mappers(lambda _pid, line, _writable: self._files[line.start], _never, _never)

    def refuse_changed(self, found: CapturedMemory) -> None:
        """Raise CaptureFailed if the replica has not got what the process has."""
        lost = any(not _LOST_IN_A_CHILD.isdisjoint(vma.flags) for vma in found.vmas)
        if lost or [line._replace(page_size=0) for line in found.lines] != self.lines:
            raise CaptureFailed(
                "the job changed what its children inherit (madvise) just when it was held", hint="try again"
            )


def look_at(
    processes: Iterable[HeldProcess], foreseen: Mapping[HostPid, Foreseen], mappers: Mappers
) -> dict[HostPid, LateMemory]:
    """Look at the mappings of processes that have workspaces; {} if they must be described at once."""
    found: dict[HostPid, LateMemory] = {}
    alike: dict[tuple[bytes, Workspace], LateMemory] = {}
    for process in processes:
        assert process.workspace is not None
        if process.host not in foreseen or any(s.seccomp or s.vm_locked_kib for s in process.statuses.values()):
            return {}
        maps = read_file(f"/proc/{process.seen}/maps")
        late = alike.get((maps, process.workspace))  # as of a process that was forked, mostly
        if late is None:
            late = _look_at(process, process.workspace, parse_maps(maps), foreseen[process.host], mappers)
            if late is None:
                return {}
            if not any(line.shared for line in late.lines):  # who may write to a file's is not in the text
                alike[maps, process.workspace] = late
        found[process.host] = late
    return found


def _look_at(
    process: HeldProcess, workspace: Workspace, maps: list[MapLine], foreseen: Foreseen, mappers: Mappers
) -> LateMemory | None:
    ours = Range(workspace.base, workspace.base + workspace.size)
    lines = [part for line in maps for part in without(ours, line)]
    files = [line for line in lines if line.inode and line.path not in SPECIAL]
    if not all(is_file(line) and (not line.shared or line in foreseen) for line in files):
        return None
    known = {line.start: mappers.file(process.seen, line, line.shared and "mw" in foreseen[line]) for line in files}
    return LateMemory(lines, known)


def _never(_pid: HostPid, line: MapLine) -> ObjectId:
    raise AssertionError(f"{line} was no file when it was looked at")
