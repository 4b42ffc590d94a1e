"""Whoever seemed to share something with the job, and does no more, or belongs to it, is no leak."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from harness.pids import gone_pid
from orchestrator.ids import HostPid, Pid
from orchestrator.kinds.files.leak import Holder, outside_holders, report_leaks
from orchestrator.kinds.scope import Scope, Shared

Identity = tuple[int, int]
JOB = HostPid(os.getpid())


@pytest.fixture
def pipe() -> Iterator[tuple[Identity, int]]:
    """A pipe of the job: its identity, and its end for reading."""
    ends = os.pipe()
    status = os.fstat(ends[0])
    yield (status.st_dev, status.st_ino), ends[0]
    for end in ends:
        os.close(end)


@pytest.fixture
def reader(pipe: tuple[Identity, int]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], stdin=pipe[1]) as process:
        yield process
        process.kill()


def leaks(identity: Identity, holders: dict[Identity, list[Holder]], *members: int) -> list[str]:
    everybody = [JOB, *map(HostPid, members)]
    scope = Scope(pids={pid: Pid(pid) for pid in everybody}, names={pid: str(pid) for pid in everybody})
    scope.shared[identity] = Shared(JOB, "fd 0", "pipe[1]")
    report_leaks(scope, holders)
    return [blocker.reason for blocker in scope.blockers.outside]


def test_somebody_outside_has_it_open(pipe: tuple[Identity, int], reader: subprocess.Popen[bytes]) -> None:
    (reason,) = leaks(pipe[0], outside_holders([JOB]))
    # Its name changes late in execve(2), after Popen has heard that all is well.
    assert re.fullmatch(rf"shared with {reader.pid} \(\S+\) as fd 0, outside of the job", reason)


def test_a_process_that_the_job_has_started_meanwhile(
    pipe: tuple[Identity, int], reader: subprocess.Popen[bytes]
) -> None:
    assert leaks(pipe[0], outside_holders([JOB]), reader.pid) == []


def test_a_process_that_has_ended_meanwhile(pipe: tuple[Identity, int], reader: subprocess.Popen[bytes]) -> None:
    holders = outside_holders([JOB])
    assert holders[pipe[0]]
    reader.kill()
    reader.wait()
    assert leaks(pipe[0], holders) == []
    assert leaks(pipe[0], {pipe[0]: [Holder(gone_pid(), "x", -1)]}) == []


def test_a_process_that_has_closed_it_meanwhile(pipe: tuple[Identity, int], reader: subprocess.Popen[bytes]) -> None:
    assert leaks(pipe[0], {pipe[0]: [Holder(reader.pid, "sleep", 1), Holder(reader.pid, "sleep", 99)]}) == []
