"""Calls that block while the job is saved: they go on, without EINTR and not too early; and clocks."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import MORE_WAYS, WAYS, Way

PROGRAMS = [
    *(Program("blocked_sleep", (kind,)) for kind in ("relative", "absolute", "boottime")),
    *(
        Program("blocked_poll", (call, *timeout))
        for call in ("poll", "ppoll", "select", "pselect", "epoll_wait", "epoll_pwait")
        for timeout in ((), ("timeout",))
    ),
    *(Program("blocked_futex", (kind,)) for kind in ("untimed", "relative", "absolute", "woken")),
    Program("blocked_semaphore"),
    *(
        Program("blocked_signal_wait", (kind,))
        for kind in ("sigtimedwait", "sigtimedwait-timeout", "sigwaitinfo", "pause", "sigsuspend", "signalfd")
    ),
    *(Program("blocked_io", (kind,)) for kind in ("read", "write", "recv", "accept", "wait")),
    *(
        Program("blocked_timed_io", (call,))
        for call in ("recv", "read", "readv", "recvmsg", "recvmmsg", "accept", "connect", "send", "write", "sendmsg")
    ),
    Program("waits_on"),
    *(Program("sleep_remains", (call,)) for call in ("nanosleep", "clock_nanosleep")),
    Program("clocks"),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)


@pytest.mark.parametrize("program", [Program("waits_on")], ids=lambda program: program.id)
def test_calls_that_a_checkpoint_has_interrupted_once_survive_another(run: Run) -> None:
    MORE_WAYS["live_twice"](run)
