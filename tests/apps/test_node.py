"""Node.js with timers and worker threads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.cycles import CYCLES, cycle
from harness.job import Job
from harness.paced import Paced

SCRIPT = Path(__file__).with_name("workers.js")
WORKERS, NUMBERS, MODULUS = 4, 500, 1000003

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def expected(rounds: int) -> int:
    total = 0
    for number in range(rounds):
        for index in range(WORKERS):
            first = number * NUMBERS + index
            total += sum(n * n for n in range(first, first + NUMBERS))
    return total % MODULUS


@pytest.mark.timeout(900)
def test_workers_survive(job: Job) -> None:
    node = shutil.which("node")
    assert node is not None
    job.run([node, SCRIPT, job.files])
    workers = Paced(job)
    for _ in range(CYCLES):
        workers.must_work_on()
        cycle(job)
    workers.must_work_on()
    words = workers.stop()
    assert words[0] != "FAIL:", " ".join(words)
    rounds, total, timeouts, ticks, backwards, kept, messages, *counts = map(int, words)
    assert rounds > CYCLES
    assert total == expected(rounds)
    assert timeouts == kept == rounds
    assert messages == rounds * WORKERS
    assert counts == [rounds * NUMBERS] * WORKERS
    assert ticks > 0
    assert backwards == 0
