"""Follow the writes of a job from one checkpoint to the next: who has a userfaultfd, and which image it is relative to.

The descriptors are made in the processes, by tapes, and taken out of them at once. Between checkpoints somebody must
hold them: capture/tracker.py.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from orchestrator.capture.hold import HeldProcess
from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.memory.known import KnownPages
from orchestrator.kinds.memory.tracked import TrackedMemory
from orchestrator.linux import userfaultfd
from orchestrator.linux.pidfd import pidfd_getfd
from orchestrator.linux.proc_maps import read_maps
from orchestrator.linux.procfs import read_file
from orchestrator.tape.build import TAPE_SIGNAL, Tape, TapeError

_PINNED = re.compile(rb"^VmPin:\s+[1-9]", re.MULTILINE)
_O_CLOEXEC = os.O_CLOEXEC


class Watch(NamedTuple):
    """The memory of one process, whose writes are noted."""

    pid: HostPid
    starttime: int
    memory: ObjectId
    """Its number in the image that it was armed for."""
    uffd: int
    """Our own descriptor."""


class JobTracking:
    """The tracking of one checkpoint: uses what was noted since the parent, and arms the memory for the next."""

    def __init__(self, watches: Iterable[Watch], known: Mapping[ObjectId, KnownPages], *, arm: bool) -> None:
        """``known``: what there is of each address space, by its number, in the image that it was armed for.

        ``arm``: do so for the image that is being made. The watches are ours to close from here on.
        """
        self._before = {(watch.pid, watch.starttime): watch for watch in watches}
        self._known = known
        self._arm = arm
        self._watches: list[Watch] = []
        self._spoilt = False

    def begin(self, processes: Iterable[HeldProcess]) -> None:
        """Let go of what belongs to nobody who is held."""
        self._spoilt = self._arm
        living = {(process.host, process.stat.starttime): process for process in processes if not process.is_zombie}
        for key in self._before.keys() - living.keys():
            stale = self._before.pop(key)
            for other in living.keys() - self._before.keys():  # with which it may have shared its memory
                _unregister(stale.uffd, living[other].seen)
            os.close(stale.uffd)

    def may_track(self, process: HeldProcess) -> bool:
        """Whether the writes of a process can be noted: not with filters, or if devices may write to its memory."""
        return not any(thread.seccomp for thread in process.statuses.values()) and not _has_pinned(process.seen)

    def memory_of(self, process: HeldProcess, number: ObjectId) -> TrackedMemory | None:
        """Return what is known of the writes to an address space that is captured now; None if nothing is."""
        before = self._before.pop((process.host, process.stat.starttime), None)
        may_be = self.may_track(process)
        if before is not None and not may_be:
            _unregister(before.uffd, process.seen)
            os.close(before.uffd)
            return None
        uffd = before.uffd if before is not None else _new_uffd(process) if self._arm and may_be else -1
        if uffd < 0:
            return None
        watch = Watch(process.host, process.stat.starttime, number, uffd)
        self._watches.append(watch if self._arm or before is None else before)
        known = self._known.get(before.memory) if before is not None else None
        return TrackedMemory(uffd, known, arm=self._arm)

    def done(self, *, ends: bool) -> None:
        """Say that all contents that were armed for the image are held or written. ``ends``: so does the job."""
        self._spoilt = ends
        while self._arm and self._before:
            os.close(self._before.popitem()[1].uffd)

    def give(self) -> list[Watch]:
        """Give away what is noted from here on: nothing, if the memory was armed and :meth:`done` was not called."""
        if self._spoilt:
            self._watches += self._before.values()
            self._before.clear()
            while self._watches:
                os.close(self._watches.pop().uffd)
        return [*self._watches, *self._before.values()]


def _has_pinned(pid: HostPid) -> bool:
    """Whether a device or the kernel may write to memory of a process by itself."""
    return _PINNED.search(read_file(f"/proc/{pid}/status")) is not None


def _unregister(uffd: int, pid: HostPid) -> None:
    """Have nothing of a process registered with a descriptor, of which others may have copies yet."""
    for line in read_maps(pid):
        with contextlib.suppress(OSError):
            userfaultfd.unregister(uffd, line.start, line.end)


def _new_uffd(process: HeldProcess) -> int:
    """Have a process make a userfaultfd, take it out, and let the process close it; -1 if it cannot.

    It is one tape, which waits for us in its middle: should we be killed, the process closes it all the same.
    """
    leader, workspace = process.leader, process.workspace
    assert workspace is not None
    tape = Tape(f"{process.name}: make a userfaultfd")
    made = tape.userfaultfd(_O_CLOEXEC | userfaultfd.UFFD_USER_MODE_ONLY)
    tape.tgkill(leader.pid, leader.vtid, TAPE_SIGNAL)
    tape.close(made)
    leader.start(tape, workspace)
    try:
        number = leader.pause().result(made)
    except TapeError:
        return -1
    uffd = -1
    try:
        with contextlib.suppress(OSError):
            uffd = pidfd_getfd(process.pidfd, number)
    finally:
        leader.go_on()
        leader.finish()
    try:
        if uffd >= 0:
            userfaultfd.enable(uffd, userfaultfd.UFFD_FEATURE_WP_ASYNC | userfaultfd.UFFD_FEATURE_WP_UNPOPULATED)
    except OSError:
        os.close(uffd)
        return -1
    return uffd
