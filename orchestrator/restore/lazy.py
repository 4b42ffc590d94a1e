"""Restore a job before its memory is there: what is left out, and who brings it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

import msgspec

from orchestrator.errors import KernelLacks, NotPermitted, RebuildFailed
from orchestrator.ids import HostPid, Pid
from orchestrator.image.reader import ImageFile
from orchestrator.kinds.memory.lazily import (
    LEAST_OF_JOB,
    LEAST_OF_MAPPING,
    Area,
    Later,
    needed_pages,
    shared_places,
)
from orchestrator.kinds.memory.record import AddressSpace
from orchestrator.kinds.task.numa import DEFAULT
from orchestrator.kinds.task.process import Thread
from orchestrator.linux import cgroupfs, userfaultfd
from orchestrator.linux.clone import fork
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open
from orchestrator.paging.desk import SOCKET, Desk
from orchestrator.paging.helm import Helm
from orchestrator.paging.journal import Journal
from orchestrator.paging.keeper import EndJob, stand_by
from orchestrator.paging.missing import MissingPages, Run
from orchestrator.paging.pager import Duties
from orchestrator.paging.source import PageSource
from orchestrator.restore.play import Actor, Stage
from orchestrator.snapshot import Snapshot
from orchestrator.tape.build import Tape

_HEAD_BYTES = 24  # of struct robust_list_head: the list, an offset, and what is being taken
_OOM_SCORE = "-900"
_WALL = 0x40000000
_HINT = "restore it without --lazy"


class Laziness(msgspec.Struct, frozen=True):
    """How a restore leaves memory out."""

    directory: str
    """The job's, for the socket that is asked how far it is."""
    end_job: EndJob
    """Kills the job, if its memory cannot be brought."""
    cgroup: str | None = None
    """A cgroup v2 to be made for those who bring it: what ends that of orch must not take them away."""
    on_demand: bool = False
    """Whether nothing is brought that nobody asks for. For tests."""
    everything: bool = False
    """Whether little is left out, too. For tests."""


def plan_later(snapshot: Snapshot, image: ImageFile, laziness: Laziness) -> dict[Pid, Later]:
    """Say for which processes memory may come later; none if it is too little."""
    least = 1 if laziness.everything else LEAST_OF_MAPPING
    users = Counter(process.state.memory for process in snapshot.processes if process.state)
    shared = shared_places(snapshot.memories)
    later = {}
    room = 0
    for process in snapshot.processes:
        if process.state is None or users[process.state.memory] > 1:
            continue
        memory = snapshot.memories[process.state.memory]
        size = _most(memory, least)
        if not size or memory.lock_future or any(_has_policy(thread) for thread in process.threads):
            continue
        if any(_holds_robust_futexes(thread, memory, image) for thread in process.threads):
            continue
        room += size
        later[process.pid] = Later(shared, needed_pages(process.threads), least)
    return later if room >= (1 if laziness.everything else LEAST_OF_JOB) else {}


def _most(memory: AddressSpace, least: int) -> int:
    sizes = (sum(run.length for run in vma.runs) for vma in memory.vmas if vma.backing == "anonymous")
    return sum(size for size in sizes if size >= least)


def _has_policy(thread: Thread) -> bool:
    return thread.attributes.memory_policy != DEFAULT


def _holds_robust_futexes(thread: Thread, memory: AddressSpace, image: ImageFile) -> bool:
    """Whether the kernel has a list to walk when the thread ends. It does not wait for a page then."""
    at = thread.addresses.robust_list
    if not at:
        return False
    for vma in memory.vmas:
        if vma.start <= at < vma.end:
            for run in vma.runs:
                if run.start <= at and at + _HEAD_BYTES <= run.end:
                    holder, offset = image.find(run.at)
                    head = os.pread(holder.fd, _HEAD_BYTES, offset + at - run.start)
                    return int.from_bytes(head[:8], "little") != at or any(head[16:])
    return True


def watch(stage: Stage, actors: Mapping[Pid, Actor], areas: Mapping[Pid, Sequence[Area]]) -> dict[int, MissingPages]:
    """Have processes ask for the faults on what they miss; return our descriptors of these, which they have not."""
    opening = {}
    for pid in areas:
        opening[pid] = Tape(f"{pid}: watch memory")
        opening[pid].userfaultfd(os.O_CLOEXEC | os.O_NONBLOCK, may_fail=True)
        stage.start(actors[pid], opening[pid])
    stage.run()
    world: dict[int, MissingPages] = {}
    try:
        for pid, missing in areas.items():
            played = actors[pid].played
            assert played is not None
            number = played.result(0)
            if number < 0:
                raise _refusal(-number)
            fd = _fetch(HostPid(actors[pid].tracee.tid), number)
            world[fd] = MissingPages(Run(run.start, run.end, run.at) for area in missing for run in area.runs)
            try:
                userfaultfd.enable(fd, userfaultfd.ALL_EVENTS)
                for area in missing:
                    userfaultfd.register_missing(fd, area.start, area.end - area.start)
            except OSError as error:
                raise _refusal(error.errno or 0) from error
            closing = Tape(f"{pid}: memory is watched")
            closing.close(number)
            stage.start(actors[pid], closing)
        stage.run()
    except BaseException:
        for fd in world:
            os.close(fd)
        raise
    return world


