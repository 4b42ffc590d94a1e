"""Let an image go out in order: its page data comes from held processes, replicas and files, whoever has the next part.

A job that goes on does so before anything goes out, so a slow reader does not hold it up: replicas hold its memory, and
what no replica can hold is in the spool. A job that ends or stops is held until its image has gone out, as with a file.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from orchestrator.capture.hold import HeldJob, HeldProcess
from orchestrator.capture.memory import Left, Progress, write_replicas
from orchestrator.capture.pages import pieces, read_pages
from orchestrator.capture.tasks import MemoryToWrite
from orchestrator.errors import CaptureFailed
from orchestrator.image.output import Alarms
from orchestrator.image.stream import SOURCE_BYTES, ImageStream, Source, Writer
from orchestrator.kinds.memory.record import PageRun
from orchestrator.kinds.scope import FileCopy, Scope


def goes_out_at_once(writer: Writer, ending: str, short: bool) -> bool:
    """Whether an image goes out while the job stands still, with no spool.

    So it does if the job waits for it anyway; or if nothing of it may be on a disk in the clear, and memory is too
    ``short`` for a spool: then it goes out into a file, encrypted, and from there when the job runs again.
    """
    return isinstance(writer, ImageStream) and (ending != "run" or (writer.is_secret and short))


def send_held(writer: Writer, job: HeldJob, sources: Iterator[Source], *, checksums: bool, aside: bool) -> None:
    """Let all of an image go out; with ``aside`` only as far as nobody has to be waited for."""
    assert isinstance(writer, ImageStream)
    living = [process for process in job.processes.values() if process.pidfd >= 0]
    writer.send(sources, checksums=checksums, aside=aside, alarms=_alarms(living))


def write_left(writer: Writer, left: Sequence[Left], progress: Progress, *, checksums: bool) -> None:
    """Write what replicas hold; a stream goes out, with all that is in its spool."""
    if isinstance(writer, ImageStream):
        sources = replica_sources(left, progress)
        writer.send(sources, checksums=checksums, alarms=_alarms([replica.process for replica, _, _ in left]))
    else:
        write_replicas(left, writer.fd, writer.pages_offset, progress)


def held_sources(writes: Sequence[MemoryToWrite], scope: Scope, progress: Progress) -> Iterator[Source]:
    """Return all that there is of a job that is held.

    The last acts, which take from the job what nothing puts back, wait until it is the turn of what they bring: a
    reader that has ended before has not harmed the job.
    """
    parts = [_of_process(write.process, [*write.runs, *write.unreadable], progress) for write in writes]
    late: set[Callable[[memoryview], object]] = set()
    for copy in scope.copies:
        sources = [*_of_file(copy)]
        late.update(source.read for source in sources if copy.late)
        parts.append(iter(sources))
    acts = iter(scope.last_acts)
    for source in _in_order(parts):
        if source.read in late:
            for act in acts:
                act()
        yield source
    for act in acts:
        act()


def replica_sources(left: Sequence[Left], progress: Progress) -> Iterator[Source]:
    """Return what replicas hold. They leave the job's process groups first, and so miss signals sent to these."""
    parts = []
    for replica, runs, unreadable in left:
        replica.leave_job()
        parts.append(_of_process(replica.process, [*runs, *unreadable], progress))
    return _in_order(parts)


def _in_order(parts: Sequence[Iterator[Source]]) -> Iterator[Source]:
    return heapq.merge(*parts, key=lambda source: source.at)


def _of_process(process: HeldProcess, runs: Sequence[PageRun], progress: Progress) -> Iterator[Source]:
    for at, vector in pieces(sorted(runs, key=lambda run: run.at), SOURCE_BYTES):
        size = sum(length for _, length in vector)
        yield Source(at, size, partial(_read_pages, process, vector, progress))


def _read_pages(process: HeldProcess, vector: list[tuple[int, int]], progress: Progress, view: memoryview) -> None:
    try:
        read_pages(process, vector, view)
    except OSError as error:
        raise _gone(process) from error
    progress(len(view))


def _alarms(processes: Sequence[HeldProcess]) -> Alarms:
    """Give a wait for a reader up if one of these is killed: whoever did so waits until we let go of it."""
    return {process.pidfd: partial(_gone, process) for process in processes}


def _gone(process: HeldProcess) -> CaptureFailed:
    return CaptureFailed(
        f"the memory of {process.name} is gone: it was killed before all of its image was read",
        hint="an image that is written to a file does not wait for a reader",
    )


def _of_file(copy: FileCopy) -> Iterator[Source]:
    for extent in sorted(copy.extents, key=lambda extent: extent.at):
        for done in range(0, extent.length, SOURCE_BYTES):
            length = min(SOURCE_BYTES, extent.length - done)
            yield Source(extent.at + done, length, partial(_read_file, copy.fd, extent.start + done))


def _read_file(fd: int, start: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        got = os.preadv(fd, [view[done:]], start + done)
        if got == 0:
            raise CaptureFailed(f"a file shrank while it was saved, at byte {start + done}")
        done += got
