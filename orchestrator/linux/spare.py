"""What there is to spare: memory of the machine, and what the cgroups allow that somebody is in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount
from orchestrator.linux.proc_misc import cgroup_of
from orchestrator.linux.procfs import read_file

_MOST_TASKS = 1 << 22
_AVAILABLE = re.compile(rb"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


def spare_bytes(pids: Sequence[int]) -> int:
    """Say how much more memory the machine can take, and the cgroups of the first of some processes."""
    least = sum(map(int, _AVAILABLE.findall(read_file("/proc/meminfo")))) * 1024
    return _least(
        least, pids, "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")
    )


def spare_tasks(pids: Sequence[int]) -> int:
    """Say how many more threads the cgroups of the first of some processes allow; 2**22, the most there are, if all."""
    files = ("pids.max", "pids.current")
    return _least(_MOST_TASKS, pids, "pids", files, files)


def _least(least: int, pids: Sequence[int], controller: str, old: tuple[str, str], new: tuple[str, str]) -> int:
    for pid in pids[:1]:
        for limit, usage in _limits(pid, controller, old, new):
            least = min(least, limit - usage)
    return max(least, 0)


def _limits(pid: int, controller: str, old: tuple[str, str], new: tuple[str, str]) -> Iterator[tuple[int, int]]:
    """Yield (limit, usage) of every cgroup that a process is in, by the names of these files in version 1 and 2."""
    with contextlib.suppress(OSError):
        cgroups = cgroup_of(pid)
        top, unified = cgroup1_mount(controller), cgroup2_mount()
        for controllers, path in cgroups.items():
            if controller in controllers.split(",") and top:
                yield from _upwards(top, path, *old)
            elif not controllers and unified:
                yield from _upwards(unified, path, *new)


def _upwards(mount: str, path: str, limit: str, usage: str) -> Iterator[tuple[int, int]]:
    while path not in ("", "/"):
        with contextlib.suppress(OSError, ValueError):  # without the controller there is no file; "max" is no limit
            yield int(read_file(f"{mount}{path}/{limit}")), int(read_file(f"{mount}{path}/{usage}"))
        path = path.rpartition("/")[0]
