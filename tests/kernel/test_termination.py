"""orch is told to end while it holds a job: the job goes on, and nothing is left."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import pytest

from harness.cgroups import of_job
from harness.deadline import Deadline
from harness.job import Job
from harness.stuck import STUCK, require_userfaultfd


def asks_frozen(cgroup: Path) -> bool:
    name = "cgroup.freeze" if (cgroup / "cgroup.freeze").exists() else "freezer.self_freezing"
    return (cgroup / name).read_text().strip() == "1"


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_checkpoint_that_is_told_to_end_thaws_the_job(job: Job, signo: signal.Signals) -> None:
    require_userfaultfd()
    job.run([sys.executable, "-c", STUCK])
    (cgroup,) = of_job(job.name)
    argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--timeout", "60")
    process, stem = job.orch.start(*argv)
    deadline = Deadline.after(20)
    while not asks_frozen(cgroup):
        assert process.poll() is None
        assert not deadline.passed, "the checkpoint did not begin to freeze"
        select.select([], [], [], 0.005)
    process.send_signal(signo)
    finished = job.orch.finish(process, stem, argv)
    assert finished.exit_code == 128 + signo
    assert "Traceback" not in finished.errors
    assert not asks_frozen(cgroup)
    assert os.listdir(job.image.parent) == []
    job.kill()
