"""Terminals that lead outside, numbers that somebody has, terminals of the machine: what is refused, and when."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import cgroups
from harness.job import Job
from harness.program import Program, Run
from orchestrator.checkpointing import CheckpointOptions
from orchestrator.checkpointing import checkpoint as checkpoint_here
from orchestrator.kinds.terminals import queues
from orchestrator.linux import tty
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open
from orchestrator.target import find_target


def checkpoint(job: Job) -> tuple[str, ...]:
    return ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")


def terminals(pid: int) -> dict[int, Path]:
    """Return the descriptors of a process that are masters, and what their slaves are called."""
    found = {}
    pidfd = pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if os.stat(f"/proc/{pid}/fd/{name}").st_rdev == tty.PTMX:
                master = pidfd_getfd(pidfd, int(name))
                found[int(name)] = Path("/dev/pts", str(tty.number(master)))
                os.close(master)
    finally:
        os.close(pidfd)
    return found


@contextlib.contextmanager
def masters_up_to(number: int) -> Iterator[None]:
    """Have every free number up to this one."""
    held: list[int] = []
    try:
        while not held or tty.number(held[-1]) < number:
            held.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
        yield
    finally:
        for fd in held:
            os.close(fd)


def test_a_number_that_somebody_has_taken_meanwhile(job: Job) -> None:
    run = Run(Program("terminals"), job)
    run.start()
    slave = max(terminals(job.pids()[0]).values(), key=lambda path: int(path.name))
    job.checkpoint_and_kill()
    with masters_up_to(int(slave.name)):
        assert str(slave) in job.orch.expect(43, "restore", str(job.image), "-d").errors
    job.restore()
    run.must_pass()


@pytest.mark.parametrize("side", ["master", "slave"])
def test_a_terminal_that_somebody_outside_has_too(job: Job, side: str) -> None:
    run = Run(Program("terminals"), job)
    run.start()
    pid = job.pids()[0]
    links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    number, slave = next((number, slave) for number, slave in terminals(pid).items() if str(slave) in links)
    if side == "slave":
        theirs = os.open(slave, os.O_RDWR | os.O_NOCTTY)
    else:
        pidfd = pidfd_open(pid)
        theirs = pidfd_getfd(pidfd, number)
        os.close(pidfd)
    try:
        errors = job.orch.expect(21, *checkpoint(job)).errors
        assert f"({slave})" in errors if side == "slave" else f"fd {number} (/dev/ptmx)" in errors
        assert f"shared with {os.getpid()} (" in errors
        assert "1 blocker\n" in errors
    finally:
        os.close(theirs)
    run.must_pass()


def test_what_cannot_be_saved_of_a_terminal(job: Job) -> None:
    run = Run(Program("terminals_refused"), job)
    run.start()
    errors = job.orch.expect(20, *checkpoint(job)).errors
    assert "a line discipline other than N_TTY cannot be saved" in errors
    assert "data waits in it, while its slave was never opened and must not be" in errors
    run.must_pass()


def test_what_waits_is_back_before_the_job_goes_on_if_orch_is_killed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(Program("terminals"), job)
    run.start()
    (cgroup,) = cgroups.of_job(job.name)
    told, tell = os.pipe2(os.O_CLOEXEC)
    take_out = queues._take

    def take_out_and_kill(*arguments: Any) -> None:
        take_out(*arguments)
        if os.getppid() == orch:
            os.kill(orch, signal.SIGKILL)
            frozen = cgroups.frozen(cgroup)
            run.let_go()  # the program would see at once what is missing
            os.write(tell, b"1" if frozen else b"0")

    orch = os.fork()
    if orch == 0:
        orch = os.getpid()
        monkeypatch.setattr(queues, "_take", take_out_and_kill)
        checkpoint_here(find_target(job.name), str(job.image), CheckpointOptions(durable=False))
        os._exit(0)
    os.close(tell)
    assert os.WTERMSIG(os.waitpid(orch, 0)[1]) == signal.SIGKILL
    assert os.read(told, 1) == b"1"
    os.close(told)
    run.must_pass()
