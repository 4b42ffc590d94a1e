"""System V shared memory segments: captured once each, made again with their ids, attached where they were.

A mapping of one shows as "/SYSVkey (deleted)", and its inode number is the segment's id.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from orchestrator.errors import ResourceTaken
from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.memory.huge import huge_bits, read_contents, scratch_for, segment_flags, store_huge
from orchestrator.kinds.memory.record import Vma
from orchestrator.kinds.record import Content, Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux import sysvipc
from orchestrator.linux.proc_maps import MapLine
from orchestrator.namespaces.enter import enter
from orchestrator.namespaces.sysctl import write_sysctl
from orchestrator.tape.build import Result, Tape

_PAGE = 4096
_PROT_READ_WRITE = 3
_MADV_REMOVE = 9
_FUTEX_CMP_REQUEUE_PRIVATE = 4 | 128
_KEEP = -1


class SysvSegment(Record, frozen=True, tag="sysv-segment"):
    """A shared memory segment. See shmctl(2)."""

    shmid: int
    key: int
    mode: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    content: Content
    destroyed: bool = False
    """Marked by IPC_RMID: it ends with its last attachment."""
    locked: bool = False
    """SHM_LOCK."""
    huge_bits: int = 0
    """The page size of memory from hugetlbfs (SHM_HUGETLB), as a power of two; else 0."""

    @property
    def name(self) -> str:
        """How messages call it."""
        return segment_name(self.shmid, self.key)


def segment_name(shmid: int, key: int) -> str:
    """Return how messages call a segment."""
    return f"shared memory segment {shmid} (key {key & 0xFFFFFFFF:#010x})"


def segments_of(pid: HostPid) -> dict[int, sysvipc.Segment]:
    """List the segments in the IPC namespace of a process, by id."""
    if os.stat(f"/proc/{pid}/ns/ipc").st_ino == os.stat("/proc/self/ns/ipc").st_ino:
        rows = sysvipc.read_segments()
    else:
        rows = enter(pid, ["ipc"], sysvipc.read_segments)
    return {row.id: row for row in rows}


class SegmentMapper:
    """Turns the mappings of a job's segments into shared objects of the image; one for a whole capture.

    Make it, and let it see every mapping of every address space once, before anything forks for the capture:
    a fork counts as an attachment. At the end, as a finisher of the scope, it notes segments that
    somebody outside the job has attached.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._table: dict[int, sysvipc.Segment] = {}
        self._counted: dict[int, int] = {}
        self._first: dict[int, HostPid] = {}

    def __call__(self, pid: HostPid, line: MapLine) -> ObjectId:
        """Return the segment behind a mapping, saving its contents on first sight."""
        scope, shmid = self._scope, line.inode
        if not self._first:
            self._table = segments_of(pid)
            scope.finishers.append(self._note_outsiders)
        self._counted[shmid] = self._counted.get(shmid, 0) + 1
        self._first.setdefault(shmid, pid)
        segment = self._table.get(shmid)
        where = f"memory {line.start:#x}-{line.end:#x} ({os.fsdecode(line.path)})"
        if segment is None:
            scope.unsupported(pid, where, f"segment {shmid} belongs to another IPC namespace")
            return ObjectId(-1)
        path = f"/proc/{pid}/map_files/{line.start:x}-{line.end:x}"
        if line.offset or line.end - line.start != _whole_pages(segment.size, huge_bits(path)):
            scope.unsupported(
                pid, where, f"{segment_name(shmid, segment.key)} is attached in part (munmap or mprotect split it)"
            )
        return segment_object(scope, segment, path)

    def _note_outsiders(self) -> None:
        for shmid, count in self._counted.items():
            segment = self._table.get(shmid)
            if segment is not None and segment.nattch > count:
                self._scope.outside(
                    self._first[shmid],
                    segment_name(shmid, segment.key),
                    f"attached {segment.nattch - count} more time(s) by processes outside the job",
                )


def segment_object(scope: Scope, segment: sysvipc.Segment, path: str) -> ObjectId:
    """Return the object of a segment; on first sight its contents are opened by ``path``, in /proc/PID/map_files."""

    def make(_: ObjectId) -> SysvSegment:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        scope.closers.append(fd)
        bits = huge_bits(path)
        return SysvSegment(
            segment.id,
            segment.key,
            segment.mode & 0o777,
            segment.uid,
            segment.gid,
            segment.cuid,
            segment.cgid,
            store_huge(scope, fd, segment.size, bits) if bits else scope.store(fd, segment.size),
            bool(segment.mode & sysvipc.SHM_DEST),
            bool(segment.mode & sysvipc.SHM_LOCKED),
            bits,
        )

    return scope.object("sysv", segment.id, make)


def check_segment(record: SysvSegment) -> None:
    """Before a restore into our own IPC namespace: raise ResourceTaken if the id or key belongs to something else."""
    for row in sysvipc.read_segments():
        if row.id == record.shmid:
            _check_same(record, row)
        elif record.key != sysvipc.IPC_PRIVATE and row.key == record.key:
            raise ResourceTaken(
                f"{record.name}: the key now belongs to segment {row.id}",
                hint=f"if nobody needs it: ipcrm -m {row.id}; or restore with --new",
            )


