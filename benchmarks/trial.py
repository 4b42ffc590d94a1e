"""Take the figures: interleaved, so that a machine that slows down slows both systems."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import cgroup
from benchmarks.cases import Case, Samples
from benchmarks.engines import Engine
from benchmarks.processes import BenchmarkError, end_everything_below, reap, run_command
from benchmarks.workload import Job, prove, start


@dataclass(slots=True)
class Outcome:
    """All figures of one case."""

    case: Case
    samples: dict[str, list[Samples]] = field(default_factory=dict)
    """By the name of the system, one entry a repetition."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why a system has no figures, or fewer; by its name."""

    def values(self, engine: str, key: str) -> list[float]:
        """Return every repetition's figure of one measure."""
        return [sample[key] for sample in self.samples.get(engine, ()) if key in sample]


@dataclass(slots=True)
class Trials:
    """What all trials of a run have in common."""

    command: list[str]
    """Starts the workload."""
    directory: Path
    """Holds the images."""
    cgroups: Path

    def measure(
        self, case: Case, engines: Sequence[Engine], repetitions: int, progress: Callable[[str], None]
    ) -> Outcome:
        """Measure every system on one case, taking turns; one that fails is not tried again."""
        outcome = Outcome(case)
        for turn in range(repetitions):
            for engine in engines if turn % 2 == 0 else reversed(engines):
                progress(f"{case.name}: {engine.name} {turn + 1}/{repetitions}")
                if engine.name in outcome.failures:
                    continue
                try:
                    sample = self._trial(case, engine)
                except BenchmarkError as err:
                    outcome.failures[engine.name] = str(err)
                else:
                    outcome.samples.setdefault(engine.name, []).append(sample)
        return outcome

    def _trial(self, case: Case, engine: Engine) -> Samples:
        """Checkpoint a job that goes on, bring it back from that image, and checkpoint another that ends."""
        with self._job(case) as (job, directory):
            samples = engine.checkpoint(job, directory, kill=False)
            samples["gap_us"] = prove(job, job.pid)
            reap()
            self._settle(case)
            root, restored = engine.restore(directory)
            prove(job, root)
            reap()
            samples |= restored | engine.show(directory)
        with self._job(case) as (job, directory):
            killed = engine.checkpoint(job, directory, kill=True)
            reap()
            samples["kill_frozen_us"] = killed["frozen_us"]
            samples["kill_wall_us"] = killed["checkpoint_wall_us"]
        return samples

    def _settle(self, case: Case) -> None:
        """Write back what earlier steps left dirty, and have memory at hand, so that no step pays for another."""
        os.sync()
        mib = case.size * 5 // 4 if case.kind == "mem" else 0
        run_command([sys.executable, "-m", "benchmarks.warm", str(mib)], self.directory / "warm.log")

    @contextmanager
    def _job(self, case: Case) -> Iterator[tuple[Job, Path]]:
        """Start a job with a directory for its image; afterwards nothing of either is left."""
        with tempfile.TemporaryDirectory(prefix=f"{case.name}-", dir=self.directory) as name:
            home = Path(tempfile.mkdtemp(prefix="job-", dir=self.cgroups))
            try:
                job = start(self.command, case, Path(name), home)
                self._settle(case)
                yield job, Path(name)
            finally:
                end_everything_below()
                cgroup.remove(home)
                cgroup.remove_named(home.name)
