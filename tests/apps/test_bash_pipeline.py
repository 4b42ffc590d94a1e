"""A bash pipeline with a subshell, sort and awk."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cycles import CYCLES, cycle
from harness.job import Job
from harness.paced import Paced

SCRIPT = Path(__file__).with_name("pipeline.sh")


@pytest.mark.timeout(900)
def test_pipeline_survives(job: Job) -> None:
    job.run(["/bin/bash", SCRIPT, job.files])
    pipeline = Paced(job)
    for _ in range(CYCLES):
        pipeline.must_work_on()
        cycle(job)
    pipeline.must_work_on()
    rounds, count, total, top, unordered = map(int, pipeline.stop())
    numbers = [(number * 7919) % 1000003 for number in range(rounds * 200)]
    assert rounds > CYCLES
    assert (count, total, top, unordered) == (len(numbers), sum(numbers), max(numbers), 0)
