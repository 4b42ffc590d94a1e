"""What must not be there after a test: processes, cgroups, mounts, files, shared memory segments."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import cgroups
from harness.descendants import describe, kill_all, wait_until_childless

TEMPORARY = (Path("/tmp"), Path("/dev/shm"), Path("/run"), Path("/run/orch"), Path("/run/orch/jobs"), Path("/var/tmp"))
ALONE = "ORCH_TESTS_ALONE"
"""Set where nothing else uses orch at the same time: then what is new and bears orch's name counts too.

What does not bear the test's own name is reported and never touched: it may be somebody's running job."""

_libc = ctypes.CDLL(None, use_errno=True)
IPC_RMID = 0


def _mounts() -> set[str]:
    return {line.split(" ", 2)[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def _files() -> set[Path]:
    found: set[Path] = set()
    for directory in TEMPORARY:
        with contextlib.suppress(OSError):
            found.update(directory.iterdir())
    return found


def _segments() -> set[int]:
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {int(line.split()[1]) for line in lines}


@dataclass(frozen=True, slots=True)
class Before:
    """What was there before the test began."""

    job: str
    cgroups: frozenset[Path]
    mounts: frozenset[str]
    files: frozenset[Path]
    segments: frozenset[int]

    @classmethod
    def look(cls, job: str) -> Before:
        return cls(
            job,
            frozenset(cgroups.all_cgroups()),
            frozenset(_mounts()),
            frozenset(_files()),
            frozenset(_segments()),
        )

    def ours(self, name: str) -> bool:
        """Tell whether an object bears this test's name."""
        return self.job in name

    def counts(self, name: str) -> bool:
        """Tell whether a new object counts against this test."""
        return self.ours(name) or ("orch" in name and bool(os.environ.get(ALONE)))

    def clear(self, seconds: float = 5) -> list[str]:
        """Remove everything that is left, and say what it was."""
        found = [f"process {describe(pid)}" for pid in wait_until_childless(seconds)]
        found += [f"process {pid}, which cannot be killed" for pid in self._kill()]
        for path in sorted(cgroups.all_cgroups() - self.cgroups, key=lambda path: -len(path.parts)):
            if self.counts(str(path)) and not self._lasting(path):
                found.append(f"cgroup {path}{' (frozen)' if cgroups.frozen(path) else ''}")
                if self.ours(str(path)):
                    cgroups.remove(path)
        for mount in sorted(_mounts() - self.mounts):
            if self.counts(mount):
                found.append(f"mount {mount}")
                if self.ours(mount):
                    _libc.umount2(os.fsencode(mount.split()[2]), 2)
        for path in sorted(_files() - self.files):
            if self.counts(path.name) and not self._lasting(path):
                found.append(f"file {path}")
                with contextlib.suppress(OSError):
                    if not self.ours(path.name):
                        continue
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for segment in sorted(_segments() - self.segments):
            # Segments bear no name.
            if os.environ.get(ALONE):
                found.append(f"shared memory segment {segment}")
                _libc.shmctl(segment, IPC_RMID, None)
        return found

    @staticmethod
    def _lasting(path: Path) -> bool:
        """Tell orch's own lasting directories from what belongs to one job."""
        return path.name in {"orch", "orch.slice", "jobs"}

    def _kill(self) -> list[int]:
        for path in cgroups.of_job(self.job):
            if cgroups.frozen(path):
                for name, value in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
                    with contextlib.suppress(OSError):
                        (path / name).write_text(value)
        return kill_all()
