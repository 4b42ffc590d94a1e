"""The jobs that are measured, small: compiled where there is a compiler, and in Python."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.cases import Case
from benchmarks.processes import BenchmarkError, children, memory_of
from benchmarks.workload import SOURCES, WROTE, Job, build, prove, start, write_again

MIB = 1 << 20
HUGE = re.compile(r"^(\w+)-(\w+) (?:(?!^\w+-).)*?^VmFlags:[^\n]* hg\b", re.MULTILINE | re.DOTALL)
"""The range of a mapping with MADV_HUGEPAGE, in /proc/PID/smaps."""


@pytest.fixture(scope="module", params=["compiled", "python"])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if request.param == "python":
        return [sys.executable, str(SOURCES / "job.py")]
    return build(tmp_path_factory.mktemp("workload"))


@contextmanager
def running(command: list[str], kind: str, size: int, directory: Path) -> Iterator[Job]:
    """A job, in a directory that stands for its cgroup; nothing of it is left."""
    job = start(command, Case(kind, kind, kind, size, 1, 1), directory, directory)
    try:
        yield job
    finally:
        try:
            os.killpg(job.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(job.pid, 0)


@pytest.mark.parametrize(
    ("kind", "size"), [("mem", 2), ("forked", 1), ("tree", 3), ("filled", 3), ("threads", 2), ("files", 12)]
)
def test_a_job_is_sound_when_asked(command: list[str], kind: str, size: int, tmp_path: Path) -> None:
    with running(command, kind, size, tmp_path) as job:
        assert prove(job, job.pid) >= 0


def test_a_job_writes_again_what_it_had_and_says_when_it_has(command: list[str], tmp_path: Path) -> None:
    with running(command, "mem", 17, tmp_path) as job:
        write_again(job)
        assert job.answer.read_text() == WROTE
        write_again(job)
        assert prove(job, job.pid) >= 0


def test_a_job_that_ends_rather_than_write_is_told(command: list[str], tmp_path: Path) -> None:
    with running(command, "tree", 1, tmp_path) as job, pytest.raises(BenchmarkError, match="ended rather than write"):
        write_again(job)


def test_each_process_of_a_tree_fills_memory_of_its_own(command: list[str], tmp_path: Path) -> None:
    with running(command, "filled", 3, tmp_path) as job:
        found = [job.pid, *children(job.pid)]
        assert len(found) == 4
        assert all(memory_of([pid], "Private_Dirty") >= MIB for pid in found)


@pytest.mark.skipif(machine.huge_pages() == "", reason="the kernel has no transparent huge pages")
def test_memory_for_huge_pages_begins_with_one(command: list[str], tmp_path: Path) -> None:
    with running(command, "huge", 4, tmp_path) as job:
        found = HUGE.search(Path(f"/proc/{job.pid}/smaps").read_text())
        assert found is not None
        begin, end = (int(address, 16) for address in found.groups())
        assert (begin % (2 * MIB), end - begin) == (0, 4 * MIB)
        assert prove(job, job.pid) >= 0
