"""The process that reads ahead tells what we would read ourselves, and may end at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.capture import ahead, reader
from orchestrator.ids import HostPid, HostTid
from orchestrator.kinds.files.alike import find
from orchestrator.linux import procfs
from orchestrator.linux.kcmp import KCMP_VM, same_file
from orchestrator.linux.proc_fd import Descriptors, ProcFds
from orchestrator.linux.proc_misc import read_auxv, read_ns_ids

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
    with ahead.reading_ahead([holder]) as reading:
        reading.held([HostTid(holder)])
        reading.tell([holder])
        with reading.listening(), reading.descriptors(holder) as told:
            assert not isinstance(told, ProcFds)
            seen = []
            for one in everything(holder, told):
                seen.append(one)
                if len(seen) == 1:
                    assert reading._channel is not None
                    while not reading._channel.has_message():
                        pass
                    assert procfs.read_before("/nowhere") is None, "what comes meanwhile is kept for later"
            check(holder, seen)
        with reading.descriptors(holder) as again:
            check(holder, list(everything(holder, again)))


def test_a_table_that_changed_meanwhile_is_looked_at_again(holder: HostPid) -> None:
    with ahead.reading_ahead([holder]) as reading:
        reading.held([HostTid(holder)])
        reading.tell([holder])
        reading.distrust(holder)
        with reading.descriptors(holder) as fds:
            assert isinstance(fds, ProcFds)
        assert not reading._parts


@pytest.mark.parametrize("after", [0, 1, reader._AT_ONCE, _MANY // 2])
def test_a_reader_that_ends_early_is_done_without(holder: HostPid, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_PIPE_BYTES", 4096)  # it cannot be far ahead
    children: list[int] = []
    fork = os.fork

    def noted() -> int:
        pid = fork()
        children.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", noted)
    with ahead.reading_ahead([holder]) as reading:
        reading.held([HostTid(holder)])
        reading.tell([holder])
        seen: list[tuple[int, object, str, int]] = []
        with reading.descriptors(holder) as told:
            for one in everything(holder, told):
                seen.append(one)
                if len(seen) == after + 1:
                    os.kill(children[0], signal.SIGKILL)
    check(holder, seen)


def test_small_tables_need_no_reader() -> None:
    with ahead.reading_ahead([HostPid(os.getpid())]) as reading, reading.descriptors(HostPid(os.getpid())) as fds:
        assert isinstance(fds, ProcFds)


@pytest.fixture
def children() -> Iterator[list[HostPid]]:
    """Give as many processes as are worth a reader."""
    found: list[HostPid] = []
    try:
        for _ in range(ahead._MANY_PROCESSES):
            found.append(_sleeper())  # noqa: PERF401 - those that there are end, whatever comes of the next
        yield found
    finally:
        for pid in found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_small_files_are_told_once_and_only_while_the_job_is_held(children: list[HostPid]) -> None:
    """Whatever the reader has not come to yet is read by ourselves."""
    with ahead.reading_ahead(children) as reading, reading.listening():
        reading.held([HostTid(pid) for pid in children])
        last = children[-1]
        paths = [f"/proc/{last}/stat", f"/proc/{last}/auxv", f"/proc/{last}/ns", f"/proc/{last}/fd"]
        reading.tell(children)
        while paths[-1] not in reading._told:
            assert reading._receive(), "nothing is told any more"
        told = {path: procfs.read_before(path) for path in paths}
        assert [procfs.read_before(path) for path in paths] == [None] * len(paths)
    assert told[paths[0]] == Path(paths[0]).read_bytes()
    assert told[paths[1]] == read_auxv(last)
    assert told[paths[2]] == read_ns_ids(last)
    with ProcFds(last) as fds:
        assert told[paths[3]] == [(fd, fds.raw(fd)) for fd in fds.numbers()]
    assert procfs.read_before(paths[0]) is None


def test_what_is_told_too_late_is_not_used(children: list[HostPid]) -> None:
    """Who has looked himself may have changed it since."""
    with ahead.reading_ahead(children) as reading, reading.listening():
        path = f"/proc/{children[-1]}/stat"
        assert procfs.read_before(path) is None
        reading.held([HostTid(pid) for pid in children])
        assert reading.alike(KCMP_VM)
        assert procfs.read_before(path) is None
        assert procfs.read_before(f"/proc/{children[-1]}/auxv") is not None


def _sleeper() -> HostPid:
    pid = os.fork()
    if pid == 0:
        os.closerange(3, 1000)
        signal.pause()
        os._exit(1)
    return HostPid(pid)
