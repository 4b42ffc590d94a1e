"""Nothing waits for ever: a task that does not die is named."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from harness.eventually import eventually
from orchestrator.capture import hold
from orchestrator.capture.hold import HeldJob
from orchestrator.errors import FreezeTimeout
from orchestrator.ids import HostPid, HostTid
from orchestrator.linux import clone, ptrace
from orchestrator.linux.nsfs import CLONE_NEWPID
from orchestrator.linux.pidfd import kill_and_reap
from orchestrator.linux.proc_misc import read_children
from orchestrator.tape import tracee


def pause_for_ever() -> None:
    while True:
        signal.pause()


@pytest.fixture
def namespace() -> Iterator[tuple[HostPid, HostTid]]:
    """Start process 1 of a PID namespace and a child of it. Process 1 ends when its child is reaped."""
    first = HostPid(clone.fork(CLONE_NEWPID))
    if first == 0:
        os.fork()
        pause_for_ever()
    eventually(lambda: bool(read_children(first, first)), 10, "process 1 has a child")
    (child,) = read_children(first, first)
    try:
        yield first, HostTid(child)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
        for tid in (child, first):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(tid, ptrace.WALL)


def test_a_process_that_does_not_die_is_named(
    namespace: tuple[HostPid, HostTid], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, child = namespace
    monkeypatch.setattr(hold, "_KILLED_WITHIN", 0.2)
    ptrace.seize(child, 0)  # whom we trace, and do not reap, keeps process 1 from ending
    job = HeldJob(10)
    job.seize([first])
    for tid in job._seized:
        tracee.wait_held(tid, time.monotonic() + 10)
    job.processes[first] = job._describe(first)
    with pytest.raises(FreezeTimeout, match=rf"the image is complete.* {first} \(.*\), state S, in "):
        job.kill()


def test_a_child_that_does_not_die_is_left(namespace: tuple[HostPid, HostTid]) -> None:
    first, child = namespace
    ptrace.seize(child, 0)
    assert not kill_and_reap(first, 0.1)
    os.waitpid(child, ptrace.WALL)
    assert kill_and_reap(first, 10)