def _check_same(record: SysvSegment, row: sysvipc.Segment) -> None:
    same = (row.key, row.size, row.cuid, row.cgid) == (record.key, record.content.size, record.cuid, record.cgid)
    if row.nattch and same:
        raise ResourceTaken(
            f"{record.name}: {row.nattch} process(es) have it attached",
            hint="end what uses it (the original job?), or restore with --new",
        )
    if not same or row.mode & sysvipc.SHM_DEST:
        raise ResourceTaken(
            f"{record.name}: the id now belongs to another segment",
            hint=f"if nobody needs it: ipcrm -m {record.shmid}; or restore with --new",
        )


def ensure_segment(of: ObjectId, depot: Depot, existing: Collection[int] = ()) -> None:
    """Let the depot make a segment, or take the one of ``existing`` that still has its id, and fill it; once.

    ``existing`` are the ids in the IPC namespace that the depot is in, if that is not new (:func:`segments_of`);
    :func:`check_segment` has seen to it that one with our id is ours.
    """
    if not depot.extra("sysv", of)[1]:
        return
    record: SysvSegment = depot.objects[of]
    tape = depot.tape
    if record.shmid not in existing:
        next_id(tape, "shm", record.shmid, depot.proc)
        flags = record.mode | sysvipc.IPC_CREAT | sysvipc.IPC_EXCL | segment_flags(record.huge_bits)
        size = record.content.size
        create_as(tape, record.cuid, record.cgid, lambda: tape.shmget(record.key, size, flags), record.shmid)
    tape.shmctl(record.shmid, sysvipc.IPC_SET, sysvipc.pack_shmid_ds(record.uid, record.gid, record.mode))
    _fill(record, depot, was_there=record.shmid in existing)
    if record.locked:
        tape.shmctl(record.shmid, sysvipc.SHM_LOCK, 0)


def _fill(record: SysvSegment, depot: Depot, *, was_there: bool) -> None:
    if not record.content.extents and not was_there:
        return
    tape, scratch = depot.tape, scratch_for(depot, record.huge_bits)  # where shmat fails if something is mapped
    tape.shmat(record.shmid, scratch, 0)
    if was_there:  # what no extent covers shall read as zeros
        tape.madvise(scratch, _whole_pages(record.content.size, record.huge_bits), _MADV_REMOVE)
    read_contents(depot, tape, scratch, record.content)
    tape.shmdt(scratch)


def attach(record: SysvSegment, start: int, prot: int, tape: Tape) -> None:
    """Write the entries that attach a segment at ``start``, in place of what may be mapped there.

    Always for reading and writing, as what mprotect(2) took away it may give back; ``prot`` follows.
    """
    tape.shmat(record.shmid, start, sysvipc.SHM_REMAP)
    if prot != _PROT_READ_WRITE:
        tape.mprotect(start, _whole_pages(record.content.size, record.huge_bits), prot)


def attach_vma(record: SysvSegment, vma: Vma, tape: Tape) -> None:
    """Write the entries that make the mapping ``vma`` of a segment."""
    attach(record, vma.start, vma.prot, tape)


def finish_segment(record: SysvSegment, tape: Tape) -> None:
    """When every process has its attachments: mark the segment destroyed if it was."""
    if record.destroyed:
        tape.shmctl(record.shmid, sysvipc.IPC_RMID, 0)


def next_id(tape: Tape, what: str, wanted: int, proc: str = "/proc") -> None:
    """Let the next "shm", "sem" or "msg" object of the IPC namespace get the id ``wanted``, if it is free."""
    write_sysctl(tape, f"{proc}/sys/kernel/{what}_next_id", str(wanted))


def create_as(tape: Tape, cuid: int, cgid: int, make: Callable[[], Result], wanted: int) -> None:
    """Let ``make`` create an object as the user that created it once, and stop the tape if its id is not ``wanted``."""
    if cgid:
        tape.setresgid(_KEEP, cgid, _KEEP)
    if cuid:
        tape.setresuid(_KEEP, cuid, _KEEP)
    made = make()
    if cuid:
        tape.setresuid(_KEEP, 0, _KEEP)
    if cgid:
        tape.setresgid(_KEEP, 0, _KEEP)
    _require_id(tape, made, wanted)


def _require_id(tape: Tape, made: Result, wanted: int) -> None:
    # A tape has no comparison, but this call has: with nobody to wake, all it does is to fail with EAGAIN
    # if the word is not equal to its last argument.
    word = tape.block(wanted.to_bytes(4, "little"))
    other = tape.block(bytes(4))
    tape.futex(word, _FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, other, made)


def _whole_pages(size: int, bits: int) -> int:
    page = 1 << bits if bits else _PAGE
    return size + page - 1 & -page
