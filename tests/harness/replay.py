"""Capture the open files of one process and play their rebuild in another, without the rest of a checkpoint."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import mmap
import os
import re
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.ids import FarAddr, HostPid, HostTid, ObjectId, Pid, Tid
from orchestrator.kinds.files.depot import (
    check_files,
    claims,
    first_holders,
    leave_depot,
    lock_table,
    place_table,
    rebuild_depot,
    settle_table,
)
from orchestrator.kinds.files.kind import Depot, Descriptor, FileTable, OpenFile
from orchestrator.kinds.files.references import check_references
from orchestrator.kinds.files.registry import FileObject, FileRecord
from orchestrator.kinds.files.slots import Slots
from orchestrator.kinds.files.table import FileCollector
from orchestrator.kinds.memory.shared import open_shared, seal_shared
from orchestrator.kinds.scope import Scope
from orchestrator.linux import syscalls
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.kcmp import KCMP_FILE, kcmp
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open
from orchestrator.tape.build import Tape
from orchestrator.tape.memory import ProcMemory
from orchestrator.tape.tracee import Tracee, Workspace, hold, vdso_syscall_address, wait_held, workspace_size

_NR = syscalls.numbers("x86_64")
PAGES_AT = 8192


_NUMBERS = re.compile(r"\[\d+\]")
_CHANGING = re.compile(
    r"^(ino|mnt_id|eventfd-id|it_value):.*\n|(?<= )ino:\S+|^lock:\t\d+:|(?<=WRITE) \d+|(?<=READ) +\d+", re.MULTILINE
)


def _portrait(fdinfo: str) -> str:
    lines = _CHANGING.sub("", fdinfo).splitlines()
    return "\n".join(sorted(lines))


class Process:
    """A child with just the descriptors that ``setup`` opened, stopped."""

    def __init__(self, setup: Callable[[], object], *, close: bool = True) -> None:
        said = mmap.mmap(-1, 1 << 16)
        self.pid = HostPid(os.fork())
        if self.pid == 0:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, [])
                if close:
                    os.closerange(0, 8192)
                setup()
                os.kill(os.getpid(), signal.SIGSTOP)
                while True:
                    signal.pause()
            finally:
                text = traceback.format_exc().encode()[-60000:]
                said[: len(text)] = text
                os._exit(1)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.pid = HostPid(0)
            raise AssertionError(said[:].rstrip(b"\0").decode())
        said.close()
        self.pidfd = pidfd_open(self.pid)

    def take(self, fd: int) -> int:
        """Return our own descriptor of one of its open files."""
        return pidfd_getfd(self.pidfd, fd)

    def link(self, fd: int) -> str:
        return os.readlink(f"/proc/{self.pid}/fd/{fd}")

    def fdinfo(self, fd: int) -> str:
        return Path(f"/proc/{self.pid}/fdinfo/{fd}").read_text()

    def fds(self) -> list[int]:
        return sorted(map(int, os.listdir(f"/proc/{self.pid}/fd")))

    def portrait(self) -> dict[int, str]:
        """Describe every descriptor by what must be the same after a restore."""
        same = self._same()
        return {
            fd: f"{_NUMBERS.sub('', self.link(fd))} same as {same[fd]}\n" + _portrait(self.fdinfo(fd)) for fd in same
        }

    def _same(self) -> dict[int, int]:
        """Say for each descriptor which is the first of the same open file description."""

        def compare(a: int, b: int) -> int:
            return (0, -1, 1)[kcmp(self.pid, self.pid, KCMP_FILE, a, b)]

        first: dict[int, int] = {}
        previous = -1
        for fd in sorted(self.fds(), key=functools.cmp_to_key(compare)):
            first[fd] = first[previous] if previous >= 0 and compare(previous, fd) == 0 else fd
            previous = fd
        return dict(sorted(first.items()))

    def close(self) -> None:
        if self.pid:
            os.close(self.pidfd)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = HostPid(0)


@dataclass(slots=True)
class Image:
    """What a capture leaves: the records as they were decoded again, and a file with the contents."""

    files: list[FileRecord]
    objects: list[FileObject]
    tables: list[FileTable]
    path: Path
    scope: Scope
    mapped: list[ObjectId] = field(default_factory=list)


def new_scope(pids: Sequence[HostPid], **more: Any) -> Scope:
    return Scope({pid: Pid(pid) for pid in pids}, {pid: f"{pid} (test)" for pid in pids}, **more)


@contextlib.contextmanager
def captured(
    processes: Sequence[Process],
    path: Path,
    *,
    also: Callable[[FileCollector], Sequence[ObjectId]] = lambda _: (),
    **scope_arguments: Any,
) -> Iterator[Image]:
    """Capture the files of processes; blockers stay in the scope."""
    scope = new_scope([process.pid for process in processes], **scope_arguments)
    collector = FileCollector(scope)
    try:
        parent = None
        for process in processes:
            collector.table(process.pid, process.pidfd, parent)
            parent = process.pid
        mapped = list(also(collector))
        for finish in scope.finishers:
            finish()
        with path.open("wb") as file:
            file.truncate(PAGES_AT + scope.layout.length)
            for copy in scope.copies:
                for extent in copy.extents:
                    done = 0
                    while done < extent.length:
                        part = os.pread(copy.fd, extent.length - done, extent.start + done)
                        assert part, "the file became shorter"
                        os.pwrite(file.fileno(), part, PAGES_AT + extent.at + done)
                        done += len(part)
        encode = msgspec.msgpack.encode
        check_references(collector.files, collector.tables, scope.objects, scope.layout.length)
        yield Image(
            msgspec.msgpack.decode(encode(collector.files), type=list[FileRecord]),
            msgspec.msgpack.decode(encode(scope.objects), type=list[FileObject]),
            msgspec.msgpack.decode(encode(collector.tables), type=list[FileTable]),
            path,
            scope,
            mapped,
        )
    finally:
        scope.close()


def merged(tables: Sequence[FileTable], step: int = 100) -> FileTable:
    """Put the tables of several processes into one, the second's numbers 100 higher and so on."""
    descriptors = [
        Descriptor(one.fd + step * i, one.file, one.cloexec)
        for i, table in enumerate(tables)
        for one in table.descriptors
    ]
    return FileTable(ObjectId(0), descriptors, tables[0].locks)


