"""Two processes stand by missing pages, so that one may be killed at any moment.

The *pager* serves, the *keeper* waits for the pager's end, and then is the pager and has a new keeper. They share one
table of descriptors (CLONE_FILES): what one opens the other has, in the same instant, also what the kernel puts there
for a process that was just forked. Were the last of these descriptors closed, missing pages would read as zeros.
What the keeper does not see by itself, it finds in the journal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import NoReturn

import prctl

from orchestrator.linux import userfaultfd
from orchestrator.linux.clone import fork
from orchestrator.linux.nsfs import CLONE_FILES, CLONE_PARENT
from orchestrator.linux.pidfd import pidfd_open
from orchestrator.paging.journal import Journal
from orchestrator.paging.pager import Duties, Pager
from orchestrator.paging.world import replay, unborn

_LOWEST, _HIGHEST = 0x1_0000, 0x7FFF_FFFF_F000
_AGAIN_AFTER = 1.0

EndJob = Callable[[str], None]
"""Kills every process of the job; called with why."""


def stand_by(duties: Duties, end_job: EndJob, ready: Callable[[], None]) -> NoReturn:
    """Be the pager until nothing is missing. ``ready`` is called once there is a keeper."""
    try:
        _Watch(duties, end_job).run(ready)
    except SystemExit:
        duties.helm.is_over = True
    except BaseException as error:  # noqa: BLE001  whatever it is, no page must read as zeros for it
        _give_up(duties, end_job, error)
    finally:
        os._exit(0)


def _give_up(duties: Duties, end_job: EndJob, error: BaseException) -> None:
    """End the job rather than let it find zeros. Until it has ended the descriptors stay open."""
    why = str(error) if type(error).__module__.startswith("orchestrator.paging") else repr(error)
    while True:
        try:
            end_job(why)
            break
        except Exception:  # noqa: BLE001  some process of it does not die yet
            time.sleep(_AGAIN_AFTER)
    duties.desk.close()
    duties.helm.is_over = True


class _Watch:
    """One pager, and how its keepers come to be."""

    def __init__(self, duties: Duties, end_job: EndJob) -> None:
        self._duties = duties
        self._end_job = end_job
        self._keeper = -1
        self._keeper_pid = 0
        self._self = -1

    def run(self, ready: Callable[[], None]) -> None:
        """Serve, and leave when there is nothing more to be done."""
        self._self = pidfd_open(os.getpid())
        keeper = self._relieve()
        prctl.set_name("orch-pager")
        ready()
        Pager(self._duties, self._relieve, keeper).run()
        self._duties.desk.close()
        self._duties.helm.is_over = True

    def _relieve(self) -> int:
        """Have a new keeper and a new journal; return the keeper's pidfd."""
        duties, before, pid_before = self._duties, self._keeper, self._keeper_pid
        old_journal, old_left = duties.journal, duties.left
        duties.journal = Journal()
        duties.left = {source: duties.journal.carry_over(messages) for source, messages in old_left.items()}
        try:
            pid = fork(CLONE_FILES | CLONE_PARENT, exit_signal=0)
        except OSError:
            duties.journal.close()
            duties.journal, duties.left = old_journal, old_left
            raise
        if pid == 0:
            _keep(duties, self._end_job, self._self)
        duties.helm.keeper = pid  # from here on the one before would not take over
        old_journal.close()
        if before >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid_before, signal.SIGKILL)
            os.close(before)
            self._keeper = -1
        self._keeper, self._keeper_pid = pidfd_open(pid), pid
        return self._keeper


def _keep(duties: Duties, end_job: EndJob, pager: int) -> NoReturn:
    """Wait for the pager's end, and take its place unless it has done its work or has another keeper."""
    try:
        prctl.set_name("orch-keeper")
        duties.desk.forget_guests()
        poll = select.poll()
        poll.register(pager, select.POLLIN)
        poll.poll()
        if duties.helm.is_over or duties.helm.keeper != os.getpid():
            os._exit(0)
        duties.left = replay(duties.world, duties.journal)
        if not duties.world:  # it was about to leave
            duties.desk.close()
            os._exit(0)
        _close_strangers(duties)
        for fd in (*duties.world, *unborn(duties.left)):
            with contextlib.suppress(OSError):
                userfaultfd.wake(fd, _LOWEST, _HIGHEST - _LOWEST)
    except BaseException as error:  # noqa: BLE001  as above
        _give_up(duties, end_job, error)
        os._exit(1)
    stand_by(duties, end_job, lambda: None)


def _close_strangers(duties: Duties) -> None:
    """Close what the dead pager had open for itself: its epoll, its guests, its pidfds."""
    keep = {0, 1, 2, duties.go, duties.desk.fileno(), *duties.world, *unborn(duties.left)}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))
