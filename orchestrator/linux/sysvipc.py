"""System V IPC: lists in /proc/sysvipc, calls that read objects, structs that set them up. See sysvipc(7)."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from orchestrator.linux.procfs import read_file

IPC_PRIVATE = 0
IPC_CREAT = 0o1000
IPC_EXCL = 0o2000
IPC_NOWAIT = 0o4000
IPC_RMID = 0
IPC_SET = 1
IPC_STAT = 2

SHM_RDONLY = 0o10000
SHM_REMAP = 0o40000
SHM_EXEC = 0o100000
SHM_LOCK = 11
SHM_DEST = 0o1000
"""In a mode: marked to be destroyed after the last detach."""
SHM_LOCKED = 0o2000

GETPID = 11
GETALL = 13
SETALL = 17

MSG_NOERROR = 0o10000
MSG_COPY = 0o40000

_PERM = struct.Struct("=iIIIIIHHIQQ")  # struct ipc64_perm: key uid gid cuid cgid mode seq, and padding
assert _PERM.size == 48
_SHMID_TAIL = struct.Struct("=QqqqiiQQQ")  # struct shmid64_ds behind shm_perm
assert _PERM.size + _SHMID_TAIL.size == 112
_SEMID_BYTES = 104
_MSQID_TAIL = struct.Struct("=qqqQQQiiQQ")  # struct msqid64_ds behind msg_perm
assert _PERM.size + _MSQID_TAIL.size == 120

_libc = ctypes.CDLL(None, use_errno=True)
_shmat = _libc.shmat
_shmat.restype = ctypes.c_void_p
_shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
_semctl = _libc.semctl
_semctl.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
_msgrcv = _libc.msgrcv
_msgrcv.restype = ctypes.c_ssize_t
_msgrcv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


class Segment(NamedTuple):
    """A line of /proc/sysvipc/shm. ``mode`` may hold SHM_DEST and SHM_LOCKED."""

    key: int
    id: int
    mode: int
    size: int
    nattch: int
    """Mappings of it, in all processes: one that was split counts for each part."""
    uid: int
    gid: int
    cuid: int
    cgid: int


class SemaphoreSet(NamedTuple):
    """A line of /proc/sysvipc/sem."""

    key: int
    id: int
    mode: int
    nsems: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    otime: int
    """Seconds since 1970 of the last semop; 0 if there was none."""


class MessageQueue(NamedTuple):
    """A line of /proc/sysvipc/msg."""

    key: int
    id: int
    mode: int
    qnum: int
    uid: int
    gid: int
    cuid: int
    cgid: int


def _rows(raw: bytes) -> list[list[bytes]]:
    return [line.split() for line in raw.splitlines()[1:]]


def parse_segments(raw: bytes) -> list[Segment]:
    """Parse a /proc/sysvipc/shm."""
    return [Segment(int(r[0]), int(r[1]), int(r[2], 8), int(r[3]), int(r[6]), *map(int, r[7:11])) for r in _rows(raw)]


def parse_semaphores(raw: bytes) -> list[SemaphoreSet]:
    """Parse a /proc/sysvipc/sem."""
    return [SemaphoreSet(int(r[0]), int(r[1]), int(r[2], 8), int(r[3]), *map(int, r[4:9])) for r in _rows(raw)]


def parse_queues(raw: bytes) -> list[MessageQueue]:
    """Parse a /proc/sysvipc/msg."""
    return [MessageQueue(int(r[0]), int(r[1]), int(r[2], 8), int(r[4]), *map(int, r[7:11])) for r in _rows(raw)]


def read_segments() -> list[Segment]:
    """List the shared memory segments of our own IPC namespace."""
    return parse_segments(read_file("/proc/sysvipc/shm"))


def read_semaphores() -> list[SemaphoreSet]:
    """List the semaphore sets of our own IPC namespace."""
    return parse_semaphores(read_file("/proc/sysvipc/sem"))


def read_queues() -> list[MessageQueue]:
    """List the message queues of our own IPC namespace."""
    return parse_queues(read_file("/proc/sysvipc/msg"))


def shmat(id: int, flags: int) -> int:  # noqa: A002
    """Attach a segment where there is room; return its address."""
    address: int = _shmat(id, None, flags)
    if address == _FAILED:
        _fail(f"shmat({id}, NULL, {flags:#o})")
    return address


def shmdt(address: int) -> None:
    """Detach what :func:`shmat` has attached."""
    if _libc.shmdt(ctypes.c_void_p(address)) < 0:
        _fail(f"shmdt({address:#x})")


def semaphore_values(id: int, count: int) -> list[int]:  # noqa: A002
    """Return the values of a set of ``count`` semaphores."""
    values = (ctypes.c_uint16 * count)()
    if _semctl(id, 0, GETALL, ctypes.addressof(values)) < 0:
        _fail(f"semctl({id}, 0, GETALL)")
    return list(values)


def semaphore_pid(id: int, number: int) -> int:  # noqa: A002
    """Return the process that last did an operation on a semaphore, 0 if it is not in our PID namespace."""
    pid: int = _semctl(id, number, GETPID, None)
    if pid < 0:
        _fail(f"semctl({id}, {number}, GETPID)")
    return pid


def copy_message(id: int, index: int, limit: int) -> tuple[int, bytes]:  # noqa: A002
    """Return type and text of a queued message and leave it there; ``limit`` bytes at most (E2BIG).

    The error is ENOMSG behind the last message, ENOSYS without CONFIG_CHECKPOINT_RESTORE.
    """
    buffer = ctypes.create_string_buffer(8 + limit)
    size = _msgrcv(id, buffer, limit, index, MSG_COPY | IPC_NOWAIT)
    if size < 0:
        _fail(f"msgrcv({id}, {index}, MSG_COPY)")
    return struct.unpack_from("=q", buffer)[0], buffer.raw[8 : 8 + size]


def _perm(uid: int, gid: int, mode: int) -> bytes:
    return _PERM.pack(0, uid, gid, 0, 0, mode & 0o777, 0, 0, 0, 0, 0)


def pack_shmid_ds(uid: int, gid: int, mode: int) -> bytes:
    """Return the struct shmid64_ds that gives IPC_SET owner and mode."""
    return _perm(uid, gid, mode) + bytes(_SHMID_TAIL.size)


def pack_semid_ds(uid: int, gid: int, mode: int) -> bytes:
    """Return the struct semid64_ds that gives IPC_SET owner and mode."""
    return _perm(uid, gid, mode) + bytes(_SEMID_BYTES - _PERM.size)


def pack_msqid_ds(uid: int, gid: int, mode: int, qbytes: int) -> bytes:
    """Return the struct msqid64_ds that gives IPC_SET owner, mode and the most bytes in the queue."""
    return _perm(uid, gid, mode) + _MSQID_TAIL.pack(0, 0, 0, 0, 0, qbytes, 0, 0, 0, 0)


def queue_limit(id: int) -> int:  # noqa: A002
    """Return the most bytes that may be in a queue (msg_qbytes)."""
    buffer = ctypes.create_string_buffer(120)
    if _libc.msgctl(id, IPC_STAT, buffer) < 0:
        _fail(f"msgctl({id}, IPC_STAT)")
    return int(_MSQID_TAIL.unpack_from(buffer, _PERM.size)[5])


def _fail(call: str) -> None:
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number))
    error.add_note(call)
    raise error
