"""Emptying cgroups of both versions, as 'orch kill' does it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cgroups import remove
from harness.descendants import kill_all
from harness.job import Job
from harness.program import Program, Run
from orchestrator.freezer import CgroupRef, make_freezer
from orchestrator.kill import empty_cgroup
from orchestrator.linux import cgroupfs
from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount


@pytest.fixture(params=[2, 1], ids=["v2", "v1"])
def cgroup(request: pytest.FixtureRequest) -> Iterator[CgroupRef]:
    if os.getuid() != 0:
        pytest.skip("needs root")
    mount = cgroup2_mount() if request.param == 2 else cgroup1_mount("freezer")
    if mount is None:
        pytest.skip(f"no cgroup v{request.param} freezer is mounted here")
    path = f"{mount}/orch-test-kill-{os.getpid()}"
    cgroupfs.create(path)
    try:
        yield CgroupRef(request.param, path)
    finally:
        if os.path.exists(path):
            remove(Path(path))
        kill_all()


def start(cgroup: CgroupRef, script: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'echo $$ >"$0/cgroup.procs"; {script}', cgroup.path], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
    return process


def test_a_tree_that_ignores_signals_is_gone_afterwards(cgroup: CgroupRef) -> None:
    process = start(cgroup, "trap '' TERM INT HUP; sleep 1000 & sleep 1000 & echo ready; wait")
    empty_cgroup(cgroup, 10)
    assert process.wait(10) == -9
    cgroupfs.remove_tree(cgroup.path)


def test_a_frozen_tree_is_gone_afterwards(cgroup: CgroupRef) -> None:
    process = start(cgroup, "sleep 1000 & echo ready; wait")
    make_freezer(cgroup).freeze(10)
    empty_cgroup(cgroup, 10)
    assert process.wait(10) == -9
    cgroupfs.remove_tree(cgroup.path)


def test_an_empty_cgroup_and_one_that_is_gone_are_no_error(cgroup: CgroupRef) -> None:
    empty_cgroup(cgroup, 10)
    cgroupfs.remove_tree(cgroup.path)
    empty_cgroup(cgroup, 10)


@pytest.mark.parametrize("program", ["leader_exited", "main_thread_ended"])
def test_a_process_whose_main_thread_has_ended(job: Job, program: str) -> None:
    run = Run(Program(program), job)
    run.start()
    job.kill()
