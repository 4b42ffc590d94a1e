"""IPC namespaces: limits, System V semaphores, message queues and segments, made again with their ids.

Not kept, as nothing can set them: the times and process ids that IPC_STAT shows. See ipc_namespaces(7).
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.memory.sysv import create_as, ensure_segment, next_id, segment_name, segment_object
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux import sysvipc
from orchestrator.linux.mqueuefs import list_queues
from orchestrator.linux.nsfs import CLONE_NEWIPC
from orchestrator.linux.proc_maps import read_maps
from orchestrator.namespaces.enter import enter
from orchestrator.namespaces.kind import NamespaceKind
from orchestrator.namespaces.sysctl import read_sysctls, write_sysctl
from orchestrator.namespaces.undo import note_undo_lists
from orchestrator.tape.build import Tape

_KERNEL = ("msgmax", "msgmnb", "msgmni", "sem", "shmmax", "shmall", "shmmni")
_MQUEUE = ("queues_max", "msg_max", "msgsize_max", "msg_default", "msgsize_default")
_SYSCTLS = [f"/proc/sys/kernel/{name}" for name in _KERNEL] + [f"/proc/sys/fs/mqueue/{name}" for name in _MQUEUE]
_RMID_FORCED = "/proc/sys/kernel/shm_rmid_forced"
_MESSAGES_LIMIT = 64 << 20
_SEMBUF = struct.Struct("=HhH")  # struct sembuf: sem_num, sem_op, sem_flg
_SEMVMX = 32767


class Semaphores(Record, frozen=True):
    """A set of semaphores. See semctl(2)."""

    key: int
    id: int
    mode: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    values: list[int]
    operated: bool
    """Whether sem_otime is set: programs take that as the sign that a set is ready."""


class Message(NamedTuple):
    """One message of a queue."""

    type: int
    text: bytes


class Queue(Record, frozen=True):
    """A message queue. See msgctl(2)."""

    key: int
    id: int
    mode: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    qbytes: int
    messages: list[Message]


class IpcNamespace(Record, frozen=True, tag="ipc"):
    """What an IPC namespace holds."""

    sysctls: dict[str, str]
    shm_rmid_forced: bool
    semaphores: list[Semaphores]
    queues: list[Queue]
    segments: list[ObjectId]
    """Shared objects of the image (``kinds/memory/sysv.py``), which the depot makes."""


class _Seen(NamedTuple):
    """What is in the namespace."""

    sysctls: dict[str, str]
    rmid_forced: bool
    semaphores: list[Semaphores]
    queues: list[Queue]
    segments: list[sysvipc.Segment]
    opened: dict[int, int]
    """Descriptors of the segments that nobody has attached."""
    posix_queues: list[str]
    unreadable: list[str]


def _look() -> _Seen:
    queues, unreadable = [], []
    for row in sysvipc.read_queues():
        limit = sysvipc.queue_limit(row.id)
        try:
            messages = [Message(*sysvipc.copy_message(row.id, i, limit)) for i in range(row.qnum)]
        except OSError as error:
            unreadable.append(f"message queue {row.id}: {error.strerror}")
            continue
        queues.append(Queue(row.key, row.id, row.mode & 0o777, row.uid, row.gid, row.cuid, row.cgid, limit, messages))
    semaphores = []
    for row_ in sysvipc.read_semaphores():
        mode, values = row_.mode & 0o777, sysvipc.semaphore_values(row_.id, row_.nsems)
        owners = row_.uid, row_.gid, row_.cuid, row_.cgid
        semaphores.append(Semaphores(row_.key, row_.id, mode, *owners, values, row_.otime != 0))
    segments = sysvipc.read_segments()
    return _Seen(
        read_sysctls(_SYSCTLS),
        read_sysctls([_RMID_FORCED]).get(_RMID_FORCED) == "1",
        semaphores,
        queues,
        segments,
        {row.id: _open_segment(row) for row in segments if not row.nattch},
        list_queues(),
        unreadable,
    )


def _open_segment(segment: sysvipc.Segment) -> int:
    address = sysvipc.shmat(segment.id, sysvipc.SHM_RDONLY)
    try:
        line = next(line for line in read_maps(os.getpid()) if line.start == address)  # whatever its page size is
        return os.open(f"/proc/self/map_files/{address:x}-{line.end:x}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        sysvipc.shmdt(address)


def _capture(pid: HostPid, scope: Scope) -> IpcNamespace:
    seen = enter(pid, ["ipc"], _look)
    try:
        for name in seen.posix_queues:
            scope.unsupported(pid, f"POSIX message queue /{name}", "message queues of mq_open(3) cannot be saved")
        for what in seen.unreadable:
            scope.unsupported(pid, what, "its messages cannot be read")
        if sum(len(message.text) for queue in seen.queues for message in queue.messages) > _MESSAGES_LIMIT:
            scope.unsupported(pid, "message queues", f"they hold more than {_MESSAGES_LIMIT >> 20} MiB")
        if any(row.operated for row in seen.semaphores):
            note_undo_lists(scope, [*scope.pids])
        segments = _capture_segments(pid, scope, seen)
    finally:
        for fd in seen.opened.values():
            os.close(fd)
    return IpcNamespace(seen.sysctls, seen.rmid_forced, seen.semaphores, seen.queues, segments)


def _capture_segments(pid: HostPid, scope: Scope, seen: _Seen) -> list[ObjectId]:
    paths = _mappings(scope, {row.id for row in seen.segments if row.nattch})
    paths |= {id_: f"/proc/self/fd/{fd}" for id_, fd in seen.opened.items()}
    found = []
    for row in seen.segments:
        path = paths.get(row.id)
        if path is None:
            scope.outside(pid, segment_name(row.id, row.key), "attached only by processes outside the job")
        else:
            found.append(segment_object(scope, row, path))
    return found


def _mappings(scope: Scope, wanted: set[int]) -> dict[int, str]:
    """Find, for each segment of ``wanted``, one place where the job has it mapped."""
    found: dict[int, str] = {}
    for pid in scope.seen():
        if len(found) == len(wanted):
            break
        for line in read_maps(pid):
            if line.inode in wanted and line.deleted and line.path.startswith(b"/SYSV"):
                found.setdefault(line.inode, f"/proc/{pid}/map_files/{line.start:x}-{line.end:x}")
    return found


def _rebuild(record: IpcNamespace, tape: Tape) -> None:
    for path, value in record.sysctls.items():
        write_sysctl(tape, path, value)
    for semaphores in record.semaphores:
        _rebuild_semaphores(semaphores, tape)
    for queue in record.queues:
        _rebuild_queue(queue, tape)
    if record.shm_rmid_forced:
        write_sysctl(tape, _RMID_FORCED, "1")


def _rebuild_semaphores(record: Semaphores, tape: Tape) -> None:
    next_id(tape, "sem", record.id)
    flags = record.mode | sysvipc.IPC_CREAT | sysvipc.IPC_EXCL
    count = len(record.values)
    create_as(tape, record.cuid, record.cgid, lambda: tape.semget(record.key, count, flags), record.id)
    tape.semctl(record.id, 0, sysvipc.IPC_SET, sysvipc.pack_semid_ds(record.uid, record.gid, record.mode))
    tape.semctl(record.id, 0, sysvipc.SETALL, struct.pack(f"={count}H", *record.values))
    if record.operated:  # up and down again in one operation sets the time and nothing else
        step = -1 if record.values[0] == _SEMVMX else 1
        tape.semop(record.id, _SEMBUF.pack(0, step, 0) + _SEMBUF.pack(0, -step, 0), 2)


def _rebuild_queue(record: Queue, tape: Tape) -> None:
    next_id(tape, "msg", record.id)
    flags = record.mode | sysvipc.IPC_CREAT | sysvipc.IPC_EXCL
    create_as(tape, record.cuid, record.cgid, lambda: tape.msgget(record.key, flags), record.id)
    owner = sysvipc.pack_msqid_ds(record.uid, record.gid, record.mode, record.qbytes)
    tape.msgctl(record.id, sysvipc.IPC_SET, owner)
    for message in record.messages:
        content = struct.pack("=q", message.type) + message.text
        tape.msgsnd(record.id, content, len(message.text), sysvipc.IPC_NOWAIT)


def _fill(record: IpcNamespace, depot: Depot) -> None:
    for of in record.segments:
        ensure_segment(of, depot)


KIND = NamespaceKind("ipc", CLONE_NEWIPC, IpcNamespace, _capture, _rebuild, fill=_fill)
