"""The two systems that are measured, behind one face."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.cases import Samples
from benchmarks.processes import BenchmarkError, children, descendants, name_of, peak_memory, run_command
from benchmarks.workload import Job

_PAGERS = ("orch-pager", "orch-keeper")
_LOOK_EVERY = 0.02


class Engine(Protocol):
    """A system that checkpoints and restores a job."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    def version(self) -> str:
        """Say its name and version."""

    def checkpoint(self, job: Job, directory: Path, *, kill: bool) -> Samples:
        """Write the job's image below ``directory``; the job goes on, or ends."""

    def restore(self, directory: Path) -> tuple[int, Samples]:
        """Bring the job back from ``directory``; return the root's PID as seen from here."""

    def restore_lazily(self, directory: Path) -> tuple[int, Samples] | None:
        """Bring the job back before its memory is there, and wait for that; None if this system is not asked to."""

    def show(self, directory: Path) -> Samples:
        """Look at the image, if this system has a command for it."""


@dataclass(frozen=True, slots=True)
class Orch:
    """orch, through its command line."""

    command: Sequence[str]
    name: str = "orch"

    def version(self) -> str:
        """Say its version."""
        return first_line([*self.command, "--version"])

    def checkpoint(self, job: Job, directory: Path, *, kill: bool) -> Samples:
        """Checkpoint the job's cgroup."""
        return self._checkpoint(job, directory / "job.ckpt", ["--kill"] if kill else [])

    def track(self, job: Job, directory: Path) -> None:
        """Checkpoint the job's cgroup, and have its writes noted from there on."""
        self._checkpoint(job, directory / "parent.ckpt", ["--track"])

    def checkpoint_delta(self, job: Job, directory: Path) -> Samples:
        """Checkpoint what the job has written since; this is what a restore brings back then."""
        took = self._checkpoint(job, directory / "job.ckpt", ["--parent", str(directory / "parent.ckpt")])
        return {"delta_frozen_us": took["frozen_us"], "delta_image_bytes": took["image_bytes"]}

    def _checkpoint(self, job: Job, image: Path, options: Sequence[str]) -> Samples:
        stats = image.with_suffix(".json")
        argv = [*self.command, "checkpoint", "--cgroup", str(job.cgroup), "-o", str(image), "--stats", str(stats)]
        argv.append("--no-sync")  # as CRIU, which does not wait for the disk either
        finished = run_command([*argv, *options], image.with_suffix(".log"))
        told = parse_json_stats(stats.read_text())
        keys = ("freezing_us", "frozen_us", "memwrite_us", "pages_written")
        return {
            **{key: told[key] for key in keys if key in told},
            "image_bytes": image.stat().st_size,
            "checkpoint_wall_us": finished.wall_us,
            "checkpoint_rss_bytes": finished.max_rss_bytes,
        }

    def restore(self, directory: Path) -> tuple[int, Samples]:
        """Restore in the background, in a PID namespace of its own."""
        stats, pidfile = directory / "restore.json", directory / "restore.pid"
        argv = [*self.command, "restore", str(directory / "job.ckpt"), "-d"]
        finished = run_command([*argv, "--pidfile", str(pidfile), "--stats", str(stats)], directory / "restore.log")
        restore_us = parse_json_stats(stats.read_text())["restore_us"]
        # The command has left a supervisor behind, which did the work.
        peaks = [peak_memory(pid) for pid in children(os.getpid())]
        return read_pid(pidfile), {
            "restore_us": restore_us,
            "restore_wall_us": finished.wall_us,
            "restore_start_us": finished.wall_us - restore_us,
            "restore_rss_bytes": max(finished.max_rss_bytes, *peaks),
        }

    def restore_lazily(self, directory: Path) -> tuple[int, Samples] | None:
        """Restore on demand."""
        stats, pidfile = directory / "lazy.json", directory / "lazy.pid"
        argv = [*self.command, "restore", str(directory / "job.ckpt"), "-d", "--lazy"]
        run_command([*argv, "--pidfile", str(pidfile), "--stats", str(stats)], directory / "lazy.log")
        began = time.monotonic()
        peaks = [0]
        while found := [peak_memory(pid) for pid in descendants(os.getpid()) if name_of(pid) in _PAGERS]:
            peaks += found
            time.sleep(_LOOK_EVERY)
        return read_pid(pidfile), {
            "lazy_us": parse_json_stats(stats.read_text())["restore_us"],
            "lazy_filled_us": (time.monotonic() - began) * 1e6,
            "lazy_rss_bytes": max(peaks),
        }

    def show(self, directory: Path) -> Samples:
        """Time ``orch show``."""
        argv = [*self.command, "show", str(directory / "job.ckpt")]
        return {"show_wall_us": run_command(argv, directory / "show.log").wall_us}


