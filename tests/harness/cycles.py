"""Checkpoint, kill and restore in a row: what a real application has to go through."""

from __future__ import annotations

import os

from harness.job import Job

CYCLES = int(os.environ.get("ORCH_TESTS_CYCLES", "20"))
"""How many in a row."""


def cycle(job: Job) -> None:
    """Checkpoint a job, see all of it gone, and bring it back."""
    job.checkpoint_and_kill()
    job.restore()
