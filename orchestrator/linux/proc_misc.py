"""The smaller files of /proc/PID, one function each.

Those that show memory (auxv, cmdline, environ) raise ProcessLookupError for a zombie or read empty.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from orchestrator.linux.procfs import read_before, read_file, read_record

RLIM_INFINITY = 2**64 - 1
RLIM_NLIMITS = 16

_LIMIT = re.compile(rb"^Max .{22}(\d+|unlimited) +(\d+|unlimited) ", re.MULTILINE)


def parse_limits(raw: bytes) -> list[tuple[int, int]]:
    """Parse a limits file: (soft, hard) by RLIMIT_* number, which is the order of its lines."""
    limits = [
        (RLIM_INFINITY if soft == b"unlimited" else int(soft), RLIM_INFINITY if hard == b"unlimited" else int(hard))
        for soft, hard in _LIMIT.findall(raw)
    ]
    if len(limits) != RLIM_NLIMITS:
        raise ValueError(f"limits: {len(limits)} lines, not {RLIM_NLIMITS}")
    return limits


def read_limits(pid: int) -> list[tuple[int, int]]:
    """Read the 16 resource limits of a process as (soft, hard)."""
    return parse_limits(read_record(f"/proc/{pid}/limits"))


def read_auxv(pid: int) -> bytes:
    """Read the auxiliary vector that execve(2) gave the process."""
    return read_file(f"/proc/{pid}/auxv")


def read_cmdline(pid: int) -> bytes:
    """Read the arguments, each ended by a zero byte, as they stand in the process's memory now."""
    return read_file(f"/proc/{pid}/cmdline")


def read_environ(pid: int) -> bytes:
    """Read the environment that execve(2) gave the process, as it stands in its memory now."""
    return read_file(f"/proc/{pid}/environ")


class PosixTimerLine(NamedTuple):
    """One POSIX timer. ``notify`` is "signal", "none" or "thread"; ``notify_pid_kind`` "pid" or "tid"."""

    id: int
    signo: int
    sigval: int
    notify: str
    notify_pid_kind: str
    notify_target: int
    clock_id: int


_TIMER = re.compile(
    rb"ID: (\d+)\nsignal: (\d+)/([0-9a-f]+|\(null\))\nnotify: ([a-z]+)/([a-z]+)\.(-?\d+)\nClockID: (-?\d+)\n"
)


def parse_timers(raw: bytes) -> list[PosixTimerLine]:
    """Parse a timers file."""
    timers = [
        PosixTimerLine(
            int(number),
            int(signo),
            0 if sigval == b"(null)" else int(sigval, 16),
            notify.decode(),
            kind.decode(),
            int(target),
            int(clock),
        )
        for number, signo, sigval, notify, kind, target, clock in _TIMER.findall(raw)
    ]
    if len(timers) != raw.count(b"ClockID:"):
        raise ValueError(f"timers: a record that is not understood in {raw!r}")
    return timers


def read_timers(pid: int) -> list[PosixTimerLine]:
    """Read the POSIX timers of a process. ``notify_target`` is as this procfs sees it."""
    return parse_timers(read_file(f"/proc/{pid}/timers"))


def read_oom_score_adj(pid: int | str) -> int:
    """Read the OOM killer's adjustment, -1000 to 1000."""
    return int(read_record(f"/proc/{pid}/oom_score_adj"))


def read_autogroup_nice(pid: int | str) -> int:
    """Read the nice value of the group that a session is scheduled as; 0 where sessions are none. See sched(7)."""
    try:
        return int(read_record(f"/proc/{pid}/autogroup").rpartition(b" ")[2])
    except (OSError, ValueError):
        return 0


def read_coredump_filter(pid: int | str) -> int:
    """Read which mappings a core dump of a process holds, as bits. See core(5)."""
    return int(read_record(f"/proc/{pid}/coredump_filter"), 16)


def read_timerslack(pid: int) -> int:
    """Read the timer slack of a thread in nanoseconds."""
    return int(read_record(f"/proc/{pid}/timerslack_ns"))


def read_personality(pid: int) -> int:
    """Read the execution domain and its flags. See personality(2)."""
    return int(read_record(f"/proc/{pid}/personality"), 16)


def read_loginuid(pid: int | str) -> int:
    """Read the audit login uid; 2**32 - 1 where none was set."""
    return int(read_record(f"/proc/{pid}/loginuid"))


def read_ns_ids(pid: int) -> dict[str, int]:
    """Map the names in /proc/PID/ns to inode numbers.

    A namespace that the task does not have is left out: all but a few of a zombie's, and
    "pid_for_children" between unshare(CLONE_NEWPID) and the first fork.
    """
    directory = f"/proc/{pid}/ns"
    if (known := read_before(directory)) is not None:
        return known  # type: ignore[no-any-return]
    ids = {}
    for name in os.listdir(directory):
        try:
            target = os.readlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue
        ids[name] = int(target[target.index("[") + 1 : -1])
    return ids


def read_children(pid: int, tid: int) -> list[int]:
    """List the children that one thread forked, oldest first.

    Not every kernel has the file (CONFIG_PROC_CHILDREN): then FileNotFoundError. Reliable only while
    the children are held.
    """
    return [int(child) for child in read_file(f"/proc/{pid}/task/{tid}/children").split()]


def list_threads(pid: int) -> list[int]:
    """List the threads of a process, ascending."""
    return sorted(map(int, os.listdir(f"/proc/{pid}/task")))


def list_pids() -> list[int]:
    """List the processes that this procfs shows, ascending."""
    return sorted([int(name) for name in os.listdir("/proc") if name.isdecimal()])


def parse_cgroup(raw: bytes) -> dict[str, str]:
    """Parse a cgroup file: controller list ("" for cgroup v2, "name=x" for a named one) to path."""
    paths = {}
    for line in os.fsdecode(raw).splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    return paths


def cgroup_of(pid: int | str) -> dict[str, str]:
    """Say in which cgroup of each hierarchy a process is. Paths start at our own cgroup namespace's root."""
    return parse_cgroup(read_file(f"/proc/{pid}/cgroup"))
