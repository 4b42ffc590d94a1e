"""A second process that reads ahead: what procfs tells of a held job, while we still think about what came before.

Files of procfs are half of the time that a job with many processes or descriptors stands still, and a Python process
uses but one processor. The reader is forked before the job is frozen. It is told which tasks are held when all are,
and reads the small files of each, which are taken if they are there when they are asked for. When no process has
anything open for our sake any more, it is told to go on with descriptors: likewise with small tables of them, while it
sends large ones in the order in which they will be asked for. Where it ends early we read ourselves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from orchestrator.capture.late import Foreseen
from orchestrator.ids import HostPid, HostTid
from orchestrator.linux import procfs
from orchestrator.linux.proc_fd import Descriptors, FdInfo, Foretold, ProcFds, count_fds, parse_fdinfo, readlink_fd

if TYPE_CHECKING:
    from orchestrator.capture.channel import Channel

SHARING = "kcmp"
"""What is told under no path: for each type of structure who shares it with whom."""
_MANY_PROCESSES = 16
MANY_DESCRIPTORS = 256
"""Of one process. From so many on it pays."""
_PIPE_BYTES = 1 << 20


class Ahead:
    """Our end of a reader. Without one, everything is read when it is asked for."""

    def __init__(self, channel: Channel | None = None) -> None:
        self.foreseen: Mapping[HostPid, Foreseen] = {}
        """What the processes had mapped before they were held."""
        self._channel = channel
        self._told: dict[str, Any] = {}
        self._seen: set[str] = set()
        """Paths that we have looked at ourselves."""
        self._parts: deque[list[Any]] = deque()
        """Of large tables, as they came."""
        self._expected: list[HostPid] = []
        self._distrusted: set[HostPid] = set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take what the reader has read while the job is held."""
        if self._channel is None:
            yield
            return
        with procfs.foretold(self._take):
            yield

    def held(self, tids: Sequence[HostTid]) -> None:
        """Name the tasks that stand still, in the order in which they will be asked about."""
        if self._channel is not None:
            self._channel.send(tids)

    def alike(self, kind: int) -> Mapping[HostPid, HostPid]:
        """Return, for the held processes, the first of those that share one kernel structure (KCMP_VM, ...) with it.

        It is waited for. {} if nobody found it out.
        """
        if self._channel is None:
            return {}
        while (found := self._told.get(SHARING)) is None:
            if not self._receive():
                return {}
        return found[kind]  # type: ignore[no-any-return]

    def tell(self, pids: Sequence[HostPid]) -> None:
        """Name the held processes in the order in which their descriptors will be asked for.

        None of them may open or close any from now on, but see :meth:`distrust`.
        """
        if self._channel is not None:
            large = [pid for pid in pids if count_fds(pid) >= MANY_DESCRIPTORS]
            self._channel.send(([pid for pid in pids if pid not in large], large))
            self._expected = large

    def distrust(self, pid: HostPid) -> None:
        """Look ourselves at what a process has open, as it had something open for a while."""
        self._distrusted.add(pid)

    def descriptors(self, pid: HostPid) -> AbstractContextManager[Descriptors]:
        """Return what a process has open."""
        trusted = pid not in self._distrusted
        if self._expected[:1] == [pid]:
            self._expected.pop(0)
            if trusted:
                return contextlib.nullcontext(_Announced(pid, self))
            while self.part():
                pass
        elif self._channel is not None and trusted:
            told = self._take(f"/proc/{pid}/fd")
            if told is not None:
                return contextlib.nullcontext(_Told(pid, told))
        return ProcFds(pid)

    def part(self) -> list[Any] | None:
        """Wait for the next part of a large table; None if there is nobody any more."""
        while not self._parts:
            if not self._receive():
                return None
        return self._parts.popleft()

    def _take(self, path: str) -> Any:
        """Return what the reader has found at a path, once; None if it did not come to it yet.

        Then we look ourselves, and he comes too late: what he has seen by then may be old when we look again.
        """
        assert self._channel is not None
        while (found := self._told.pop(path, None)) is None and self._channel.has_message() and self._receive():
            pass
        if found is None:
            self._seen.add(path)
        return found

    def _receive(self) -> bool:
        """Wait for a message; False if there is nobody any more."""
        assert self._channel is not None
        message = self._channel.receive()
        if isinstance(message, dict):
            self._told |= message
            for path in message.keys() & self._seen:
                del self._told[path]
        elif message is not None:
            self._parts.append(message)
        return message is not None


class _Told:
    """The few descriptors of a process that the reader has looked at."""

    foretold: Foretold | None = None

    def __init__(self, pid: HostPid, raw: list[tuple[int, bytes]]) -> None:
        self._pid = pid
        self._raw = raw

    def __iter__(self) -> Iterator[tuple[int, FdInfo]]:
        for fd, raw in self._raw:
            yield fd, parse_fdinfo(raw)

    def link(self, fd: int) -> str:
        """Say what a descriptor points to."""
        return readlink_fd(self._pid, fd)


class _Announced:
    """The descriptors of a process as the reader sends them."""

    def __init__(self, pid: HostPid, ahead: Ahead) -> None:
        self._pid = pid
        self._ahead = ahead
        self._link = ""
        self.foretold: Foretold | None = None

    def __iter__(self) -> Iterator[tuple[int, FdInfo]]:
        fd = -1
        while part := self._ahead.part():
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
def reading_ahead(inside: Sequence[HostPid]) -> Iterator[Ahead]:
    """Have a reader stand by, if there is that much to be read of a job, and a processor for it."""
    many = len(inside) >= _MANY_PROCESSES or max(map(count_fds, inside), default=0) >= MANY_DESCRIPTORS
    if len(os.sched_getaffinity(0)) < 2 or not many:
        yield Ahead()
        return
    from orchestrator.capture.channel import Channel
    from orchestrator.capture.reader import serve

    (requests, ask), (answers, answer) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(answer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    ours, theirs = Channel(answers, ask), Channel(requests, answer)
    child = os.fork()
    if child == 0:
        ours.close()
        serve(theirs, inside)
    theirs.close()
    try:
        yield Ahead(ours)
    finally:
        ours.close()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
