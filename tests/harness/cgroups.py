"""The cgroups a test may have left: cgroup2 and the v1 freezer."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path

from harness.deadline import Deadline
from harness.descendants import reap, wait_for_an_exit


@cache
def hierarchies() -> tuple[Path, ...]:
    """Return where cgroup2 and the v1 freezer are mounted, cgroup2 first."""
    unified: list[Path] = []
    freezer: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        fields = kind.split()
        if fields[0] == "cgroup2":
            unified.append(Path(mount.split()[4]))
        elif fields[0] == "cgroup" and "freezer" in fields[2].split(","):
            freezer.append(Path(mount.split()[4]))
    return tuple(unified[:1] + freezer[:1])


def unified() -> Path:
    """Return the cgroup2 mount."""
    return hierarchies()[0]


def all_cgroups() -> set[Path]:
    """List every cgroup of these hierarchies."""
    return {Path(top) for root in hierarchies() for top, _, _ in os.walk(root)}


def of_job(name: str) -> list[Path]:
    """List the cgroups named after a job, and those below them, deepest first; not that of who brings its memory."""
    found = [path for path in all_cgroups() if any(name in part for part in path.parts) and ":pager" not in path.name]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def frozen(cgroup: Path) -> bool:
    """Tell whether a cgroup is frozen or being frozen."""
    for name, value in (("cgroup.freeze", "1"), ("freezer.state", "FROZEN"), ("freezer.state", "FREEZING")):
        with contextlib.suppress(OSError):
            if (cgroup / name).read_text().strip() == value:
                return True
    return False


def pids_of(cgroup: Path) -> list[int]:
    """List the processes of a cgroup."""
    try:
        return [int(line) for line in (cgroup / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def remove(cgroup: Path, seconds: float = 5) -> None:
    """Thaw, empty by killing, and remove a cgroup that a test left."""
    for name, value in (("cgroup.freeze", "0"), ("freezer.state", "THAWED"), ("cgroup.kill", "1")):
        with contextlib.suppress(OSError):
            (cgroup / name).write_text(value)
    deadline = Deadline.after(seconds)
    while pids := pids_of(cgroup):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        reap()
        if deadline.passed:
            break
        wait_for_an_exit(pids_of(cgroup), deadline)
    with contextlib.suppress(OSError):
        cgroup.rmdir()
