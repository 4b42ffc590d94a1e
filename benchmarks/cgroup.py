"""Make a cgroup for each measured job, below the one that this process is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import BenchmarkError


def parse_mountinfo(text: str) -> Path | None:
    """Find where cgroup2 is mounted in the text of /proc/self/mountinfo."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


def parse_own(text: str) -> str:
    """Find this process's cgroup2 path in the text of /proc/self/cgroup."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::").lstrip("/")
    return ""


@contextmanager
def parent() -> Iterator[Path]:
    """Hold an empty cgroup below our own; it and what is below it are removed at the end."""
    mount = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    if mount is None:
        raise BenchmarkError("no cgroup2 is mounted here")
    path = mount / parse_own(Path("/proc/self/cgroup").read_text()) / f"bench-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as err:
        raise BenchmarkError(f"cannot make a cgroup: {err.strerror}; run as root") from err
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """Remove a cgroup and those below it, all without processes."""
    if not path.exists():
        return
    for below in path.iterdir():
        if below.is_dir():
            remove(below)
    path.rmdir()


def remove_named(name: str) -> None:
    """Remove every cgroup of a name, wherever it is: a restored job's has the name, but another parent."""
    mount = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    if mount is not None:
        for path in sorted(mount.rglob(name)):
            remove(path)
