"""A restore that does not get on ends, and says where it has waited."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.job import Job
from harness.program import Program, Run
from harness.unanswering import under_unanswering


@pytest.fixture
def run(job: Job) -> Run:
    run = Run(Program("file_positions"), job)
    run.start()
    job.checkpoint_and_kill()
    return run


def stall(job: Job) -> str:
    return job.orch.expect(47, "restore", str(job.image), "-d", "--timeout", "1").errors


def test_a_file_system_that_does_not_answer_is_given_up(run: Run) -> None:
    job = run.job
    job.orch.under = under_unanswering(job.files)
    told = stall(job)
    assert "has not got on for 1 s" in told
    assert "--timeout" in told
    assert job.processes() == []
    job.orch.under = ()
    job.restore()
    run.must_pass()


@contextlib.contextmanager
def leased(path: Path) -> Iterator[None]:
    """Hold a lease on a file: whoever opens it waits for us to give it back, for the better part of a minute."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)


def test_a_task_that_does_not_get_on_is_given_up(run: Run) -> None:
    job = run.job
    path = next(path for path in sorted(job.files.iterdir()) if path.is_file() and path.name not in ("ready", "result"))
    with leased(path):
        told = stall(job)
        assert "has not got on for 1 s: task " in told
        assert job.processes() == []
    job.restore()
    run.must_pass()


def test_a_restore_that_takes_long_and_gets_on_is_let_be(job: Job) -> None:
    run = Run(Program("many_processes"), job)
    run.start()
    job.checkpoint_and_kill()
    job.restore_options = ["--timeout", "0.2"]
    job.restore()
    run.must_pass()
