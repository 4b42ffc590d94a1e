"""``python -m benchmarks [--criu PATH] [--case NAME ...]``: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks import cgroup, machine, report, workload
from benchmarks.bounds import Bounds
from benchmarks.cases import CASES, SCALINGS, case_named
from benchmarks.engines import Criu, Engine, Orch
from benchmarks.figures import Figure
from benchmarks.processes import (
    BenchmarkError,
    become_subreaper,
    end_everything_below,
    keep_descriptors,
    run_command,
)
from benchmarks.trial import Trials

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
START_UP_REPETITIONS = 15


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--criu", metavar="PATH", help="a criu program (4.2 or later) to compare with")
    parser.add_argument("--orch", metavar="PATH", help="the orch command; default: beside this Python, else on PATH")
    parser.add_argument("--without-orch", action="store_true", help="measure CRIU alone")
    parser.add_argument("--case", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions of each case; default: each case's own")
    parser.add_argument("--without-scaling", action="store_true", help="do not measure what grows with size")
    parser.add_argument("--without-bounds", action="store_true", help="do not measure memory and disk themselves")
    parser.add_argument("--dir", type=Path, help="where images go while measuring (up to 11 GiB); default: TMPDIR")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the page to write; default: docs/benchmarks.md for a full run"
    )
    chosen = parser.parse_args(arguments)
    if chosen.without_orch and chosen.criu is None:
        parser.error("--without-orch leaves nothing to measure without --criu")
    if chosen.repeat is not None and chosen.repeat < 1:
        parser.error("--repeat must be at least 1")
    full = chosen.case == names and not (chosen.without_orch or chosen.without_bounds or chosen.without_scaling)
    if chosen.output is None and full:
        chosen.output = PAGE
    return chosen


def find_orch(path: str | None) -> str:
    """Find the orch command: as named, beside this Python, or on PATH."""
    beside = Path(sys.executable).with_name("orch")
    found = path or (str(beside) if beside.exists() else shutil.which("orch"))
    if found is None:
        raise BenchmarkError("no orch command found; name it with --orch")
    return found


def measure(chosen: argparse.Namespace, directory: Path, cgroups: Path) -> report.Run:
    """Take all figures of a run."""
    engines: list[Engine] = []
    if not chosen.without_orch:
        engines.append(Orch([find_orch(chosen.orch)]))
    if chosen.criu is not None:
        engines.append(Criu(chosen.criu))
    trials = Trials(workload.build(directory), directory, cgroups)
    run = report.Run([engine.version() for engine in engines], machine.describe(directory), [])
    cases = [case_named(name) for name in chosen.case]
    scalings = [] if chosen.without_scaling or chosen.case != [case.name for case in CASES] else [*SCALINGS]
    growing = [case for scaling in scalings for case in scaling.cases]
    total = sum((chosen.repeat or case.repetitions) * len(engines) for case in [*cases, *growing])
    progress = Progress(total)
    if not chosen.without_bounds:
        progress.say("memory and disk")
        log = directory / "bounds.json"
        run_command([sys.executable, "-m", "benchmarks.bounds", str(directory)], log)
        run.bounds = Bounds.from_json(log.read_text())
    progress.say("start-up")
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    if not chosen.without_orch:
        commands["orch --help"] = [find_orch(chosen.orch), "--help"]
    if chosen.criu is not None:
        commands["criu --help"] = [chosen.criu, "--help"]
    for name, argv in commands.items():
        times = [run_command(argv, directory / "start.log").wall_us for _ in range(START_UP_REPETITIONS)]
        run.start_up[name] = Figure.of(times)
    for case in cases:
        run.outcomes.append(trials.measure(case, engines, chosen.repeat or case.repetitions, progress.step))
    for scaling in scalings:
        outcomes = [
            trials.measure(case, engines, chosen.repeat or case.repetitions, progress.step, brief=True)
            for case in scaling.cases
        ]
        run.scalings.append((scaling, outcomes))
    progress.end()
    return run


class Progress:
    """A bar on the terminal, and nothing elsewhere.

    Drawn by hand: rich would count in the peak memory of every command measured.
    """

    WIDTH = 30

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = -1
        self._shown = sys.stderr.isatty()

    def step(self, text: str) -> None:
        """Say what begins now; what began before is done."""
        self._done += 1
        self.say(text)

    def say(self, text: str) -> None:
        """Draw the bar with a text."""
        if self._shown:
            filled = self.WIDTH * max(self._done, 0) // self._total
            print(f"\r\x1b[K[{'#' * filled:<{self.WIDTH}}] {text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def leave(number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that everything is cleaned up."""
    raise SystemExit(128 + number)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit status is 1 if a figure could not be taken."""
    chosen = parse_arguments(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    become_subreaper()
    keep_descriptors()
    try:
        with cgroup.parent() as cgroups, tempfile.TemporaryDirectory(prefix="bench-", dir=chosen.dir) as directory:
            try:
                run = measure(chosen, Path(directory), cgroups)
            finally:
                end_everything_below()
    except BenchmarkError as err:
        print(f"benchmarks: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report.print_terminal(run)
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        place = chosen.output.with_suffix("")
        place.mkdir(exist_ok=True)
        for name, picture in report.pictures(run).items():
            (place / f"{name}.svg").write_text(picture)
        chosen.output.write_text(report.markdown(run, place.name))
        print(f"written to {chosen.output}, with pictures in {place}")
    measured = [*run.outcomes, *(outcome for _, outcomes in run.scalings for outcome in outcomes)]
    return 1 if any(outcome.failures for outcome in measured) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
