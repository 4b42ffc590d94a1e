"""Cgroups of version 1 that a job is in, and orch is not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.job import Job
from harness.program import Program, Run
from harness.ways import WAYS, Way
from orchestrator.linux.mountinfo import cgroup2_mount


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
