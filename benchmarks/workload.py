"""Start the jobs that are measured, and have them prove that they are what they were."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.processes import TIMEOUT_S, BenchmarkError, name_of, run_command, wait_gone, wait_readable

SOURCES = Path(__file__).parent / "workloads"
WROTE = "wrote\n"
LOOK_EVERY_S = 0.005


@dataclass(frozen=True, slots=True)
class Job:
    """A running workload."""

    case: Case
    pid: int
    answer: Path
    """Where it writes its answer when asked."""
    cgroup: Path


def build(directory: Path) -> list[str]:
    """Return the command that starts the workload: compiled where there is a compiler, else Python."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return [sys.executable, str(SOURCES / "job.py")]
    program = directory / "job"
    run_command([compiler, "-O2", "-pthread", "-o", str(program), str(SOURCES / "job.c")], directory / "build.log")
    return [str(program)]


def start(command: list[str], case: Case, directory: Path, cgroup: Path) -> Job:
    """Start a workload in a session and a cgroup of its own, and wait until it is complete."""
    answer = directory / "answer"
    theirs, ours = -1, -1
    try:
        ours, theirs = os.pipe()
        os.set_inheritable(theirs, True)
        pid = os.posix_spawn(
            command[0],
            [*command, case.kind, str(case.size), str(theirs), str(answer), str(cgroup / "cgroup.procs")],
            {"PATH": os.defpath},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsid=True,
        )
        os.close(theirs)
        theirs = -1
        if not wait_readable(ours):
            raise BenchmarkError(f"the workload of {case.name} did not become ready in time")
        if os.read(ours, 1) != b"r":
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            raise BenchmarkError(f"the workload of {case.name} ended with {code} before it was ready")
    finally:
        for fd in (ours, theirs):
            if fd >= 0:
                os.close(fd)
    return Job(case, pid, answer, cgroup)


def write_again(job: Job) -> None:
    """Have a job of the kind mem write its first 16 MiB again, and wait until it has."""
    job.answer.unlink(missing_ok=True)
    os.kill(job.pid, signal.SIGUSR2)
    until = time.monotonic() + TIMEOUT_S
    while not job.answer.exists() or job.answer.read_text() != WROTE:
        if not name_of(job.pid):
            raise BenchmarkError(f"process {job.pid} of {job.case.name} ended rather than write")
        if time.monotonic() > until:
            raise BenchmarkError(f"process {job.pid} of {job.case.name} did not write in time")
        time.sleep(LOOK_EVERY_S)


def prove(job: Job, pid: int) -> float:
    """Ask a job to check itself, wait for its end, and return the longest gap it felt, in microseconds.

    ``pid`` is the root's as seen from here, which after a restore need not be the one it sees itself.
    """
    job.answer.unlink(missing_ok=True)
    try:
        os.kill(pid, signal.SIGUSR1)
    except ProcessLookupError as err:
        raise BenchmarkError(f"process {pid} of {job.case.name} does not run") from err
    wait_gone(pid)
    return parse_answer(job.answer.read_text() if job.answer.exists() else how_ended(pid))


def how_ended(pid: int) -> str:
    """Tell how a child ended, and leave it to be reaped; empty if it is not ours to know."""
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ""
    if ended is None:
        return ""
    return f"status {ended.si_status}" if ended.si_code == os.CLD_EXITED else f"signal {ended.si_status}"


def parse_answer(text: str) -> float:
    """Return the gap of an "ok GAP_US" answer; raise BenchmarkError for any other."""
    match text.split():
        case ["ok", gap_us]:
            return float(gap_us)
        case ["bad", _]:
            raise BenchmarkError("the job found its own state damaged")
        case ["status" | "signal", _]:
            raise BenchmarkError(f"the job ended with {text}, without an answer")
        case _:
            raise BenchmarkError("the job ended without an answer")
