"""End a job: every process of it, and what orch knew of it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Iterable

from orchestrator.errors import JobBusy, NoSuchJob, NotPermitted, SelfInJob
from orchestrator.freezer import CgroupRef, make_freezer
from orchestrator.job import Birth, Job, clear_if_stale, find_job
from orchestrator.linux import cgroupfs
from orchestrator.linux.pidfd import pidfd_open, pidfd_send_signal
from orchestrator.linux.proc_stat import read_stat
from orchestrator.linux.proc_status import read_status

# Signals that do not end a program which has set no handler.
_HARMLESS = {
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGURG,
    signal.SIGWINCH,
}

_BLOCKED_SECONDS = 0.05

KILL_SECONDS = 10.0
"""How long a killed job may take to end."""


def empty_cgroup(cgroup: CgroupRef, timeout: float) -> None:
    """Kill every process of a cgroup and wait until the last has ended. Raises JobBusy after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    emptied = _kill_v2(cgroup.path, deadline) if cgroup.version == 2 else _kill_v1(cgroup, deadline)
    if not emptied:
        left = ", ".join(map(str, make_freezer(cgroup).tasks()))
        raise JobBusy(
            f"processes of {cgroup.path} do not die: {left}",
            hint="they wait in the kernel, for a device or a filesystem",
        )


def _kill_v2(path: str, deadline: float) -> bool:
    try:
        with cgroupfs.EventsWatch(path) as watch:
            poll = select.poll()
            poll.register(watch.fileno(), select.POLLIN)
            cgroupfs.kill(path)
            with contextlib.suppress(NoSuchJob):
                _kill_headless(make_freezer(CgroupRef(2, path)).tasks())
            while watch.clear()["populated"]:
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    return False
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
    return True


def _kill_headless(pids: Iterable[int]) -> None:
    """Kill processes whose main thread has ended before others: cgroup.kill signals just that one, in vain."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if read_stat(pid).state == "Z":
                os.kill(pid, signal.SIGKILL)


def _kill_v1(cgroup: CgroupRef, deadline: float) -> bool:
    pause_seconds = 0.0005
    freezer = make_freezer(cgroup)
    while True:
        try:
            pids = [pid for pid in freezer.tasks() if Birth.of(pid).is_alive()]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            # A frozen task dies when it is thawed.
            freezer.thaw()
        except NoSuchJob:
            return True
        except (FileNotFoundError, ProcessLookupError):
            continue
        if not pids:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, 0.02)


def kill_job(name: str, signo: int = signal.SIGKILL, timeout: float = KILL_SECONDS) -> None:
    """Kill every process of a job and wait until nothing is left of it, its supervisor included.

    Another signal than SIGKILL goes to the job's root alone and is not waited for.
    Raises NoSuchJob, SelfInJob, JobBusy, NotPermitted.
    """
    job = find_job(name)
    if os.getpid() in job.pids():
        raise SelfInJob(f"orch itself is a process of the job {name}", hint="run 'orch kill' from elsewhere")
    try:
        if signo != signal.SIGKILL:
            _signal_job(job, signo)
            return
        deadline = time.monotonic() + timeout
        empty_cgroup(job.cgroup, timeout)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise NotPermitted(f"not allowed to kill the job {name}", hint="run orch as root") from error
    await_supervisor(job, deadline)
    clear_if_stale(name)


def _signal_job(job: Job, signo: int) -> None:
    root = job.record.root
    try:
        target = pidfd_open(root.pid)
    except ProcessLookupError:
        target = -1
    try:
        if target >= 0 and root.is_alive():
            signal_root(target, root.pid, signo)
            return
    finally:
        if target >= 0:
            os.close(target)
    # The root has ended, and others live on.
    for pid in job.pids():
        os.kill(pid, signo)


def signal_root(target: int, pid: int, signo: int) -> int:
    """Send a signal to a job's root, given its pidfd and process id; return the one that was sent.

    The kernel drops a deadly signal that the init of a PID namespace has set no handler for. Such a
    program expects to die of it, so it does. ProcessLookupError when the root has ended.
    """
    if signo not in _HARMLESS and _is_deaf_init(pid, signo):
        signo = signal.SIGKILL
    pidfd_send_signal(target, signo)
    return signo


def _is_deaf_init(pid: int, signo: int) -> bool:
    deadline = time.monotonic() + _BLOCKED_SECONDS
    while True:
        try:
            status = read_status(pid)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
        bit = 1 << (signo - 1)
        if len(status.ns_pid) < 2 or status.ns_pid[-1] != 1 or (status.sig_cgt | status.sig_ign) & bit:
            return False
        if not status.sig_blk & bit:
            return True
        # A shell blocks all signals while it forks; what blocks them for longer waits for them in its own way.
        if time.monotonic() > deadline:
            return False
        time.sleep(_BLOCKED_SECONDS / 10)


def await_supervisor(job: Job, deadline: float) -> None:
    """Wait until the supervisor of a job that has ended has cleared it away. JobBusy at ``deadline`` (monotonic)."""
    supervisor = job.record.supervisor
    try:
        pidfd = pidfd_open(supervisor.pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if supervisor.is_alive() and not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise JobBusy(f"the supervisor of {job.name} ({supervisor.pid}) does not end")
    finally:
        os.close(pidfd)
