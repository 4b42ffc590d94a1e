"""A self-checking program.

It sets its state up, makes the file ``ready``, blocks until it may go on, checks that all is as it
was, and writes PASS, or FAIL and why, to the file ``result``. It waits in open(2) of the FIFO
``go``, which returns when somebody has the FIFO open for writing: no descriptor of the job leads
outside meanwhile, and the wait is restarted wherever it is interrupted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from harness import cgroups
from harness.compiler import PROGRAMS, compiled
from harness.descendants import describe
from harness.files_appear import wait_for_file
from harness.job import Job
from harness.kept_files import KeptFiles


@dataclass(frozen=True, slots=True)
class Program:
    """One program of tests/kernel/programs, by name, and how it wants to be run."""

    name: str
    arguments: tuple[str, ...] = ()
    run_options: tuple[str, ...] = ()
    checkpoint_options: tuple[str, ...] = ()
    seconds: float = 20

    @property
    def id(self) -> str:
        return "-".join((self.name, *self.arguments))

    def command(self, directory: Path) -> list[str]:
        script = PROGRAMS / f"{self.name}.py"
        start = ["/usr/bin/python3", str(script)] if script.exists() else [str(compiled(self.name))]
        return [*start, str(directory), *self.arguments]


@dataclass(slots=True)
class Run:
    """A program within a job, or without one (``plain``)."""

    program: Program
    job: Job
    run_options: list[str] = field(default_factory=list)
    _go: int = -1
    _kept: KeptFiles | None = None

    @property
    def _fifo(self) -> Path:
        return self.job.files / "go"

    @property
    def _ready(self) -> Path:
        return self.job.files / "ready"

    @property
    def _result(self) -> Path:
        return self.job.files / "result"

    def _prepare(self) -> list[str]:
        os.mkfifo(self._fifo)
        self._fifo.chmod(0o666)
        self.job.checkpoint_options = [*self.program.checkpoint_options]
        self.job.run_options = [*self.program.run_options, *self.run_options]
        return self.program.command(self.job.files)

    def start(self) -> None:
        """Run the program as a job, up to the point where it is ready."""
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """Run the program as a job."""
        self.job.run(self._prepare())

    def start_plain(self) -> None:
        """Run the program without orch, up to the point where it is ready."""
        command = self._prepare()
        log = str(self.job.directory / "logs" / "plain.out")
        os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the program has set itself up."""
        if not wait_for_file(self._ready, self.program.seconds, unless_gone=self.job.processes):
            self.say_why("did not get ready")
        if self._result.exists():
            self.say_why(self._result.read_text().strip())
        self._kept = KeptFiles.of([*self.job.files.rglob("*"), *self.job.shared_memory_files()])

    def let_go(self) -> None:
        """Let the program go on to its checks."""
        self._go = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def hold_back(self) -> None:
        """Take back let_go, for a program that could not see it."""
        os.close(self._go)
        self._go = -1

    def must_pass(self) -> None:
        """Let the program check itself; it must write PASS and end."""
        self.let_go()
        try:
            if not wait_for_file(self._result, self.program.seconds, unless_gone=self.job.processes):
                self.say_why("gave no verdict")
            verdict = self._result.read_text().strip()
            if verdict != "PASS":
                self.say_why(verdict)
            self.job.wait_until_over()
        finally:
            os.close(self._go)
            self._go = -1

    def back_to_checkpoint(self) -> None:
        """Put the files back to what they were when the program was ready."""
        assert self._kept is not None
        self._result.unlink(missing_ok=True)
        self._kept.put_back()

    def say_why(self, what: str) -> None:
        if self._result.exists():
            what = self._result.read_text().strip()
        plain = self.job.directory / "logs" / "plain.out"
        printed = plain.read_text(errors="replace") if plain.exists() else ""
        alive = "\n".join(describe(pid) for pid in self.job.processes()) or "none"
        alive += "".join(f"\n{cgroup} is frozen" for cgroup in cgroups.of_job(self.job.name) if cgroups.frozen(cgroup))
        raise AssertionError(
            f"{self.program.id}: {what}\nprocesses alive:\n{alive}\n{printed}{self.job.orch.transcript()}"
        )
