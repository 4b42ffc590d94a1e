"""Python's multiprocessing pool, computing a known result through queues and shared memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cycles import CYCLES, cycle
from harness.job import Job
from harness.paced import Paced

SCRIPT = Path(__file__).with_name("pool.py")
COUNT = 40 * 500
MODULUS = 1_000_000_007


def expected(rounds: int) -> tuple[int, int]:
    """Return the sum over all rounds and the sum of the last one."""
    numbers = list(range(2, COUNT + 2))
    total = 0
    for _ in range(rounds):
        numbers = [number * number % MODULUS for number in numbers]
        total += sum(numbers)
    return total, sum(numbers)


@pytest.mark.timeout(900)
def test_pool_survives(job: Job) -> None:
    job.run(["/usr/bin/python3", SCRIPT, job.files, f"{job.directory.name}-pool"])
    pool = Paced(job)
    for _ in range(CYCLES):
        pool.must_work_on()
        cycle(job)
    pool.must_work_on()
    rounds, total, last = map(int, pool.stop())
    assert rounds >= CYCLES
    assert (total, last) == expected(rounds)
