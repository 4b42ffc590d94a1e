"""Rings of io_uring with nothing on its way. See io_uring_setup(2).

A new ring is brought to where the old one was: the counters that programs keep on their own go on for ever, so as many
requests that do nothing are carried out as the old one had. Then what was in the rings is put back. The kernel does not
show which flags a ring was made with. Those that only say when completions are posted are left out; whether it has an
array of indexes is told by what is in it.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from typing import Any

from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.call import machine, syscall
from orchestrator.linux.syscalls import numbers

IO_URING = "io_uring"
"""How --external says that nothing is on its way or registered in any ring."""
LINK = "anon_inode:[io_uring]"
_OFF_SQES = 0x1000_0000
_SETUP_CQSIZE, _SETUP_NO_SQARRAY = 1 << 3, 1 << 16
_SQE_BYTES, _CQE_BYTES, _INDEX_BYTES, _LINE = 64, 16, 4, 64
_CQES_AT = 64
_SQ_TAIL_AT, _CQ_HEAD_AT, _CQ_TAIL_AT, _DROPPED_AT, _CQ_FLAGS_AT, _END_OF_HEADER = 4, 8, 12, 32, 40, 48
_header = struct.Struct("=12I")
"""sq head and tail, cq head and tail, sq and cq mask, sq and cq entries, dropped, sq flags, cq flags, overflow."""
_params = struct.Struct("=7I12x80x")
assert (_header.size, _params.size) == (_END_OF_HEADER, 120)
_MOST_STEPS = 1_000_000
_MASK = 0xFFFF_FFFF
_NR_io_uring_enter = numbers(machine())["io_uring_enter"]
_NR_io_uring_register = 427
_REGISTER_EVENTFD, _UNREGISTER_EVENTFD, _REGISTER_PBUF_STATUS = 4, 5, 26
_BUFFER_GROUPS = 64
_buf_status = struct.Struct("=II32x")


class Refused(Exception):
    """Why a ring cannot be saved."""


class IoUring(Record, frozen=True, tag="io_uring"):
    """A ring."""

    entries: int
    completions: int
    has_array: bool
    submitted: int
    """How many requests it has taken, and completions it has posted, modulo 2**32."""
    rings: bytes
    requests: bytes


def _recognise(view: FdView) -> bool:
    return view.link == LINK and view.fd >= 0


def _capture(view: FdView, scope: Scope) -> IoUring | None:
    if IO_URING not in scope.externals:
        scope.unsupported(
            view.pid,
            view.what,
            "the kernel does not show what is on its way or registered in it",
            f"--external {IO_URING} takes it that there is nothing",
        )
        return None
    try:
        return _read(view)
    except Refused as reason:
        scope.unsupported(view.pid, view.what, f"ring: {reason}")
        return None


def _read(view: FdView) -> IoUring:
    _check_idle(view)
    _check_registered(view.local)
    with mmap.mmap(view.local, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ) as head:
        entries, completions = _header.unpack_from(head)[6:8]
    array_at = _array_at(completions)
    size = array_at + _INDEX_BYTES * entries
    try:
        with mmap.mmap(view.local, size, mmap.MAP_SHARED, mmap.PROT_READ) as rings:
            content = rings[:size]
        with mmap.mmap(view.local, entries * _SQE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ, offset=_OFF_SQES) as requests:
            pending = requests[: entries * _SQE_BYTES]
    except OSError:  # without an array it may be shorter
        raise Refused("its memory is not what orch knows") from None
    submitted, completed = (int(view.info.get(name) or "0") & _MASK for name in ("CachedSqHead", "CachedCqTail"))
    head_, _, _, tail, *_ = _header.unpack_from(content)
    if (head_, tail) != (submitted, completed) or submitted != completed:
        raise Refused("it has not posted one completion for each request")
    if submitted > _MOST_STEPS * entries:
        raise Refused("it has carried out too many requests to do so again")
    return IoUring(entries, completions, _has_array(content[array_at:], pending), submitted, content, pending)


def _check_idle(view: FdView) -> None:
    info = view.info
    if int(info.get("SqThread") or "-1") != -1:
        raise Refused("a thread of the kernel polls it (IORING_SETUP_SQPOLL)")
    if int(info.get("UserFiles") or "0") or int(info.get("UserBufs") or "0"):
        raise Refused("files or buffers are registered in it")
    keys = [key.strip() for key, _ in info.extra]
    if any(key.startswith("op=") for key in keys):
        raise Refused("polls are on their way in it")
    if any(key.startswith("user_data=") for key in keys):
        raise Refused("completions wait for which it has no room")


def _check_registered(fd: int) -> None:
    """Find out what is registered by trying to: the ring is idle, and what we register we take back."""
    eventfd = os.eventfd(0)
    try:
        argument = ctypes.c_int(eventfd)
        syscall(_NR_io_uring_register, fd, _REGISTER_EVENTFD, ctypes.addressof(argument), 1)
        syscall(_NR_io_uring_register, fd, _UNREGISTER_EVENTFD, 0, 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Refused("an eventfd is registered in it, and the kernel does not show which") from None
        if error.errno == errno.EEXIST:  # only one thread may (IORING_SETUP_SINGLE_ISSUER), and we are not that one
            return
        raise Refused("it is restricted") from None
    finally:
        os.close(eventfd)
    for group in range(_BUFFER_GROUPS):
        status = ctypes.create_string_buffer(_buf_status.pack(group, 0), _buf_status.size)
        try:
            syscall(_NR_io_uring_register, fd, _REGISTER_PBUF_STATUS, ctypes.addressof(status), 1)
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            if group == 0:  # a kernel that does not tell
                return
        raise Refused("buffers are provided to it")


def _array_at(completions: int) -> int:
    return _CQES_AT + completions * _CQE_BYTES + _LINE - 1 & -_LINE


def _has_array(array: bytes, requests: bytes) -> bool:
    """Whether a ring has an array of indexes (no IORING_SETUP_NO_SQARRAY)."""
    if any(array):
        return True
    if any(requests[_SQE_BYTES:]):
        return False  # with an array of zeros, nothing but the first could have been meant
    raise Refused("it was used too little to tell whether it has an array of indexes")


def _rebuild(file: OpenFile, depot: Depot) -> None:
    body: IoUring = file.body
    flags = _SETUP_CQSIZE | (0 if body.has_array else _SETUP_NO_SQARRAY)
    depot.tape.io_uring_setup(body.entries, _params.pack(0, body.completions, flags, 0, 0, 0, 0))
    set_status(depot.tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


def _finish(file: OpenFile, fd: int, _objects: list[Any], _first: HostPid) -> None:
    """Carry out as many requests as the old ring had, and put back what was in it."""
    body: IoUring = file.body
    with (
        mmap.mmap(fd, len(body.rings)) as rings,
        mmap.mmap(fd, len(body.requests), offset=_OFF_SQES) as requests,
    ):
        done = 0
        while done < body.submitted:  # a request of zeros does nothing, and an array of zeros means the first
            step = min(body.entries, body.submitted - done)
            struct.pack_into("=I", rings, _SQ_TAIL_AT, done + step)
            done += syscall(_NR_io_uring_enter, fd, step)
            rings[_CQ_HEAD_AT:_CQ_TAIL_AT] = rings[_CQ_TAIL_AT : _CQ_TAIL_AT + 4]
        requests[:] = body.requests
        for start, end in (
            (_SQ_TAIL_AT, _CQ_TAIL_AT),
            (_DROPPED_AT, _DROPPED_AT + 4),
            (_CQ_FLAGS_AT, _END_OF_HEADER),
            (_CQES_AT, len(body.rings) if body.has_array else _array_at(body.completions)),
        ):
            rings[start:end] = body.rings[start:end]


def ring_fd(pid: HostPid, inode: int) -> int | None:
    """Return a descriptor by which a process has the ring of an inode, which its memory is of."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        if os.readlink(path) == LINK and os.stat(path).st_ino == inode:
            return int(name)
    return None


KIND = FileKind("io_uring", IoUring, _recognise, _capture, _rebuild, finish=_finish, links="anon_inode:")
