"""Write the memory of a job: by the processes themselves, by orch, or by replicas once the job runs again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from orchestrator.capture.hold import HeldProcess
from orchestrator.capture.pages import SMALL_BYTES, PageWriter, copy_pages
from orchestrator.capture.replica import Cloning, Keep, Replica, may_share, split_runs
from orchestrator.capture.tasks import MemoryToWrite
from orchestrator.ids import HostPid, Pid
from orchestrator.kinds.memory.record import PageRun
from orchestrator.kinds.task.process import Process
from orchestrator.tape.build import TapeError
from orchestrator.tape.tracee import TaskGone

_RLIMIT_FSIZE = 1
_INFINITY = (1 << 64) - 1

Progress = Callable[[int], None]
"""Called with so many more bytes that are written."""


class Left(NamedTuple):
    """Pages that a replica holds."""

    replica: Replica
    runs: list[PageRun]
    unreadable: list[PageRun]

    @property
    def bytes(self) -> int:
        """How much it is."""
        return sum(run.length for run in self.runs) + sum(run.length for run in self.unreadable)


def may_write_itself(processes: Iterable[Process]) -> set[Pid]:
    """Return the processes that no limit keeps from writing a large file.

    None with seccomp filters: should orch die, a tape goes on under these, so theirs are as short as can be.
    """
    return {
        process.pid
        for process in processes
        if process.state and process.state.limits.values[_RLIMIT_FSIZE][0] == _INFINITY
        if not any(thread.seccomp for thread in process.threads)
    }


def write_held(
    writes: Sequence[MemoryToWrite],
    able: Collection[Pid],
    image_fd: int,
    pages_at: int,
    progress: Progress,
    keep: Keep | None,
    replicas: Mapping[HostPid, Replica],
    left: list[Left],
) -> None:
    """Write what must be written while the job is held; large processes write their own pages, all at once.

    With ``keep``, which gets the new ones, replicas do so instead, where that works, and are put into ``left``.
    """
    prepared: list[tuple[MemoryToWrite, bool, Cloning | Replica | None]] = []
    for write in writes:
        process = write.process
        able_itself = write.bytes >= SMALL_BYTES and process.pid in able
        source: Cloning | Replica | None = None
        if keep is not None and able_itself and process.owns_workspace and may_share(write.vmas):
            source = replicas.get(process.host) or Cloning.of(process, keep)
        prepared.append((write, able_itself, source))

    def parts() -> Iterator[_Part]:
        for (process, vmas, runs, unreadable), able_itself, source in prepared:
            replica = source.finish()[1] if isinstance(source, Cloning) else source
            if replica is not None:
                theirs, runs = split_runs(vmas, runs)
                theirs_unreadable, unreadable = split_runs(vmas, unreadable)
                left.append(Left(replica, theirs, theirs_unreadable))
            yield _Part(process, runs, unreadable, able_itself and replica is None)

    try:
        _write(parts(), image_fd, pages_at, progress)
    except BaseException:
        for _, _, source in prepared:
            if isinstance(source, Cloning):
                with contextlib.suppress(OSError, TaskGone, TapeError):
                    source.finish()
        raise


def write_replicas(left: Sequence[Left], image_fd: int, pages_at: int, progress: Progress) -> None:
    """Write what replicas hold. They leave the job's process groups first, and so miss signals sent to these."""

    def parts() -> Iterator[_Part]:
        for replica, runs, unreadable in left:
            replica.leave_job()
            yield _Part(replica.process, runs, unreadable, by_itself=True)

    _write(parts(), image_fd, pages_at, progress)


class _Part(NamedTuple):
    """What is written of one process."""

    process: HeldProcess
    runs: Sequence[PageRun]
    unreadable: Sequence[PageRun]
    by_itself: bool
    """Whether the process writes what it can read."""


def _write(parts: Iterable[_Part], image_fd: int, pages_at: int, progress: Progress) -> None:
    writers: list[PageWriter] = []
    copies: list[tuple[HeldProcess, Sequence[PageRun]]] = []
    for process, runs, unreadable, by_itself in parts:
        if by_itself and (writer := _started(process, runs, image_fd, pages_at)):
            writers.append(writer)
            runs = []
        copies += [(process, part) for part in (runs, unreadable) if part]
    for process, part in copies:
        copy_pages(process, part, image_fd, pages_at)
        progress(sum(run.length for run in part))
    for writer in writers:
        writer.finish()
        progress(writer.bytes)


def _started(process: HeldProcess, runs: Sequence[PageRun], image_fd: int, pages_at: int) -> PageWriter | None:
    writer = PageWriter(process, runs, image_fd, pages_at)
    return writer if writer.prepare() and writer.start() else None
