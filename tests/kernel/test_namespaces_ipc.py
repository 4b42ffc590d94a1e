"""IPC namespaces: every object returns with its id and contents."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from harness.namespaces import (
    depot_of,
    described,
    libc,
    ok,
    process,
    rebuilt,
    store,
    surveyed,
    target,
)
from orchestrator.linux import nsfs, sysvipc
from orchestrator.linux.nsfs import CLONE_NEWIPC
from orchestrator.namespaces.inside import inside
from orchestrator.namespaces.registry import NAMESPACE_KINDS
from orchestrator.tape.build import TapeError

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def _sysvipc_lists() -> dict[str, list[list[str]]]:
    """Read the lists without process ids and times, which nobody can set."""
    drop = {"cpid", "lpid", "lspid", "lrpid", "atime", "dtime", "ctime", "stime", "rtime", "otime", "rss", "swap"}
    found = {}
    for name in ("shm", "sem", "msg"):
        head, *rows = [line.split() for line in Path("/proc/sysvipc", name).read_text().splitlines()]
        kept = [i for i, column in enumerate(head) if column not in drop]
        found[name] = [[row[i] for i in kept] for row in rows]
    return found


def _ipc_contents() -> dict[str, Any]:
    sets = {row.id: (sysvipc.semaphore_values(row.id, row.nsems), row.otime != 0) for row in sysvipc.read_semaphores()}
    queues = {
        row.id: (sysvipc.queue_limit(row.id), [sysvipc.copy_message(row.id, i, 8192) for i in range(row.qnum)])
        for row in sysvipc.read_queues()
    }
    segments = {}
    for row in sysvipc.read_segments():
        address = sysvipc.shmat(row.id, sysvipc.SHM_RDONLY)
        segments[row.id] = ctypes.string_at(address, row.size)
        ok(libc.shmdt(ctypes.c_void_p(address)))
    names = ("kernel/msgmnb", "kernel/sem", "kernel/shmmax", "kernel/shm_rmid_forced", "fs/mqueue/msg_max")
    sysctls = [Path("/proc/sys", name).read_text() for name in names]
    return {"lists": _sysvipc_lists(), "sets": sets, "queues": queues, "segments": segments, "sysctls": sysctls}


def _fill_ipc() -> None:
    nsfs.unshare(CLONE_NEWIPC)
    Path("/proc/sys/kernel/msgmnb").write_text("40000")
    Path("/proc/sys/kernel/sem").write_text("300 40000 50 64")
    Path("/proc/sys/fs/mqueue/msg_max").write_text("17")
    for what, arguments in (("sem", (0x77, 3, 0o1640)), ("msg", (0x78, 0o1622)), ("shm", (0x79, 10000, 0o1604))):
        os.setresgid(-1, 34, -1)
        os.setresuid(-1, 12, -1)
        ok(getattr(libc, f"{what}get")(*arguments))  # as another user
        os.setresuid(-1, 0, -1)
        os.setresgid(-1, 0, -1)
        Path(f"/proc/sys/kernel/{what}_next_id").write_text(str(5 + 3 * 32768))
    sem = ok(libc.semget(0, 2, 0o1600))
    values = struct.pack("=2H", 32767, 5)
    ok(libc.semctl(sem, 0, sysvipc.SETALL, values))
    ok(libc.semop(sem, struct.pack("=HhH", 1, 2, 0), 1))
    queue = ok(libc.msgget(0, 0o1600))
    for kind, text in ((3, b"first"), (1, b""), (9, b"x" * 5000)):
        ok(libc.msgsnd(queue, struct.pack("=q", kind) + text, len(text), 0))
    segment = ok(libc.shmget(0, 3 * 4096 + 7, 0o1600))
    address = libc.shmat(segment, None, 0)
    ctypes.memmove(address + 4096, b"unattached", 10)
    ok(libc.shmdt(ctypes.c_void_p(address)))
    attached = ok(libc.shmget(0x55, 8192, 0o1600))
    ctypes.memmove(libc.shmat(attached, None, 0), b"attached", 8)


def test_ipc_objects_return_with_their_ids(tmp_path: Path) -> None:
    with process(_fill_ipc) as one, target(lambda: nsfs.unshare(CLONE_NEWIPC)) as other:
        with surveyed(one) as (scope, found):
            scope.blockers.raise_if_any()
            record = found["ipc"].body
            store(scope, tmp_path / "image")
            other.play(rebuilt("ipc", record))
            depot = depot_of(scope, tmp_path / "image", other)
            fill = NAMESPACE_KINDS["ipc"].fill
            assert fill is not None
            fill(record, depot)
            fill(record, depot)  # once is enough
            other.play(depot.tape)
        wanted = inside(one.pid, ["ipc"], _ipc_contents, dict[str, Any])
        have = inside(other.process.pid, ["ipc"], _ipc_contents, dict[str, Any])
        assert len(wanted["segments"]) == 3
        for row in wanted["lists"]["shm"]:
            row[4] = "0"  # nattch: only the original is attached
        assert have == wanted
        assert other.process.fds() == [900]


def test_an_ipc_object_that_gets_another_id_stops_the_tape() -> None:
    def setup() -> None:
        nsfs.unshare(CLONE_NEWIPC)
        ok(libc.semget(0, 1, 0o1600))

    with process(setup) as one, target(setup) as other, pytest.raises(TapeError, match="futex"):
        other.play(rebuilt("ipc", described(one, "ipc")))


def test_posix_message_queues_are_refused_by_name() -> None:
    def setup() -> None:
        nsfs.unshare(CLONE_NEWIPC)
        librt = ctypes.CDLL("librt.so.1", use_errno=True)
        ok(librt.mq_open(b"/letters", os.O_CREAT | os.O_RDWR, 0o600, None))

    with process(setup) as one, surveyed(one) as (scope, _):
        assert [blocker.object for blocker in scope.blockers.unsupported] == ["POSIX message queue /letters"]


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize("private", [False, True])
def test_pending_undo_operations_are_refused(undo: bool, private: bool) -> None:
    made = mmap.mmap(-1, 8)

    def setup() -> None:
        if private:
            nsfs.unshare(CLONE_NEWIPC)
        sem = ok(libc.semget(0, 1, 0o1600))
        made[:4] = sem.to_bytes(4, "little")
        ok(libc.semop(sem, struct.pack("=HhH", 0, 1, 0x1000 if undo else 0), 1))

    try:
        with process(setup) as one, surveyed(one) as (scope, _):
            assert [b.object for b in scope.blockers.unsupported] == ["System V semaphores"] * undo
    finally:
        if not private:
            ok(libc.semctl(int.from_bytes(made[:4], "little"), 0, sysvipc.IPC_RMID))