class Target:
    """A process without descriptors, under our ptrace, that plays tapes."""

    def __init__(self, process: Process | None = None) -> None:
        self.process = process or Process(lambda: None)
        pid = self.process.pid
        hold(HostTid(pid))
        wait_held(HostTid(pid), time.monotonic() + 60)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        memory = ProcMemory(pid)
        self._memory = memory
        auxv = Path(f"/proc/{pid}/auxv").read_bytes()
        self.tracee = Tracee(HostTid(pid), Pid(pid), Tid(pid), memory, vdso_syscall_address(auxv))
        self.tracee.load()

    def play(self, tape: Tape) -> None:
        size = workspace_size(tape.size + 4096, self.tracee.xstate)
        base = self.tracee.call(_NR["mmap"], 0, size, 7, 0x22, -1, 0)
        assert base > 0
        self._memory.write(FarAddr(base), arch.TAPE_LOOP)
        self.tracee.play(tape, Workspace(FarAddr(base), size))
        self.tracee.call(_NR["munmap"], base, size)

    def rebuild(
        self,
        image: Image,
        *,
        inherited: Mapping[str, int] | None = None,
        memory: Sequence[ObjectId] = (),
        map_before_settling: Callable[[Depot, Tape], None] = lambda _depot, _tape: None,
        check: bool = True,
        step: int = 100,
    ) -> Depot:
        """Open the files of an image and put all tables into this process; ``inherited`` are our own descriptors."""
        if check:
            check_files(image.files)
        table = merged(image.tables, step)
        files: dict[ObjectId, OpenFile] = {file.id: file for file in image.files}
        slots = Slots(files, claims([table], image.files), lowest=1000)
        spare = slots.take()
        first = Tape("begin")
        first.openat(-100, str(image.path), os.O_RDONLY, 0)
        first.dup3(0, spare, 0)
        first.close(0)
        given = {}
        for key, fd in (inherited or {}).items():
            given[key] = slots.take()
            first.openat(-100, f"/proc/{os.getpid()}/fd/{fd}", fcntl.fcntl(fd, fcntl.F_GETFL), 0)
            first.dup3(0, given[key], 0)
            first.close(0)
        self.play(first)
        tape = Tape("depot")
        depot = Depot(tape, slots, spare, PAGES_AT, files, list(image.objects), inherited=given)
        rebuild_depot(image.files, depot)
        for of in memory:
            open_shared(of, depot)
        self.play(tape)
        left = [fd for fd in self.process.fds() if fd < 1000]
        assert not left, f"the depot has low descriptors: {[(fd, self.process.link(fd)) for fd in left]}"
        last = Tape("settle")
        place_table(table, last, slots)
        map_before_settling(depot, last)
        settle_table(table, last, slots, files, list(image.objects), first_holders([table]))
        seal_shared(depot, last)
        leave_depot(table, last, slots)
        lock_table(table, last)
        self.play(last)
        return depot

    def close(self) -> None:
        self._memory.close()
        self.process.close()


@contextlib.contextmanager
def replayed(setup: Callable[[], object], path: Path, **scope_arguments: Any) -> Iterator[tuple[Image, Process]]:
    """Capture what ``setup`` opens, end that process, and rebuild in another one."""
    original = Process(setup)
    try:
        before = original.portrait()
        with captured([original], path, **scope_arguments) as image:
            image.scope.blockers.raise_if_any()
            assert original.portrait() == before, "the capture changed something"
            original.close()
            target = Target()
            try:
                target.rebuild(image)
                assert target.process.portrait() == before
                yield image, target.process
            finally:
                target.close()
    finally:
        original.close()
