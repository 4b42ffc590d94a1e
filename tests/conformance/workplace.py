"""Where one test runs: a directory that looks like the suite's, and a cgroup. Nothing of either is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from conformance.checkout import Checkout, Test
from harness import cgroups
from harness.descendants import descendants, kill_all

MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Workplace:
    """A directory within the checkout, and two cgroups: the job's, and one for whoever helps the test from outside."""

    label: str
    top: Path
    group: str

    @classmethod
    def make(cls, checkout: Checkout, test: Test, label: str) -> Self:
        """Lay out the directories as hooks expect them, with copies of the test's own files."""
        # Short, as addresses of Unix sockets are; hooks look for modules in ../lib, seen from the directory above zdtm.
        top = checkout.path / label
        top.mkdir()
        place = cls(label, top, test.group)
        top.chmod(0o755)
        place.files.mkdir(parents=True)
        place.files.chmod(0o777)
        place.images.mkdir()
        for library in test.path.parent.glob("*.so"):
            (place.files / library.name).symlink_to(library)
        for program in filter(None, (test.path, test.hook)):
            shutil.copy2(program, place.files / program.name)
        for cgroup in (place.job, place.helpers):
            cgroup.mkdir()
        return place

    @property
    def files(self) -> Path:
        """The test's working directory."""
        return self.top / "zdtm" / self.group

    @property
    def images(self) -> Path:
        return self.top / "images"

    @property
    def job(self) -> Path:
        return cgroups.unified() / self.label

    @property
    def helpers(self) -> Path:
        return cgroups.unified() / f"{self.label}-helpers"

    def put_in_job(self) -> None:
        """Move the calling process into the job's cgroup."""
        (self.job / "cgroup.procs").write_text("0")

    def send_outsiders_away(self, root: int) -> None:
        """Leave in the job's cgroup what descends from its root; who helps the test from outside is not saved."""
        while outside := sorted({*cgroups.pids_of(self.job)} - {root, *descendants(root)}):
            for pid in outside:
                with contextlib.suppress(ProcessLookupError):
                    (self.helpers / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Kill what is left, unmount what is mounted below, and remove all of it."""
        for cgroup in cgroups.of_job(self.label):
            cgroups.remove(cgroup)
        kill_all()
        for cgroup in cgroups.of_job(self.label):
            cgroups.remove(cgroup)
        self.remove_files()

    def remove_files(self) -> None:
        """Remove the directory, and never what is mounted in it."""
        below = f"{os.path.realpath(self.top)}/"
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split()[4]
            if point.startswith(below):
                _libc.umount2(os.fsencode(point), MNT_DETACH)
        shutil.rmtree(self.top, ignore_errors=True)


def clean_after(checkout: Checkout, label: str) -> None:
    """Remove what a trial has left that was killed."""
    for cgroup in cgroups.of_job(label):
        cgroups.remove(cgroup)
    Workplace(label, checkout.path / label, "").remove_files()