@dataclass(frozen=True, slots=True)
class Criu:
    """CRIU, through its command line."""

    program: str
    name: str = "CRIU"

    def version(self) -> str:
        """Say its version."""
        return first_line([self.program, "--version"]).replace("Version: ", "CRIU ")

    def checkpoint(self, job: Job, directory: Path, *, kill: bool) -> Samples:
        """Dump the job's tree."""
        argv = [self.program, "dump", "-t", str(job.pid), "-D", str(directory), "-o", "dump.log"]
        argv += ["--manage-cgroups=ignore", "--display-stats"]
        log = directory / "dump.out"
        finished = run_command(argv if kill else [*argv, "--leave-running"], log)
        told = parse_criu_stats(log.read_text())
        return {
            "freezing_us": told["Freezing time"],
            # CRIU counts the two apart; here, as for orch, the freezing is part of it.
            "frozen_us": told["Freezing time"] + told["Frozen time"],
            "memwrite_us": told["Memory write time"],
            "pages_written": told["Memory pages written"],
            "image_bytes": sum(file.stat().st_size for file in directory.glob("*.img")),
            "checkpoint_wall_us": finished.wall_us,
            "checkpoint_rss_bytes": finished.max_rss_bytes,
        }

    def restore(self, directory: Path) -> tuple[int, Samples]:
        """Restore in the background, with the PIDs that the job had."""
        pidfile, log = directory / "restore.pid", directory / "restore.out"
        argv = [self.program, "restore", "-d", "-D", str(directory), "-o", "restore.log", "--pidfile", str(pidfile)]
        finished = run_command([*argv, "--manage-cgroups=ignore", "--display-stats"], log)
        restore_us = parse_criu_stats(log.read_text())["Restore time"]
        return read_pid(pidfile), {
            "restore_us": restore_us,
            "restore_wall_us": finished.wall_us,
            "restore_start_us": finished.wall_us - restore_us,
            "restore_rss_bytes": finished.max_rss_bytes,
        }

    def restore_lazily(self, directory: Path) -> tuple[int, Samples] | None:  # noqa: ARG002 - part of the face
        """Take no figure: its server of pages is a separate command that must be looked after."""
        return None

    def show(self, directory: Path) -> Samples:  # noqa: ARG002 - part of the face
        """Take no figure: CRIU's own viewer is a separate tool."""
        return {}


def parse_criu_stats(text: str) -> Samples:
    """Read the numbers that ``--display-stats`` prints, by their titles."""
    return {title: float(number) for title, number in re.findall(r"^([A-Z][\w ]+): (\d+)", text, re.MULTILINE)}


def parse_json_stats(text: str) -> Samples:
    """Read the numbers of a ``--stats`` file; other values are passed over."""
    told = json.loads(text)
    return {key: float(value) for key, value in told.items() if isinstance(value, int | float)}


def read_pid(pidfile: Path) -> int:
    """Read the PID of a pidfile."""
    try:
        return int(pidfile.read_text())
    except (OSError, ValueError) as err:
        raise BenchmarkError(f"no PID in the pidfile {pidfile.name}") from err


def first_line(argv: Sequence[str]) -> str:
    """Return the first line that a command prints."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as err:
        raise BenchmarkError(f"cannot run {argv[0]}: {err}") from err
    return (done.stdout.splitlines() or [""])[0].strip()
