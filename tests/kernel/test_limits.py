"""Jobs as large as the machine allows: as many descriptors as the limit of open files lets a process have."""

from __future__ import annotations

import resource

import pytest

from harness.job import Job
from harness.program import Program, Run
from harness.ways import live, repeat, same

MOST = 20_000
"""What is enough to prove it, where the limit is higher."""
SPARE = 40
"""Numbers that a restore needs for itself, with some for the files that the program has mapped."""


def allowed(files: int) -> list[str]:
    """Return the command that starts another with a hard limit of open files."""
    return ["prlimit", f"--nofile={files}:{files}"]


def test_a_process_with_nearly_as_many_descriptors_as_it_may_have(job: Job) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    job.orch.under = allowed(min(hard, MOST))
    same(Run(Program("many_descriptors", (str(-SPARE),)), job))


@pytest.mark.parametrize("way", [same, live, repeat], ids=lambda way: way.__name__)
def test_processes_with_more_descriptors_than_one_may_have(job: Job, way: type) -> None:
    job.orch.under = allowed(1000)
    way(Run(Program("many_descriptors", (str(-SPARE), "4")), job))


def test_descriptors_that_no_restore_could_make_are_refused(job: Job) -> None:
    job.orch.under = allowed(1000)
    run = Run(Program("many_descriptors", ("-4",)), job)
    run.start()
    finished = job.orch.expect(20, "checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
    assert "993 descriptors" in finished.errors
    assert "and it is 1000" in finished.errors
    assert not job.image.exists()
    run.must_pass()
