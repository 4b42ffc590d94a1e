"""An interactive bash in a pseudo-terminal, with a foreground job and a stopped one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cycles import CYCLES, cycle
from harness.job import Job
from harness.paced import Paced

SCRIPT = Path(__file__).with_name("shell.py")


@pytest.mark.timeout(900)
def test_shell_survives(job: Job) -> None:
    job.run(["/usr/bin/python3", SCRIPT, job.files])
    shell = Paced(job)
    for _ in range(CYCLES):
        shell.must_work_on()
        cycle(job)
    shell.must_work_on()
    groups, stopped, status = map(int, shell.stop())
    assert (groups, stopped, status) == (1, 1, 7)
