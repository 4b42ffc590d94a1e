"""What every test stands on: nothing a test starts outlives it, and nothing it makes is left."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from harness.descendants import become_subreaper
from harness.job import Job, new_job
from harness.leftovers import Before
from harness.modes import MODE, SEES_ITS_MODE
from harness.program import Program, Run
from orchestrator.linux.mount import MS_PRIVATE, MS_REC, mount
from orchestrator.linux.nsfs import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, unshare

SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def pytest_report_header() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = {word for line in lines if line.startswith("flags") for word in line.split()}
    features = [name for name in ("avx", "avx2", "avx512f", "pku") if name in cpu]
    machine = f"kernel {os.uname().release}, {os.cpu_count()} CPUs, {' '.join(features)}"
    return f"{machine}, uid {os.getuid()}, mode {MODE or 'plain'}"


@pytest.fixture(scope="session", autouse=True)
def _heed_signals() -> None:
    """Have programs heed what whoever started us in the background, or by nohup(1), has had ignored."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _apart() -> None:
    """Take in what loses its parent; have ports, System V objects and mounts apart from tests that run beside these."""
    become_subreaper()
    if "PYTEST_XDIST_WORKER" in os.environ and os.getuid() == 0:
        unshare(CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        with socket.socket() as door:
            fcntl.ioctl(door, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_failed] = report.failed
    return report


@pytest.fixture
def job(request: pytest.FixtureRequest) -> Iterator[Job]:
    """Give a job that is not started yet; after the test nothing of it may be left."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    with new_job() as made:
        before = Before.look(made.name)
        yield made
        failed = request.node.stash.get(_failed, True)
        made.remove_shared_memory_files()
        left = before.clear(seconds=0 if failed else 5)
    if left and not failed:
        pytest.fail("left behind: " + "; ".join(left))


@pytest.fixture
def run(job: Job, program: Program) -> Run:
    """Give a self-checking program within a job that is not started yet."""
    if program.name in SEES_ITS_MODE:
        pytest.skip(f"sees that images are read in the mode {MODE}")
    return Run(program, job)
