"""Run or restore a job with the calling process as its supervisor."""

from __future__ import annotations

import os
from collections.abc import Callable

from orchestrator.claim import claim_job
from orchestrator.daemon import Reporter
from orchestrator.linux.procfs import read_file
from orchestrator.relay import Relay
from orchestrator.spawn import Program
from orchestrator.supervisor import Root, Supervisor


def run_job(program: Program, name: str | None, reporter: Reporter, relay: Relay | None = None) -> int:
    """Run a program as a job until it ends; return the wait status of its root. ``relay`` is closed then."""
    claim = claim_job(name)
    try:
        with Supervisor(claim) as supervisor:
            supervisor.relay = relay
            root = supervisor.start(program)
            reporter.running(claim.name)
            return supervisor.wait(root)
    finally:
        # Does nothing after a job that has ended by itself.
        claim.abandon()


def restore_job(
    rebuild: Callable[[str], Root],
    *,
    name: str | None,
    image: str,
    streams: tuple[int, ...],
    reporter: Reporter,
    on_running: Callable[[Root], None] | None = None,
    relay: Relay | None = None,
) -> int:
    """Run a job that ``rebuild`` brings back, given the path of the job's cgroup, until it ends.

    Return the wait status of its root. ``on_running`` is called once the job runs.
    """
    claim = claim_job(name)
    try:
        with Supervisor(claim) as supervisor:
            supervisor.relay = relay
            root = rebuild(claim.cgroup.path)
            supervisor.hold_signals()
            supervisor.publish(root, argv=_arguments(root), streams=streams, restored_from=image)
            if on_running is not None:
                on_running(root)
            reporter.running(claim.name)
            return supervisor.wait(root)
    finally:
        # Does nothing after a job that has ended by itself.
        claim.abandon()


def _arguments(root: Root) -> tuple[str, ...]:
    try:
        raw = read_file(f"/proc/{root.target}/cmdline")
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(os.fsdecode(word) for word in raw.split(b"\0")[:-1])
