"""Cgroups of version 1 that a job is in, and orch is not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.job import Job
from harness.program import Program, Run
from harness.ways import WAYS, Way
from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount


@pytest.fixture
def hierarchy(job: Job) -> Iterator[Path]:
    """Mount a hierarchy of no controller, named after the job."""
    with tempfile.TemporaryDirectory(prefix=f"{job.name}-") as directory:
        mount = ["mount", "-t", "cgroup", "-o", f"none,name={job.name}", "none", directory]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("no cgroups of version 1")
        try:
            yield Path(directory)
        finally:
            empty(Path(directory))
            subprocess.run(["umount", directory], check=True)


def empty(hierarchy: Path) -> None:
    """Remove every cgroup that has no task."""
    for top, directories, _ in os.walk(hierarchy, topdown=False):
        for name in directories:
            with contextlib.suppress(OSError):
                Path(top, name).rmdir()


def program_in(hierarchy: Path, job: Job) -> Run:
    return Run(Program("cgroup_places", (str(hierarchy), job.name)), job)


@pytest.mark.parametrize("way", [WAYS[name] for name in ("plain", "same", "repeat")], ids=["plain", "same", "repeat"])
def test_survives(way: Way, hierarchy: Path, job: Job) -> None:
    way(program_in(hierarchy, job))


def test_cgroups_that_are_gone_are_made_again(hierarchy: Path, job: Job) -> None:
    run = program_in(hierarchy, job)
    run.start()
    job.checkpoint_and_kill()
    empty(hierarchy)
    assert not (hierarchy / "a").exists()
    job.restore()
    run.must_pass()


def test_a_hierarchy_need_not_be_mounted(hierarchy: Path, job: Job) -> None:
    run = program_in(hierarchy, job)
    run.start()
    subprocess.run(["umount", str(hierarchy)], check=True)
    try:
        job.checkpoint_and_kill()
    finally:
        mount = ["mount", "-t", "cgroup", "-o", f"none,name={job.name}", "none", str(hierarchy)]
        subprocess.run(mount, check=True)
    empty(hierarchy)
    job.restore()
    run.must_pass()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_jobs_own_cgroups_survive(way: Way, job: Job) -> None:
    mount = cgroup2_mount()
    if mount is None:
        pytest.skip("no cgroups of version 2")
    way(Run(Program("cgroup_tree", (mount,)), job))


@pytest.fixture
def limited(job: Job) -> Iterator[Callable[[int], None]]:
    """Let the job's processes be in a cgroup that allows so many more."""
    controller = cgroup1_mount("pids")
    if controller is None:
        pytest.skip("no controller of version 1 for numbers of processes")
    directory = Path(controller, job.name)
    directory.mkdir()

    def limit(room: int) -> None:
        for pid in job.processes():
            (directory / "cgroup.procs").write_text(str(pid))
        (directory / "pids.max").write_text(str(int((directory / "pids.current").read_text()) + room))

    yield limit
    for pid in (directory / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            Path(controller, "cgroup.procs").write_text(pid)
    directory.rmdir()


@pytest.mark.parametrize(("room", "there"), [(50, False), (1000, True)])
def test_replicas_leave_room_for_the_jobs_own_processes(
    job: Job, limited: Callable[[int], None], room: int, there: bool
) -> None:
    run = Run(Program("many_processes", seconds=60), job)
    run.start()
    limited(room)
    job.checkpoint()
    assert ("no room for replicas (pids.max)" in job.orch.transcript()) is not there
    run.must_pass()
