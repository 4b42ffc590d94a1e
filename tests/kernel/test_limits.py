"""Jobs as large as the machine allows: as many descriptors as a process may have, and unlinked files of any size.

ORCH_TESTS_GHOST_MIB says how much data an unlinked file holds here: 256 MiB, or 4096 with `make test-large`.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from harness.command import orch_argv
from harness.job import Job
from harness.program import Program, Run
from harness.ways import host_pids, live, own_namespaces, repeat, same

MOST = 20_000
"""What is enough to prove it, where the limit is higher."""
SPARE = 40
"""Numbers that a restore needs for itself, with some for the files that the program has mapped."""

GHOST_MIB = int(os.environ.get("ORCH_TESTS_GHOST_MIB", "256"))
ORCH_MIB = 100
"""Contents of files do not pass through orch: its own memory stays below this."""


def allowed(files: int) -> list[str]:
    """Return the command that starts another with a hard limit of open files."""
    return ["prlimit", f"--nofile={files}:{files}"]


def test_a_process_with_nearly_as_many_descriptors_as_it_may_have(job: Job) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    job.orch.under = allowed(min(hard, MOST))
    same(Run(Program("many_descriptors", (str(-SPARE),)), job))


@pytest.mark.parametrize("way", [same, live, repeat, host_pids, own_namespaces], ids=lambda way: way.__name__)
def test_processes_with_more_descriptors_than_one_may_have(job: Job, way: type) -> None:
    job.orch.under = allowed(1000)
    way(Run(Program("many_descriptors", (str(-SPARE), "4")), job))


def test_descriptors_that_no_restore_could_make_are_refused(job: Job) -> None:
    job.orch.under = allowed(1000)
    run = Run(Program("many_descriptors", ("-4",)), job)
    run.start()
    finished = job.orch.expect(20, "checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
    assert "993 descriptors" in finished.errors
    assert "and it is 1000" in finished.errors
    assert not job.image.exists()
    run.must_pass()


def test_a_restore_with_a_lower_limit_says_how_much_it_needs(job: Job) -> None:
    run = Run(Program("many_descriptors", ("800",)), job)
    run.start()
    job.checkpoint_and_kill()
    under, job.orch.under = job.orch.under, allowed(500)
    finished = job.orch.expect(45, "restore", str(job.image), "-d")
    assert "and the limit is 500" in finished.errors
    assert job.processes() == []
    job.orch.under = under
    job.restore()
    run.must_pass()


def peak_mib(pid: int) -> int:
    """Return the most memory that a process has had so far."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) >> 10 if found else 0


PEAK_OF = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize("place", ["disk", "tmpfs"])
def test_contents_of_large_unlinked_files_do_not_pass_through_orch(job: Job, place: str) -> None:
    directory = str(job.files) if place == "disk" else "/dev/shm"
    run = Run(Program("large_ghost", (str(GHOST_MIB), directory), seconds=60 + GHOST_MIB / 10), job)
    run.start()
    argv = [*orch_argv(), "checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill"]
    # Not our own child: its peak would begin with what we have, as we hand it our memory until it calls execve(2).
    told = subprocess.run(
        [sys.executable, "-c", PEAK_OF, *argv], stdout=subprocess.PIPE, env=job.orch.environment(), check=True
    )
    assert int(told.stdout.splitlines()[-1]) >> 10 < ORCH_MIB
    job.wait_until_over()
    assert GHOST_MIB << 20 < job.image.stat().st_size < GHOST_MIB + 16 << 20
    job.restore()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in job.processes()}
    peaks = [peak_mib(pid) for pid, command in commands.items() if b"restore" in command]
    assert peaks
    assert max(peaks) < ORCH_MIB
    run.must_pass()
