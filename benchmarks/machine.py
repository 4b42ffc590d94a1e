"""Describe the machine that the figures come from, without naming it."""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Iterator
from pathlib import Path

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SPARE = 2000
_SPARE_BYTES = 1 << 30
_THREAD_BYTES = 64 << 10


def describe(directory: Path) -> dict[str, str]:
    """Say what matters for the figures; ``directory`` is where the images go."""
    return {
        "processor": parse_cpu(Path("/proc/cpuinfo").read_text()) or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "kernel": f"Linux {parse_release(platform.release())} {platform.machine()}",
        "transparent huge pages": huge_pages() or "none",
        "image file system": filesystem_of(directory, Path("/proc/self/mountinfo").read_text()),
        "Python": platform.python_version(),
    }


def huge_pages() -> str:
    """Say who has transparent huge pages: always, madvise or never; empty if the kernel knows none."""
    return parse_choice(_HUGE_PAGES.read_text()) if _HUGE_PAGES.exists() else ""


def most_threads(wanted: int) -> tuple[int, str]:
    """Return how many threads one process may have here, up to ``wanted``, and which limit says so."""
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    rooms = {
        "kernel.threads-max": _number("/proc/sys/kernel/threads-max") // 2,
        "kernel.pid_max": _number("/proc/sys/kernel/pid_max") - _SPARE,
        # a stack and its guard for each
        "vm.max_map_count": (_number("/proc/sys/vm/max_map_count") - _SPARE) // 2,
        "ulimit -u": wanted if soft == resource.RLIM_INFINITY else soft - _SPARE,
        "pids.max": min([limit - usage for limit, usage in _task_limits()], default=wanted),
        "memory": _available() // _THREAD_BYTES,
    }
    name = min(rooms, key=lambda name: rooms[name])
    return (wanted, "") if rooms[name] >= wanted else (max(rooms[name], 1), name)


def room_for(mib: int, directory: Path) -> str:
    """Say what is missing to measure a job with so much memory; empty if nothing is."""
    needed = mib << 20
    if _available() < needed * 3 // 2 + _SPARE_BYTES:
        return "memory"
    room = os.statvfs(directory)
    return "disk" if room.f_bavail * room.f_frsize < needed * 5 // 4 else ""


def _available() -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _number(path: str) -> int:
    return int(Path(path).read_text())


def _task_limits() -> Iterator[tuple[int, int]]:
    """Yield (limit, usage) of the cgroups that bound the number of our tasks."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = [Path("/sys/fs/cgroup/pids")] if "pids" in controllers.split(",") else []
        if not controllers:
            mounts = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
        for mount in mounts:
            place = mount / path.lstrip("/")
            for below in (place, *place.parents):
                try:
                    yield int((below / "pids.max").read_text()), int((below / "pids.current").read_text())
                except (OSError, ValueError):  # none here, or "max"
                    continue


def parse_cpu(text: str) -> str:
    """Find the processor's name in the text of /proc/cpuinfo."""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def parse_release(release: str) -> str:
    """Cut a kernel release to its numbers; what follows names its builder."""
    found = re.match(r"\d+(\.\d+)*", release)
    return found[0] if found else release


def parse_choice(text: str) -> str:
    """Find the value in brackets."""
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else text.strip()


def filesystem_of(directory: Path, mountinfo: str) -> str:
    """Find the type of the file system that holds a directory."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return "unknown"
