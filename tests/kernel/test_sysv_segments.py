"""Shared memory segments of the machine's own IPC namespace."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.namespaces import (
    depot_of,
    libc,
    ok,
    process,
    store,
    target,
)
from harness.replay import Process, new_scope
from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.memory.sysv import (
    SegmentMapper,
    SysvSegment,
    attach,
    check_segment,
    ensure_segment,
    finish_segment,
    segments_of,
)
from orchestrator.kinds.scope import Scope
from orchestrator.linux import sysvipc
from orchestrator.linux.proc_maps import read_maps

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@contextlib.contextmanager
def mapped_segment(
    path: Path, setup: Callable[[], object], *, more: int = 0
) -> Iterator[tuple[Process, Scope, list[ObjectId]]]:
    """Capture every segment that a process has attached."""
    with process(setup) as one:
        scope = new_scope([one.pid])
        try:
            mapper = SegmentMapper(scope)
            lines = [line for line in read_maps(one.pid) if line.path.startswith(b"/SYSV")]
            ids = [mapper(one.pid, line) for line in lines for _ in range(1 + more)]
            for finish in scope.finishers:
                finish()
            store(scope, path)
            yield one, scope, ids
        finally:
            scope.close()


def _attach_one(made: mmap.mmap) -> Callable[[], None]:
    def setup() -> None:
        segment = ok(libc.shmget(0, 20000, 0o1600))
        made[:4] = segment.to_bytes(4, "little")
        address = libc.shmat(segment, 0x7000_0000, 0)
        assert address == 0x7000_0000
        ctypes.memmove(address + 8192, b"kept", 4)

    return setup


@pytest.mark.parametrize(("still_there", "destroyed"), [(False, False), (True, False), (False, True)])
def test_an_attached_segment_returns(tmp_path: Path, still_there: bool, destroyed: bool) -> None:
    made = mmap.mmap(-1, 8)
    setup = _attach_one(made)

    def setup_all() -> None:
        setup()
        if destroyed:
            ok(libc.shmctl(int.from_bytes(made[:4], "little"), sysvipc.IPC_RMID, None))

    shmid = -1
    try:
        with mapped_segment(tmp_path / "image", setup_all) as (one, scope, ids):
            shmid = int.from_bytes(made[:4], "little")
            scope.blockers.raise_if_any()
            assert ids == [ObjectId(0)]
            (line,) = [line for line in read_maps(one.pid) if line.path.startswith(b"/SYSV")]
            record = scope.objects[0]
            assert isinstance(record, SysvSegment)
            assert (record.shmid, record.content.size, record.destroyed) == (shmid, 20000, destroyed)
            with pytest.raises(Exception, match="attached"):
                check_segment(record)
            one.close()
            if still_there:
                address = sysvipc.shmat(shmid, 0)
                ctypes.memset(address, 0xEE, 20000)
                ok(libc.shmdt(ctypes.c_void_p(address)))
            elif not destroyed:
                ok(libc.shmctl(shmid, sysvipc.IPC_RMID, None))
            check_segment(record)
            with target() as other:
                depot = depot_of(scope, tmp_path / "image", other)
                ensure_segment(ObjectId(0), depot, segments_of(other.process.pid))
                attach(record, line.start, 1, depot.tape)
                finish_segment(record, depot.tape)
                other.play(depot.tape)
                (again,) = [line for line in read_maps(other.process.pid) if line.path.startswith(b"/SYSV")]
                assert (again.start, again.end, again.inode, again.prot) == (line.start, line.end, shmid, 1)
                with open(f"/proc/{other.process.pid}/map_files/{again.start:x}-{again.end:x}", "rb") as file:
                    assert file.read() == bytes(8192) + b"kept" + bytes(20000 - 8196)
                row = segments_of(other.process.pid)[shmid]
                assert (row.nattch, bool(row.mode & sysvipc.SHM_DEST)) == (1, destroyed)
        assert (shmid in segments_of(HostPid(os.getpid()))) != destroyed
    finally:
        libc.shmctl(shmid, sysvipc.IPC_RMID, None)


def test_a_segment_attached_outside_the_job_is_noted(tmp_path: Path) -> None:
    made = mmap.mmap(-1, 8)
    setup = _attach_one(made)
    try:

        def setup_and_fork() -> None:
            setup()
            parent = os.getpid()
            if os.fork() == 0:  # attached once more, and not in the job
                ok(libc.prctl(1, signal.SIGKILL, 0, 0, 0))  # PR_SET_PDEATHSIG
                while os.getppid() == parent:
                    signal.pause()
                os._exit(0)

        with mapped_segment(tmp_path / "image", setup_and_fork) as (_, scope, _ids):
            assert [b.reason for b in scope.blockers.outside] == [
                "attached 1 more time(s) by processes outside the job"
            ]
        with mapped_segment(tmp_path / "image", setup_and_fork, more=1) as (_, scope, ids):
            scope.blockers.raise_if_any()  # both seen
            assert ids == [ObjectId(0), ObjectId(0)]
    finally:
        for row in sysvipc.read_segments():
            if row.cuid == 0 and row.size == 20000:
                libc.shmctl(row.id, sysvipc.IPC_RMID, None)


def test_a_segment_attached_in_part_is_refused_by_name(tmp_path: Path) -> None:
    made = mmap.mmap(-1, 8)
    setup = _attach_one(made)

    def setup_and_split() -> None:
        setup()
        ok(libc.munmap(ctypes.c_void_p(0x7000_0000), 4096))
        ok(libc.shmctl(int.from_bytes(made[:4], "little"), sysvipc.IPC_RMID, None))

    with mapped_segment(tmp_path / "image", setup_and_split) as (_, scope, _ids):
        assert "in part" in scope.blockers.unsupported[0].reason
