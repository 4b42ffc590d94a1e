"""Take the figures: interleaved, so that a machine that slows down slows both systems."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks import cgroup, machine
from benchmarks.cases import Case, Samples
from benchmarks.engines import Engine, Orch
from benchmarks.processes import (
    BenchmarkError,
    descendants,
    end_everything_below,
    memory_of,
    reap,
    run_command,
)
from benchmarks.workload import Job, prove, start, write_again


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Say, of whatever goes wrong or takes too long within, in which part of a trial that was."""
    try:
        yield
    except BenchmarkError as err:
        raise BenchmarkError(f"{name}: {err}") from err


def look_at_memory(case: Case, root: int, when: Literal["before", "after"]) -> Samples:
    """Look at what must be the same after a restore: how much is shared, or is in huge pages."""
    match case.kind:
        case "forked":
            return {f"pss_{when}_bytes": memory_of([root, *descendants(root)], "Pss")}
        case "huge":
            return {f"huge_{when}_bytes": memory_of([root], "AnonHugePages")}
    return {}


@dataclass(slots=True)
class Outcome:
    """All figures of one case."""

    case: Case
    samples: dict[str, list[Samples]] = field(default_factory=dict)
    """By the name of the system, one entry a repetition."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why a system has no figures, or fewer; by its name."""
    notes: list[str] = field(default_factory=list)
    """What else is to be said of it."""

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
        self,
        case: Case,
        engines: Sequence[Engine],
        repetitions: int,
        progress: Callable[[str], None],
        *,
        brief: bool = False,
    ) -> Outcome:
        """Measure every system on one case, taking turns; one that fails is not tried again.

        With ``brief`` only a checkpoint of a job that goes on, and its restore.
        """
        fitted, notes = self._fitted(case)
        if fitted is None:
            return Outcome(case, notes=notes)
        outcome = Outcome(fitted, notes=notes)
        for turn in range(repetitions):
            for engine in engines if turn % 2 == 0 else reversed(engines):
                progress(f"{case.name}: {engine.name} {turn + 1}/{repetitions}")
                if engine.name in outcome.failures:
                    continue
                try:
                    sample = self._trial(outcome.case, engine, brief=brief)
                except BenchmarkError as err:
                    outcome.failures[engine.name] = str(err)
                else:
                    outcome.samples.setdefault(engine.name, []).append(sample)
        return outcome

    def _trial(self, case: Case, engine: Engine, *, brief: bool = False) -> Samples:
        """Checkpoint a job that goes on, bring it back from that image, and checkpoint another that ends."""
        with self._job(case) as (job, directory):
            before = look_at_memory(case, job.pid, "before")
            with phase("checkpoint, job goes on"):
                samples = engine.checkpoint(job, directory, kill=False)
            with phase("the job after its checkpoint"):
                samples["gap_us"] = prove(job, job.pid)
                reap()
            self._settle(case)
            with phase("restore"):
                root, restored = engine.restore(directory)
            after = look_at_memory(case, root, "after")
            with phase("the job after its restore"):
                prove(job, root)
                reap()
            samples |= restored | before | after
            if case.kind == "mem":
                samples |= self._lazily(case, engine, job, directory)
            if brief:
                return samples
            with phase("show"):
                samples |= engine.show(directory)
        with self._job(case) as (job, directory), phase("checkpoint, job ends"):
            killed = engine.checkpoint(job, directory, kill=True)
            reap()
            samples["kill_frozen_us"] = killed["frozen_us"]
            samples["kill_wall_us"] = killed["checkpoint_wall_us"]
        if case.delta and isinstance(engine, Orch):
            samples |= self._delta(case, engine)
        return samples

    def _delta(self, case: Case, orch: Orch) -> Samples:
        """Take a delta of another job behind writes, and bring the job back from it."""
        with self._job(case) as (job, directory):
            with phase("checkpoint that tracks"):
                orch.track(job, directory)
            with phase("writes"):
                write_again(job)
            self._settle(case)
            with phase("delta"):
                samples = orch.checkpoint_delta(job, directory)
            with phase("the job after its delta"):
                prove(job, job.pid)
                reap()
            with phase("restore from a delta"):
                root, _ = orch.restore(directory)
            with phase("the job after its restore from a delta"):
                prove(job, root)
                reap()
        return samples

    def _lazily(self, case: Case, engine: Engine, job: Job, directory: Path) -> Samples:
        """Bring a job back before its memory is there."""
        self._settle(case)
        with phase("restore on demand"):
            restored = engine.restore_lazily(directory)
        if restored is None:
            return {}
        root, samples = restored
        with phase("the job after its restore on demand"):
            prove(job, root)
            reap()
        return samples

    def _fitted(self, case: Case) -> tuple[Case | None, list[str]]:
        """Make a case as large as the machine allows, and say so; None if it allows none."""
        if case.kind == "threads":
            count, limit = machine.most_threads(case.size)
            if limit:
                note = f"{count:,} threads: {limit} of this machine allows no more."
                return dataclasses.replace(case, size=count, tasks=count + 1), [note]
        elif case.kind == "huge" and machine.huge_pages() in ("", "never"):
            return None, ["Not measured: this machine has no transparent huge pages."]
        elif case.mib and (missing := machine.room_for(case.mib, self.directory)):
            return None, [f"Not measured: this machine has too little {missing} left."]
        return case, []

    def _settle(self, case: Case) -> None:
        """Write back what earlier steps left dirty, and have memory at hand, so that no step pays for another."""
        os.sync()
        mib = case.mib * 5 // 4
        run_command([sys.executable, "-m", "benchmarks.warm", str(mib)], self.directory / "warm.log")

    @contextmanager
    def _job(self, case: Case) -> Iterator[tuple[Job, Path]]:
        """Start a job with a directory for its image; afterwards nothing of either is left."""
        with tempfile.TemporaryDirectory(prefix=f"{case.name}-", dir=self.directory) as name:
            home = Path(tempfile.mkdtemp(prefix="job-", dir=self.cgroups))
            try:
                with phase("start"):
                    job = start(self.command, case, Path(name), home)
                self._settle(case)
                yield job, Path(name)
            finally:
                end_everything_below()
                cgroup.remove(home)
                cgroup.remove_named(home.name)
