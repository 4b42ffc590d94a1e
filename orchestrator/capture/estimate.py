"""Guess, while a job still runs, how large its image will be and how much memory there is to spare for it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from orchestrator.ids import HostPid
from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount
from orchestrator.linux.proc_misc import cgroup_of
from orchestrator.linux.procfs import read_file

_LARGE_KIB = 1024
_OWN = re.compile(rb"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)
_PRIVATE = re.compile(rb"^Pss_Anon:\s+(\d+) kB$", re.MULTILINE)
_SHARED = re.compile(rb"^Pss_Shmem:\s+(\d+) kB$", re.MULTILINE)
_AVAILABLE = re.compile(rb"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


def expected_bytes(pids: Sequence[HostPid]) -> tuple[int, int]:
    """Add up the memory of the larger processes, each page once: (private, shared)."""
    private = shared = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            if _sum(_OWN, read_file(f"/proc/{pid}/status")) >= _LARGE_KIB:
                rollup = read_file(f"/proc/{pid}/smaps_rollup")
                private += _sum(_PRIVATE, rollup)
                shared += _sum(_SHARED, rollup)
    return private * 1024, shared * 1024


def spare_bytes(pids: Sequence[HostPid]) -> int:
    """Say how much more memory the machine, and the cgroups of a job, can take."""
    least = _sum(_AVAILABLE, read_file("/proc/meminfo")) * 1024
    for pid in pids[:1]:
        for limit, usage in _limits(pid):
            least = min(least, limit - usage)
    return max(least, 0)


def _limits(pid: HostPid) -> Iterator[tuple[int, int]]:
    """Yield (limit, usage) of every memory cgroup that a process is in."""
    with contextlib.suppress(OSError):
        cgroups = cgroup_of(pid)
        old, new = cgroup1_mount("memory"), cgroup2_mount()
        for controllers, path in cgroups.items():
            if "memory" in controllers.split(",") and old:
                yield from _upwards(old, path, "memory.limit_in_bytes", "memory.usage_in_bytes")
            elif not controllers and new:
                yield from _upwards(new, path, "memory.max", "memory.current")


def _upwards(mount: str, path: str, limit: str, usage: str) -> Iterator[tuple[int, int]]:
    while path not in ("", "/"):
        with contextlib.suppress(OSError, ValueError):  # without the controller there is no file; "max" is no limit
            yield int(read_file(f"{mount}{path}/{limit}")), int(read_file(f"{mount}{path}/{usage}"))
        path = path.rpartition("/")[0]


def _sum(pattern: re.Pattern[bytes], text: bytes) -> int:
    return sum(map(int, pattern.findall(text)))
