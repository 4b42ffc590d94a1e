"""A C program with 64 threads that wait for each other on futexes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compiler import compile_source
from harness.cycles import CYCLES, cycle
from harness.job import Job
from harness.paced import Paced

SOURCE = Path(__file__).with_name("futexes.c")
THREADS, TOKENS, LAPS = 64, 5, 3


@pytest.mark.timeout(900)
def test_threads_survive(job: Job) -> None:
    job.run([compile_source(SOURCE), job.files])
    threads = Paced(job)
    for _ in range(CYCLES):
        threads.must_work_on()
        cycle(job)
    threads.must_work_on()
    words = threads.stop()
    assert words[0] != "FAIL:", " ".join(words)
    rounds, passes, locked, woken = map(int, words)
    assert rounds > CYCLES
    assert passes == rounds * THREADS * TOKENS * LAPS
    assert locked == woken == rounds * THREADS
