"""Run commands and watch processes by their pidfds: no polling, and nothing is left behind.

The benchmark is a child subreaper, so every process it starts, and every process those leave, is found below it.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TIMEOUT_S = 300.0
MERCY_S = 10.0


class BenchmarkError(Exception):
    """A figure that could not be taken; the message says which command or job, and why."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended well."""

    wall_us: float
    """From just before it was started until its end was seen."""
    max_rss_bytes: int
    """Its peak; never below this process's own peak, which the kernel hands on through exec."""


def become_subreaper() -> None:
    """Make orphans below this process its children. See PR_SET_CHILD_SUBREAPER in prctl(2)."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def keep_descriptors() -> None:
    """Hand no descriptor beyond the standard ones on to commands and jobs, whatever this process was given.

    A job that shares a pipe with somebody outside is rightly refused.
    """
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:  # the listing's own
            pass


def wait_readable(fd: int, timeout_s: float = TIMEOUT_S) -> bool:
    """Wait until a descriptor is readable or hung up; False when the time is over."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def wait_gone(pid: int, timeout_s: float = TIMEOUT_S) -> None:
    """Wait until a process, whoever its parent is, has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not wait_readable(pidfd, timeout_s):
            raise BenchmarkError(f"process {pid} did not end within {timeout_s:.0f} s")
    finally:
        os.close(pidfd)


def run_command(
    argv: Sequence[str], log: Path, timeout_s: float = TIMEOUT_S, env: Mapping[str, str] | None = None
) -> Finished:
    """Run a command with its output in ``log``; raise BenchmarkError if it fails or takes too long."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        started = time.perf_counter()
        pid = os.posix_spawnp(
            argv[0],
            list(argv),
            os.environ if env is None else env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, out, 2),
            ],
        )
    except OSError as err:
        raise BenchmarkError(f"cannot run {argv[0]}: {err.strerror}") from err
    finally:
        os.close(out)
    pidfd = os.pidfd_open(pid)
    try:
        in_time = wait_readable(pidfd, timeout_s)
        wall_us = (time.perf_counter() - started) * 1e6
        if not in_time:
            os.kill(pid, signal.SIGTERM)  # whoever holds a job lets go of it
            if not wait_readable(pidfd, MERCY_S):
                os.kill(pid, signal.SIGKILL)
    finally:
        os.close(pidfd)
        _, status, usage = os.wait4(pid, 0)
    name = " ".join((Path(argv[0]).name, *argv[1:2]))
    if not in_time:
        raise BenchmarkError(f"{name} took longer than {timeout_s:.0f} s")
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise BenchmarkError(f"{name} ended with {code}: {last_message(log.read_text(errors='replace'))}")
    return Finished(wall_us, usage.ru_maxrss * 1024)


def last_message(text: str) -> str:
    """Return the last line of a log that is not a hint."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("hint:")]
    return lines[-1] if lines else "(no message)"


def peak_memory(pid: int) -> int:
    """Return the peak resident size of a running process, in bytes; 0 if it is gone."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) * 1024 if found else 0


def name_of(pid: int) -> str:
    """Return the name of a process that has not ended; empty for any other."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return "" if rest.split()[0] in "ZX" else name


def parse_rollup(text: str, field: str) -> int:
    """Find a field of the text of /proc/PID/smaps_rollup, as Pss or AnonHugePages, in bytes; nought without it."""
    found = re.search(rf"^{field}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def memory_of(pids: Sequence[int], field: str) -> int:
    """Add up a field of smaps_rollup over processes, in bytes; those that are gone count nothing.

    Of their proportional set sizes (Pss), each shared page counts once in all.
    """
    total = 0
    for pid in pids:
        try:
            total += parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text(), field)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def children(pid: int) -> list[int]:
    """List the direct children of a process; empty if it is gone."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def descendants(pid: int) -> list[int]:
    """List everything below a process, parents before children."""
    found: list[int] = []
    queue = children(pid)
    while queue:
        found += queue
        queue = [below for above in queue for below in children(above)]
    return found


def reap(timeout_s: float = TIMEOUT_S) -> None:
    """Wait until nothing is left below this process; raise BenchmarkError if something stays."""
    until = time.monotonic() + timeout_s
    while below := children(os.getpid()):
        for pid in below:
            wait_gone(pid, max(until - time.monotonic(), 0))
            os.waitpid(pid, 0)


def end_everything_below() -> None:
    """Kill and reap every process that this one has started, or that those have left."""
    while below := descendants(os.getpid()):
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        # Only direct children can be reaped; what they leave becomes ours and is met in the next round.
        for pid in children(os.getpid()):
            wait_gone(pid)
            os.waitpid(pid, 0)
