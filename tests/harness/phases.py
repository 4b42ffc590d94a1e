"""Programs of several phases, each followed by a checkpoint: see programs/phases.h."""

from __future__ import annotations

import os
from pathlib import Path

from harness.files_appear import wait_for_file
from harness.kept_files import KeptFiles
from harness.program import Run

PHASES = 3
"""How many the programs have; behind the last they are ready."""


class Phased:
    """A program that goes from phase to phase."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.job = run.job
        self._kept: dict[int, KeptFiles] = {}

    def image(self, number: int) -> Path:
        return self.job.image.with_name(f"{self.job.name}.{number}.ckpt" if number else f"{self.job.name}.ckpt")

    def start(self) -> None:
        """Run the program up to the end of its first phase."""
        for number in range(1, PHASES + 1):
            os.mkfifo(self._fifo(number))
            self._fifo(number).chmod(0o666)
        self.run.begin()
        self._await(1)

    def next(self, number: int) -> None:
        """Let the program go from the end of a phase to that of the next."""
        fd = os.open(self._fifo(number), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if number == PHASES:
                self.run.wait_until_ready()
            else:
                self._await(number + 1)
        finally:
            os.close(fd)

    def keep_files(self, number: int) -> None:
        """Remember the files as they are at a checkpoint."""
        self._kept[number] = KeptFiles.of([*self.job.files.rglob("*")])

    def back_to(self, number: int) -> None:
        """Put the files back to what they were then."""
        for name in ("result", "ready", *(f"over.{later}" for later in range(number + 2, PHASES + 1))):
            (self.job.files / name).unlink(missing_ok=True)
        self._kept[number].put_back()

    def _fifo(self, number: int) -> Path:
        return self.job.files / f"phase.{number}"

    def _await(self, number: int) -> None:
        if not wait_for_file(self.job.files / f"over.{number}", 20, unless_gone=self.job.processes):
            self.run.say_why(f"did not come to the end of phase {number}")
