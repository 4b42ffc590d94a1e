"""Jobs on a machine that has only the v1 freezer: the whole way, with cgroup v2 out of sight."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.job import Job
from orchestrator.linux.mountinfo import cgroup1_mount

_SOURCE = """
import sys
import orchestrator.freezer, orchestrator.target
orchestrator.freezer.cgroup2_mount = orchestrator.target.cgroup2_mount = lambda: None
from orchestrator.cli.__main__ import main
sys.exit(main(sys.argv[1:]))
"""

COUNTS = "n=0; while :; do n=$((n+1)); echo $n >count.new; mv count.new count; sleep 0.01; done"


def orch(*argv: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", _SOURCE, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def mount() -> Path:
    path = cgroup1_mount("freezer")
    if path is None or os.getuid() != 0:
        pytest.skip("needs root and a v1 freezer")
    return Path(path)


def await_more(path: Path, than: int) -> int:
    deadline = Deadline.after(10)
    while True:
        now = int(path.read_text()) if path.exists() else 0
        if now > than:
            return now
        assert not deadline.passed, "the job does not count on"
        select.select([], [], [], 0.01)


def test_run_checkpoint_kill_and_restore(mount: Path, job: Job) -> None:
    cgroup = mount / "orch" / job.name
    count = job.files / "count"
    orch("run", "-d", "--name", job.name, "--cwd", str(job.files), "--", "sh", "-c", COUNTS)
    assert (cgroup / "cgroup.procs").read_text()
    await_more(count, 2)
    orch("checkpoint", "--cgroup", job.name, "-o", str(job.image))
    assert (cgroup / "freezer.state").read_text() == "THAWED\n"
    await_more(count, int(count.read_text()))
    orch("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
    assert not cgroup.exists()
    orch("restore", str(job.image), "-d")
    await_more(count, int(count.read_text()))
    assert (cgroup / "cgroup.procs").read_text()
    assert job.name in orch("ps")
    orch("kill", job.name)
    assert not cgroup.exists()
