"""Where a verb's supervisor runs: in this process, or detached from it."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.daemon import Report, Reporter, detach
from orchestrator.supervisor import end_like


def supervise(work: Callable[[Reporter], int], detached: bool, listener: int | None) -> int:
    """Let ``work`` run a job until it ends, and end as its root did; or, detached, print its name and return."""
    if detached:
        name = detach(work, listener)
        if listener is None:
            print(name)
        return 0
    reporter = Reporter() if listener is None else Reporter(listener)
    try:
        status = work(reporter)
    except BaseException as error:
        reporter.failed(error)
        raise
    reporter.say(Report(status=status))
    return end_like(status)
