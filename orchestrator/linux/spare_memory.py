"""How much memory there is to spare: of the machine, and of the cgroups that somebody is in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount
from orchestrator.linux.proc_misc import cgroup_of
from orchestrator.linux.procfs import read_file

_AVAILABLE = re.compile(rb"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


def spare_bytes(pids: Sequence[int]) -> int:
    """Say how much more memory the machine can take, and the cgroups of the first of some processes."""
    least = sum(map(int, _AVAILABLE.findall(read_file("/proc/meminfo")))) * 1024
    for pid in pids[:1]:
        for limit, usage in _limits(pid):
            least = min(least, limit - usage)
    return max(least, 0)


def _limits(pid: int) -> Iterator[tuple[int, int]]:
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
