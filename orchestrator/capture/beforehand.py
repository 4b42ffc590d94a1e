"""Find out which pages of a job are still those of an image, where nobody has noted what was written since.

The job is held for a moment and its memory armed. Then it runs on, while its pages are compared with the image's. A
page that was equal, and was not written since it was armed, is the image's still when the job is held again.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from orchestrator.capture.hold import HeldJob, HeldProcess
from orchestrator.capture.sharing import SharedStructures
from orchestrator.capture.threads import leave_rseq_section, settle_interrupted_call
from orchestrator.capture.tracking import JobTracking, Watch
from orchestrator.ids import HostPid, ObjectId, Pid
from orchestrator.image.places import ONE_IMAGE
from orchestrator.image.reader import ImageFile
from orchestrator.kinds.memory.aio import is_ring
from orchestrator.kinds.memory.capture import Pages, Range, without
from orchestrator.kinds.memory.record import PageRun
from orchestrator.linux import kcmp
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.proc_maps import read_maps, read_smaps_flags
from orchestrator.linux.process_vm import IOVEC, read_memory

_PAGE = 4096
_BLOCK = 1 << 20
_PARTS = 16
_TAPE_BYTES = 8192

_libc = ctypes.CDLL(None, use_errno=True)
_memcmp = _libc.memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def arm(job: HeldJob, watches: Iterable[Watch]) -> tuple[list[Watch], dict[ObjectId, Pid]]:
    """Arm the memory of a held job; return who is watched, each with a number of its own, and whose number is whose."""
    tracking = JobTracking(watches, {}, arm=True)
    whose: dict[ObjectId, Pid] = {}
    try:
        living = [process for process in job.processes.values() if not process.is_zombie]
        tracking.begin(living)
        spaces = SharedStructures(kcmp.KCMP_VM)
        for process in living:
            if not arch.is_64_bit(process.leader.registers) or not process.leader.syscall_at:
                continue
            for thread in process.threads:  # also where nothing is armed: to be held interrupts calls
                settle_interrupted_call(thread, process.statuses[thread.tid])
            number, is_new = spaces.identify(process.seen)
            # What is on its way into memory when that is armed would not be noted.
            asynchronous = any(is_ring(line) for line in read_maps(process.seen))
            if is_new and not asynchronous and tracking.may_track(process):
                _arm(process, number, tracking)
                whose[number] = process.pid
        tracking.done(ends=False)
    finally:
        kept = tracking.give()
    return kept, whose


def _arm(process: HeldProcess, number: ObjectId, tracking: JobTracking) -> None:
    assert process.memory is not None
    leave_rseq_section(process.memory, process.leader)
    workspace = process.make_workspace(_TAPE_BYTES)
    tracked = tracking.memory_of(process, number)
    if tracked is None:
        return
    ours = Range(workspace.base, workspace.base + workspace.size)
    lines = []
    for line, flags in read_smaps_flags(process.seen):
        flags = tracked.without_ours(line, flags)
        lines += [(part, flags) for part in without(ours, line)]
    with Pages(process.seen) as pages:
        tracked.arm(pages, lines)


def equal_pages(pid: HostPid, runs: Iterable[PageRun], image: ImageFile) -> list[PageRun]:
    """Return those runs, or parts of them, whose pages a running process has as they are in the image.

    ``runs`` are those of a delta to the image. What cannot be read is not equal.
    """
    comparison = _Comparison(pid, image)
    for start, length, at in runs:
        for done in range(0, length, _BLOCK):
            comparison.compare(start + done, min(_BLOCK, length - done), at + done)
    return comparison.equal


class _Comparison:
    def __init__(self, pid: HostPid, image: ImageFile) -> None:
        self._pid = pid
        self._image = image
        self._theirs, self._stored = (ctypes.create_string_buffer(_BLOCK) for _ in range(2))
        self._view = memoryview(self._stored).cast("B")
        self._at = [ctypes.addressof(buffer) for buffer in (self._theirs, self._stored)]
        self.equal: list[PageRun] = []

    def compare(self, start: int, length: int, at: int) -> None:
        """Compare so many bytes with those at a place, page by page where they differ."""
        image, offset = self._image.find(at - ONE_IMAGE)
        stored = os.preadv(image.fd, [self._view[:length]], offset)
        read = read_memory(self._pid, self._at[0], length, IOVEC.pack(start, length))
        readable = max(min(stored, read), 0) // _PAGE * _PAGE
        if readable:
            self._judge(start, at, 0, readable)
        # What follows a page that is not there may be, but then the mapping has changed.

    def _judge(self, start: int, at: int, low: int, high: int) -> None:
        if _memcmp(self._at[0] + low, self._at[1] + low, high - low) == 0:
            self._add(PageRun(start + low, high - low, at + low))
        elif high - low > _PAGE:
            step = max((high - low) // _PARTS // _PAGE * _PAGE, _PAGE)
            for part in range(low, high, step):
                self._judge(start, at, part, min(part + step, high))

    def _add(self, run: PageRun) -> None:
        last = self.equal[-1] if self.equal else None
        if last is not None and last.end == run.start and last.at + last.length == run.at:
            self.equal[-1] = last._replace(length=last.length + run.length)
        else:
            self.equal.append(run)