def _fetch(pid: HostPid, number: int) -> int:
    pidfd = pidfd_open(pid)
    try:
        fd = pidfd_getfd(pidfd, number)
    finally:
        os.close(pidfd)
    if fd > 2:
        return fd
    above = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)  # orch was started without a standard stream
    os.close(fd)
    return above


def _refusal(number: int) -> KernelLacks | NotPermitted:
    if number in (errno.EPERM, errno.EACCES):
        return NotPermitted("pages may not be brought on demand: userfaultfd(2) needs CAP_SYS_PTRACE", hint=_HINT)
    return KernelLacks(
        f"this kernel does not let pages be brought on demand: userfaultfd(2): {os.strerror(number)}", hint=_HINT
    )


class PagerProcess:
    """The pager of a job, as orch sees it until the job runs."""

    def __init__(self, world: dict[int, MissingPages], image: ImageFile, laziness: Laziness) -> None:
        """Fork it. From here on the descriptors of ``world`` are its own."""
        self._helm = Helm(sum(pages.length for pages in world.values()))
        self._on_demand = laziness.on_demand
        go_read, self._go = os.pipe2(os.O_CLOEXEC)
        self._ready, ready_write = os.pipe2(os.O_CLOEXEC)
        self._world = world
        desk = Desk(f"{laziness.directory}/{SOCKET}")
        self._pid = _fork_into(laziness.cgroup)
        if self._pid == 0:
            _become(world, image, desk, self._helm, go_read, ready_write, laziness.end_job)
        desk.leave()
        os.close(go_read)
        os.close(ready_write)

    def await_ready(self) -> None:
        """Wait until it may be killed without harm; then let go of its descriptors."""
        if not self._world:  # it was
            return
        told = os.read(self._ready, 1)
        if not told:
            raise RebuildFailed("the process that brings the job's memory has ended")
        for fd in self._world:
            os.close(fd)
        self._world = {}

    def begin(self) -> None:
        """Say that the job runs."""
        self._helm.is_filling = not self._on_demand
        self._helm.has_begun = True
        self._close()

    def abandon(self) -> None:
        """End it, as the job has ended before it ran."""
        self._close()  # without a word: then it ends
        for fd in self._world:
            os.close(fd)
        self._world = {}
        for pid in (self._pid, self._helm.keeper):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, _WALL)

    def _close(self) -> None:
        os.close(self._go)
        os.close(self._ready)


def _fork_into(path: str | None) -> int:
    """Fork into a new cgroup, or where that cannot be made, into our own."""
    if path is not None:
        try:
            with contextlib.suppress(FileExistsError):  # left by an orch that was killed
                cgroupfs.create(path)
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return fork(cgroup=directory)
            finally:
                os.close(directory)
        except OSError:
            with contextlib.suppress(OSError):
                os.rmdir(path)
    return os.fork()


def _become(
    world: dict[int, MissingPages],
    image: ImageFile,
    desk: Desk,
    helm: Helm,
    go: int,
    ready: int,
    end_job: EndJob,
) -> NoReturn:  # pragma: no cover  (runs in the child)
    try:
        os.setsid()  # what is typed at a terminal, or ends a session, is not for us
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.chdir("/")
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(_OOM_SCORE)
        source = PageSource(image)
        keep = {go, ready, desk.fileno(), *world}
        null = os.open(os.devnull, os.O_RDWR)
        for number in {0, 1, 2} - keep - {null}:
            os.dup2(null, number)
        _close_all_but({0, 1, 2} | keep)

        def say_ready() -> None:
            os.write(ready, b"r")
            os.close(ready)

        stand_by(Duties(world, source, desk, helm, Journal(), go), end_job, say_ready)
    finally:
        os._exit(1)


def _close_all_but(keep: Iterable[int]) -> None:
    at = 0
    for number in sorted(keep):
        if number > at:
            os.closerange(at, number)
        at = number + 1
    os.closerange(at, 1 << 30)
