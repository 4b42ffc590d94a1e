"""The process that reads ahead tells what we would read ourselves, and may end at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from orchestrator.capture import ahead
from orchestrator.ids import HostPid
from orchestrator.kinds.files.alike import find
from orchestrator.linux.kcmp import same_file
from orchestrator.linux.proc_fd import Descriptors, ProcFds

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="nobody reads ahead on a single processor")

_MANY = 3000
_NUMBERS = [0, 1, 2, *range(100, 100 + _MANY)]
_APART = range(1000, 1200)
"""Those of an open file description of their own."""


@pytest.fixture
def holder() -> Iterator[HostPid]:
    """Give a process with many descriptors that stands still."""
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open("/dev/null", os.O_RDWR)
            for number in _NUMBERS:
                os.dup2(os.open("/dev/null", os.O_RDWR) if number in _APART else null, number)
            os.closerange(3, 100)  # the log of the tests is among them, and others write to it
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(1)
    os.waitpid(pid, os.WUNTRACED)
    yield HostPid(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def everything(pid: HostPid, fds: Descriptors) -> Iterator[tuple[int, object, str, int]]:
    """Yield each descriptor, and the first one that is of the same open file description, as a capture finds it."""
    told: list[tuple[int, str]] = []
    ours: list[_Numbered] = []
    for fd, info in fds:
        if fds.foretold is None:
            same = [one for one, _ in told if same_file(pid, one, pid, fd)]
            place = find(ours, pid, fd)
            if place < 0 and not same:
                ours.insert(~place, _Numbered(pid, fd))
            first = same[0] if same else ours[place].fd if place >= 0 else fd
            yield fd, info, fds.link(fd), first
            continue
        place = fds.foretold.place
        if place < 0:
            told.insert(~place, (fd, fds.link(fd)))
            assert fds.foretold.signals == (0, 0, 0)
            assert fds.foretold.status == os.stat("/dev/null")
        first, link = told[place if place >= 0 else ~place]
        yield fd, info, link, first


class _Numbered(NamedTuple):
    pid: HostPid
    fd: int


def check(pid: HostPid, seen: Sequence[tuple[int, object, str, int]]) -> None:
    with ProcFds(pid) as fds:
        expected = [(fd, info, fds.link(fd)) for fd, info in fds]
    assert [fd for fd, *_ in seen] == _NUMBERS
    assert [one[:3] for one in seen] == expected
    assert [first for *_, first in seen] == [fd if fd in _APART else 0 for fd in _NUMBERS]


def test_the_reader_tells_what_we_would_read(holder: HostPid) -> None:
    with ahead.reading_ahead([holder], {}) as reader:
        reader.tell([holder])
        with reader.descriptors(holder) as told:
            assert not isinstance(told, ProcFds)
            check(holder, list(everything(holder, told)))
        with reader.descriptors(holder) as again:
            check(holder, list(everything(holder, again)))


@pytest.mark.parametrize("after", [0, 1, ahead._AT_ONCE, _MANY // 2])
def test_a_reader_that_ends_early_is_done_without(holder: HostPid, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_PIPE_BYTES", 4096)  # it cannot be far ahead
    children: list[int] = []
    fork = os.fork

    def noted() -> int:
        pid = fork()
        children.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", noted)
    with ahead.reading_ahead([holder], {}) as reader:
        reader.tell([holder])
        seen: list[tuple[int, object, str, int]] = []
        with reader.descriptors(holder) as told:
            for one in everything(holder, told):
                seen.append(one)
                if len(seen) == after + 1:
                    os.kill(children[0], signal.SIGKILL)
    check(holder, seen)


def test_small_tables_need_no_reader() -> None:
    with ahead.reading_ahead([HostPid(os.getpid())], {}) as reader:
        assert not reader.has_reader
        with reader.descriptors(HostPid(os.getpid())) as fds:
            assert isinstance(fds, ProcFds)
