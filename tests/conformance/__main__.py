"""``python -m conformance CHECKOUT``: CRIU's own tests, saved and restored by orch.

CHECKOUT is a checkout of CRIU. Its tests are built there and run on the host, each in a cgroup of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from conformance import report
from conformance.applies import Applicability
from conformance.checkout import Checkout, CheckoutError, Test
from conformance.hierarchies import suite_hierarchies
from conformance.outcome import Outcome
from conformance.workplace import clean_after
from harness.descendants import become_subreaper, kill_all
from harness.hugepages import huge_pages

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "conformance.md"
TRIAL_SECONDS = 240

_numbers = itertools.count(1)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("checkout", type=Path, help="the top directory of a checkout of CRIU")
    parser.add_argument("-t", "--test", metavar="REGEX", help="only tests whose whole name matches, as static/env00")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many tests run at a time (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes there too")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="the page to write; a full run writes the project's own"
    )
    parser.add_argument("--no-build", action="store_true", help="take the tests as they are built")
    parser.add_argument("-v", "--verbose", action="store_true", help="print what orch and the tests said")
    options = parser.parse_args(arguments)
    if options.page is None and options.test is None:
        options.page = PAGE
    return options


def _run(checkout: Checkout, test: Test) -> Outcome:
    """Run one trial in a process of its own, and clean up after one that hangs."""
    label = f"zdtm{os.getpid()}-{next(_numbers)}"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "conformance.trial", str(checkout.path), test.name, label],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        said, errors = process.communicate(timeout=TRIAL_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=30)
        process.kill()
        process.communicate()
        clean_after(checkout, label)
        return Outcome(test.name, "failed", "the trial takes too long")
    if process.returncode != 0:
        clean_after(checkout, label)
        return Outcome(test.name, "failed", "the runner itself fails", errors)
    return Outcome.from_json(said)


def _run_all(checkout: Checkout, tests: Sequence[Test], jobs: int, done: Callable[[Outcome], None]) -> None:
    """Run many tests, those that want to be alone at the end."""
    together = [test for test in tests if not test.description.alone]
    wanted = any("cgroup" in test.name for test in tests)
    with suite_hierarchies(checkout) if wanted else contextlib.nullcontext():
        with ThreadPoolExecutor(jobs) as pool:
            for outcome in pool.map(lambda test: _run(checkout, test), together):
                done(outcome)
        for test in tests:
            if test.description.alone:
                done(_run(checkout, test))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; return 0 if nothing failed."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    become_subreaper()
    try:
        checkout = Checkout(options.checkout.resolve())
        if not options.no_build:
            checkout.build(Path(tempfile.gettempdir()) / f"conformance-build-{os.getpid()}.log", options.jobs)
        wanted = re.compile(options.test or ".*")
        tests = [test for test in checkout.tests() if wanted.fullmatch(test.name)]
    except CheckoutError as error:
        print(error, file=sys.stderr)
        return 2
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        report.print_outcome(outcome, verbose=options.verbose)

    applicability = Applicability(checkout)
    to_run = []
    for test in tests:
        why_not = applicability.why_not(test)
        if why_not is None:
            to_run.append(test)
        else:
            outcomes.append(Outcome(test.name, "not applicable", why_not))
    try:
        with huge_pages():
            _run_all(checkout, to_run, options.jobs, done)
    finally:
        kill_all()
        outcomes.sort(key=lambda outcome: outcome.test)
        if options.json is not None:
            options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
        if options.page is not None:
            options.page.write_text(report.page(outcomes))
        print(report.summary(outcomes))
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
