"""A second process that reads ahead: what procfs tells of a held job, while we still think about what came before.

Files of procfs are half of the time that a job with many descriptors stands still, and a Python process uses but one
processor. The reader is forked before the job is frozen, is told whom to read about when all are held, and sends what
it finds in the order in which it is asked for. Where it ends early we read ourselves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.capture.late import Foreseen
from orchestrator.ids import HostPid
from orchestrator.kinds.files.alike import Looks, find, looks
from orchestrator.kinds.files.owner import ask_signals, has_owner
from orchestrator.linux.pidfd import open_task, pidfd_getfd
from orchestrator.linux.proc_fd import Descriptors, FdInfo, Foretold, ProcFds, count_fds

if TYPE_CHECKING:
    from orchestrator.capture.channel import Channel

_WORTHWHILE = 256
"""Descriptors in one table from which on it pays."""
_AT_ONCE = 128
_PIPE_BYTES = 1 << 20


class Ahead:
    """Our end of a reader. Without one, everything is read when it is asked for."""

    def __init__(self, foreseen: Mapping[HostPid, Foreseen] | None = None, channel: Channel | None = None) -> None:
        self.foreseen = foreseen or {}
        """What the processes had mapped before they were held."""
        self._channel = channel
        self._expected: list[HostPid] = []

    @property
    def has_reader(self) -> bool:
        """Whether there is anybody to be told."""
        return self._channel is not None

    def tell(self, pids: Sequence[HostPid]) -> None:
        """Name the held processes in the order in which their descriptors will be asked for."""
        assert self._channel is not None
        self._expected = [pid for pid in pids if count_fds(pid) >= _WORTHWHILE]
        self._channel.send([int(pid) for pid in self._expected])

    def descriptors(self, pid: HostPid) -> AbstractContextManager[Descriptors]:
        """Return what a process has open."""
        if self._channel is None or self._expected[:1] != [pid]:
            return ProcFds(pid)
        self._expected.pop(0)
        return contextlib.nullcontext(_Announced(pid, self._channel))


class _Announced:
    """The descriptors of a process as the reader sends them."""

    def __init__(self, pid: HostPid, channel: Channel) -> None:
        self._pid = pid
        self._channel = channel
        self._link = ""
        self.foretold: Foretold | None = None

    def __iter__(self) -> Iterator[tuple[int, FdInfo]]:
        fd = -1
        while part := self._channel.receive():
            for fd, info, self._link, self.foretold in part:
                yield fd, info
        self.foretold = None
        if part is None:
            with ProcFds(self._pid) as rest:
                for number, info in rest:
                    if number > fd:
                        self._link = rest.link(number)
                        yield number, info

    def link(self, _fd: int) -> str:
        """Say what the descriptor that came last points to."""
        return self._link


@contextlib.contextmanager
def reading_ahead(inside: Sequence[HostPid], foreseen: Mapping[HostPid, Foreseen]) -> Iterator[Ahead]:
    """Have a reader stand by, if a process of a job has that many descriptors, and there is a processor for it."""
    if len(os.sched_getaffinity(0)) < 2 or max(map(count_fds, inside), default=0) < _WORTHWHILE:
        yield Ahead(foreseen)
        return
    from orchestrator.capture.channel import Channel

    (requests, ask), (answers, answer) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(answer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    ours, theirs = Channel(answers, ask), Channel(requests, answer)
    child = os.fork()
    if child == 0:
        _read_for(theirs, ours)
    theirs.close()
    try:
        yield Ahead(foreseen, ours)
    finally:
        ours.close()
        os.waitpid(child, 0)


def _read_for(channel: Channel, other: Channel) -> None:
    try:
        other.close()
        os.setsid()  # a signal for our process group is the other's to answer
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        reader = _Reader()
        for pid in channel.receive() or ():
            for part in reader.read(pid):
                channel.send(part)
            channel.send([])
    finally:
        os._exit(0)


class _Seen(NamedTuple):
    pid: HostPid
    fd: int


class _Reader:
    """What the second process knows."""

    def __init__(self) -> None:
        self._known: dict[Looks, list[_Seen]] = {}

    def read(self, pid: HostPid) -> Iterator[list[tuple[int, FdInfo, str, Foretold]]]:
        """Look at all descriptors of a process."""
        pidfd = open_task(pid)
        try:
            with ProcFds(pid) as fds:
                numbers = fds.numbers()
                for at in range(0, len(numbers), _AT_ONCE):
                    yield [self._look(pid, pidfd, fd, fds) for fd in numbers[at : at + _AT_ONCE]]
        finally:
            os.close(pidfd)

    def _look(self, pid: HostPid, pidfd: int, fd: int, fds: ProcFds) -> tuple[int, FdInfo, str, Foretold]:
        info = fds.info(fd)
        alike = self._known.setdefault(looks(info), [])
        place = find(alike, pid, fd)
        if place >= 0:
            return fd, info, "", Foretold(place)
        alike.insert(~place, _Seen(pid, fd))
        link = fds.link(fd)
        if not has_owner(link, info.flags):
            return fd, info, link, Foretold(place)
        local = pidfd_getfd(pidfd, fd)
        try:
            # Whoever captures a socket needs a descriptor of his own anyway.
            status = None if link.startswith("socket:") else os.fstat(local)
            return fd, info, link, Foretold(place, status, ask_signals(local))
        finally:
            os.close(local)
