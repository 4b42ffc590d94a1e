"""A process of the job is killed while orch asks all of them: the checkpoint fails or not, and the others go on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.job import Job

_SLEEPERS = 40
_ROUNDS = 6


def _ready(job: Job) -> list[int]:
    """Wait for the job, and list those that may be killed."""
    deadline = Deadline.after(20)
    while True:
        comms = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in job.pids()}
        if list(comms.values()).count("sleep\n") == _SLEEPERS:
            return [pid for pid, comm in comms.items() if comm == "sleep\n"]
        assert not deadline.passed
        os.sched_yield()


@pytest.mark.parametrize("after", [0, 1, 3, 10])
def test_the_others_go_on(job: Job, after: int) -> None:
    """``after``: so many looks at the job, when it is held."""
    job.run(["sh", "-c", f"for i in $(seq {_SLEEPERS}); do sleep 1000 & done; while wait; do :; done"])
    sleepers = _ready(job)
    choice = random.Random(after)
    for _ in range(_ROUNDS):
        argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image))
        process, stem = job.orch.start(*argv)
        looks = -1
        while process.poll() is None and looks < after:
            looks += looks >= 0 or job.is_traced()
        victim = sleepers.pop(choice.randrange(len(sleepers)))
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        finished = job.orch.finish(process, stem, argv)
        assert finished.exit_code in (0, 23), finished
        assert "Traceback" not in finished.errors
        assert "internal" not in finished.errors
        assert not job.is_traced()
        assert set(sleepers) <= set(job.pids())
        for pid in sleepers:
            assert ") T" not in Path(f"/proc/{pid}/stat").read_text()
        job.image.unlink(missing_ok=True)
        assert os.listdir(job.image.parent) == []
    job.kill()
