"""The process that reads ahead tells what we would read ourselves, and may end at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from orchestrator.capture import ahead
from orchestrator.ids import HostPid
from orchestrator.linux.proc_fd import Descriptors, ProcFds

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="nobody reads ahead on a single processor")

_MANY = 3000


@pytest.fixture
def holder() -> Iterator[HostPid]:
    """Give a process with many descriptors that stands still."""
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open("/dev/null", os.O_RDWR)
            for number in [0, 1, 2, *range(100, 100 + _MANY)]:
                os.dup2(null, number)
            os.closerange(3, 100)  # the log of the tests is among them, and others write to it
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(1)
    os.waitpid(pid, os.WUNTRACED)
    yield HostPid(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def everything(fds: Descriptors) -> list[tuple[int, object, str]]:
    return [(fd, info, fds.link(fd)) for fd, info in fds]


def test_the_reader_tells_what_we_would_read(holder: HostPid) -> None:
    with ProcFds(holder) as fds:
        expected = everything(fds)
    assert len(expected) >= _MANY
    with ahead.reading_ahead([holder], memory=False) as reader:
        reader.tell([holder])
        with reader.descriptors(holder) as told:
            assert not isinstance(told, ProcFds)
            assert everything(told) == expected
        with reader.descriptors(holder) as again:
            assert everything(again) == expected


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
    with ProcFds(holder) as fds:
        expected = everything(fds)
    with ahead.reading_ahead([holder], memory=False) as reader:
        reader.tell([holder])
        seen: list[tuple[int, object, str]] = []
        with reader.descriptors(holder) as told:
            for fd, info in told:
                seen.append((fd, info, told.link(fd)))
                if len(seen) == after + 1:
                    os.kill(children[0], signal.SIGKILL)
    assert seen == expected


def test_small_tables_need_no_reader() -> None:
    with ahead.reading_ahead([HostPid(os.getpid())], memory=False) as reader:
        assert not reader.has_reader
        with reader.descriptors(HostPid(os.getpid())) as fds:
            assert isinstance(fds, ProcFds)
