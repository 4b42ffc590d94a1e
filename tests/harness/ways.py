"""What is done to a program between its getting ready and its checks."""

from __future__ import annotations

from collections.abc import Callable

from harness.program import Run

Way = Callable[[Run], None]

WAYS: dict[str, Way] = {}
"""Every way, by the name it has in a test's id."""


def way(function: Way) -> Way:
    """Register a way under its name."""
    WAYS[function.__name__] = function
    return function


@way
def plain(run: Run) -> None:
    """Nothing at all, and without orch: does the program itself work?"""
    run.start_plain()
    run.must_pass()


@way
def same(run: Run) -> None:
    """Checkpoint, kill and restore."""
    run.start()
    run.job.checkpoint_and_kill()
    run.job.restore()
    run.must_pass()


@way
def live(run: Run) -> None:
    """Checkpoint a job that goes on; it must pass, and so must its image, restored when it is over."""
    run.start()
    run.job.checkpoint()
    run.must_pass()
    run.back_to_checkpoint()
    run.job.restore()
    run.must_pass()


@way
def repeat(run: Run) -> None:
    """Checkpoint, kill and restore three times over: what was restored is checkpointed again."""
    run.start()
    for _ in range(3):
        run.job.checkpoint_and_kill()
        run.job.restore()
    run.must_pass()
