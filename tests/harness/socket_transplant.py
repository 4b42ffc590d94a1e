"""Carry sockets from one process to another by image records and a tape, with nothing else of a job around."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from orchestrator.ids import DepotFd, FarAddr, HostPid, HostTid, ObjectId, Pid, Tid
from orchestrator.kinds.files.depot import claims, first_holders, place_table, rebuild_depot, settle_table
from orchestrator.kinds.files.kind import Depot, FileTable
from orchestrator.kinds.files.registry import FileObject, FileRecord, kind_of
from orchestrator.kinds.files.slots import Slots
from orchestrator.kinds.files.table import FileCollector
from orchestrator.kinds.scope import Scope
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.call import machine
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open
from orchestrator.linux.proc_fd import list_fds
from orchestrator.linux.syscalls import numbers
from orchestrator.restore import seed
from orchestrator.tape.build import Tape
from orchestrator.tape.memory import ProcMemory
from orchestrator.tape.tracee import Tracee, Workspace, hold, wait_held, workspace_size

_PRIVATE_ANONYMOUS = 0x22
_RWX = 7


@dataclass(frozen=True, slots=True)
class Image:
    """What an image would hold of the files of some processes."""

    files: list[FileRecord]
    tables: list[FileTable]
    objects: list[FileObject]


@dataclass(slots=True)
class Holders:
    """Processes that do nothing but hold descriptors."""

    pids: list[HostPid] = field(default_factory=list)

    def start(self, descriptors: Mapping[int, int | socket.socket]) -> HostPid:
        """Start a process that has these descriptors: number there -> ours."""
        ours = {there: fd if isinstance(fd, int) else fd.fileno() for there, fd in descriptors.items()}
        pid = _bare(ours)
        self.pids.append(pid)
        return pid

    def end(self) -> None:
        """Kill all of them and wait."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0x40000000)
        self.pids.clear()


def capture(pids: list[HostPid], externals: Collection[str] = ()) -> tuple[Image, Scope]:
    """Record the descriptors of the processes as those of a job."""
    scope = Scope(
        {pid: Pid(pid) for pid in pids}, {pid: f"{pid} (holder)" for pid in pids}, externals=frozenset(externals)
    )
    collector = FileCollector(scope)
    try:
        for pid in pids:
            pidfd = pidfd_open(pid)
            scope.closers.append(pidfd)
            collector.table(pid, pidfd)
        for finisher in scope.finishers:
            finisher()
        image = Image(collector.files, collector.tables, list(scope.objects))  # type: ignore[arg-type]
        if not scope.blockers.unsupported and not scope.blockers.outside:
            image = msgspec.msgpack.decode(msgspec.msgpack.encode(image), type=Image)
        return image, scope
    finally:
        scope.close()


def blockers(pids: list[HostPid]) -> list[str]:
    """Return why the descriptors of the processes cannot be saved."""
    _, scope = capture(pids)
    return [str(blocker) for blocker in scope.blockers.unsupported + scope.blockers.outside]


def check(image: Image) -> None:
    """Let the kinds look whether the image can be restored here."""
    for file in image.files:
        ask = kind_of(file).check
        if ask is not None:
            ask(file)


@contextlib.contextmanager
def rebuilt(image: Image, raw: Collection[int] = ()) -> Iterator[list[dict[int, socket.socket]]]:
    """Rebuild the files in a fresh process; give, for each table, the restored sockets by their numbers.

    The numbers ``raw`` are no sockets; they are only kept open.
    """
    pid = _bare({})
    sockets: list[dict[int, socket.socket]] = []
    kept: list[int] = []
    try:
        files = {file.id: file for file in image.files}
        slots = Slots(files, claims(image.tables, image.files), lowest=1000)
        depot = Depot(Tape("depot"), slots, DepotFd(0), 0, files, list(image.objects))
        rebuild_depot(image.files, depot)
        tapes = [depot.tape]
        first = first_holders(image.tables)
        for table in image.tables:
            tape = Tape(f"table {table.id}")
            place_table(table, tape, slots)
            settle_table(table, tape, slots, files, list(image.objects), first)
            tapes.append(tape)
        pidfd = pidfd_open(pid)
        for tape, table_or_none in zip(tapes, [None, *image.tables], strict=True):
            _play(pid, tape)
            if table_or_none is not None:
                taken = {entry.fd: _take(pidfd, entry.fd) for entry in table_or_none.descriptors if entry.fd not in raw}
                sockets.append(taken)
                kept += [pidfd_getfd(pidfd, fd) for fd in raw]
        os.close(pidfd)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0x40000000)
        pid = HostPid(0)
        yield sockets
    finally:
        for taken in sockets:
            for sock in taken.values():
                sock.close()
        for fd in kept:
            os.close(fd)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0x40000000)


def _take(pidfd: int, fd: int) -> socket.socket:
    return socket.socket(fileno=pidfd_getfd(pidfd, fd))


def _bare(descriptors: Mapping[int, int]) -> HostPid:
    """Start a process that only pauses, with these descriptors and none else."""
    pid = seed.spawn(descriptors)
    tape = Tape("close what was inherited")
    for fd in list_fds(pid):
        if fd not in descriptors:
            tape.close(fd, may_fail=True)  # exec may just be closing it
    _play(pid, tape)
    return pid


def _play(pid: HostPid, tape: Tape) -> None:
    task = HostTid(pid)
    hold(task)
    wait_held(task, time.monotonic() + 60)
    memory = ProcMemory(pid)
    tracee = Tracee(task, Pid(pid), Tid(pid), memory, seed.SYSCALL)
    tracee.load()
    size = workspace_size(tape.size + 4096, tracee.xstate)
    calls = numbers(machine())
    at = tracee.call(calls["mmap"], 0, size, _RWX, _PRIVATE_ANONYMOUS, (1 << 64) - 1, 0)
    if at < 0:
        raise OSError(-at, os.strerror(-at))
    memory.write(FarAddr(at), arch.TAPE_LOOP)
    tracee.play(tape, Workspace(FarAddr(at), size))
    tracee.call(calls["munmap"], at, size)
    tracee.release()
    memory.close()


def only_file(image: Image) -> FileRecord:
    """Return the single open file of an image."""
    (file,) = image.files
    return file


def object_of(image: Image, file: FileRecord) -> object:
    """Return the shared object behind an open file."""
    number: ObjectId = file.body.object  # type: ignore[union-attr]
    return image.objects[number]
