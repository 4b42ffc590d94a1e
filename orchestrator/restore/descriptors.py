"""Which descriptors a restore needs: what the first process opens for all, and what each opens for itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from orchestrator.ids import ObjectId, Pid
from orchestrator.kinds.files.apart import files_apart
from orchestrator.kinds.files.depot import claims
from orchestrator.kinds.files.external import External
from orchestrator.kinds.files.io_uring import IO_URING
from orchestrator.kinds.files.kind import FileTable
from orchestrator.kinds.files.namespace import wanted_outer
from orchestrator.kinds.files.pipe import PipeBuffer
from orchestrator.kinds.files.slots import LOWEST, Slots
from orchestrator.kinds.sockets.unix_records import UnixPair
from orchestrator.kinds.task.process import OF_PROCESS
from orchestrator.kinds.terminals.claim import wanted_masters
from orchestrator.snapshot import Snapshot

_OWN = 3 + 4
"""What orch gives to the first process for itself: the image, the cgroup, and the way for the job's status; and from
where it binds Unix sockets."""
_LOW = LOWEST + 2


class Division(NamedTuple):
    """Who opens what, and at which number it stands."""

    slots: Slots
    """Of what the first process opens."""
    apart: dict[ObjectId, list[ObjectId]]
    """What the process that places a table opens itself."""
    needed: int
    """How many numbers a process must be allowed to have; at most."""


def divide(snapshot: Snapshot, limit: int) -> Division:
    """Let the first process open everything if it may have so many descriptors, else only what it must."""
    whole = Slots((file.id for file in snapshot.files), claims(snapshot.file_tables, snapshot.files), limit=limit)
    extras = _extras(snapshot)
    needed = whole.room(extras)
    if needed <= limit:
        return Division(whole, {}, needed)
    tables = _apart(snapshot)
    rest = [file.id for file in snapshot.files if file.id not in tables]
    slots = Slots(rest, claims(snapshot.file_tables, snapshot.files), limit=limit)
    apart: dict[ObjectId, list[ObjectId]] = {}
    for file, table in tables.items():
        apart.setdefault(table, []).append(file)
    low = [_without_place(table, tables) for table in snapshot.file_tables if table.id in apart]
    return Division(slots, apart, slots.room(extras + max(low, default=0)))


def needed_limit(snapshot: Snapshot, limit: int) -> int:
    """Return how many descriptors a process must be allowed to have for a restore, at least ``limit``."""
    highest = max([_LOW, *(table.descriptors[-1].fd for table in snapshot.file_tables if table.descriptors)])
    files = len(snapshot.files) + _LOW + highest
    if 2 * files < limit or files + (extras := _extras(snapshot)) < limit:
        return limit
    if files - len(_apart(snapshot)) + extras < limit:
        return limit
    return divide(snapshot, limit).needed


def _apart(snapshot: Snapshot) -> dict[ObjectId, ObjectId]:
    owners = placers(snapshot, threads=False)
    # Whoever shares directories with others may be led elsewhere by them while it opens files by their paths.
    states = {process.pid: process.state for process in snapshot.processes if process.state is not None}
    sharers = Counter(state.filesystem for state in states.values())
    owners = {table: pid for table, pid in owners.items() if sharers[states[pid].filesystem] == 1}
    return files_apart(snapshot.files, snapshot.objects, snapshot.file_tables, owners, _elsewhere(snapshot))


def _extras(snapshot: Snapshot) -> int:
    """Count what needs numbers beside the open files; at most so many."""
    return _OWN + sum(map(_stands_too, snapshot.objects)) + len(_given(snapshot))


def placers(snapshot: Snapshot, *, threads: bool = True) -> dict[ObjectId, Pid]:
    """Say which process places each table of files: of those that share one, it is the first.

    With ``threads`` also those that only a thread of it has.
    """
    found: dict[ObjectId, Pid] = {}
    for process in snapshot.processes:
        if process.state is not None:
            found.setdefault(process.state.files, process.pid)
            for thread in process.threads if threads else ():
                found.setdefault(thread.files, process.pid)
    return found


def _given(snapshot: Snapshot) -> set[str]:
    """Name what the first process gets from orch."""
    outside = {file.body.key for file in snapshot.files if isinstance(file.body, External)}
    return {*outside, *wanted_outer(snapshot.files), *wanted_masters(snapshot.files, snapshot.objects)}


def _without_place(table: FileTable, apart: Collection[ObjectId]) -> int:
    """Count the files of a table that its process opens, and that have only low numbers there."""
    high = {one.file for one in table.descriptors if one.fd >= LOWEST}
    return len({one.file for one in table.descriptors if one.file in apart} - high)


def _elsewhere(snapshot: Snapshot) -> Iterator[ObjectId]:
    """Yield the files that are mapped or entered."""
    for memory in snapshot.memories:
        yield memory.executable
        yield from (ObjectId(vma.of) for vma in memory.vmas if vma.backing in ("file", IO_URING))
    for context in snapshot.filesystems:
        if context.is_removed:
            yield context.entered
    for process in snapshot.processes:  # a table that a thread has for itself is filled from the first process's
        for thread in process.threads:
            if thread.files != OF_PROCESS:
                yield from (one.file for one in snapshot.file_tables[thread.files].descriptors)


def _stands_too(record: object) -> bool:
    """Whether a shared object has a number of its own while files are opened; may say so of one that has none."""
    return not isinstance(record, PipeBuffer) and not (isinstance(record, UnixPair) and record.closed_end is None)
