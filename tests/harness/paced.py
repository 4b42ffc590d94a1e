"""Applications that work in rounds until they are told to stop, and say how far they have come.

They write the number of finished rounds to the file ``progress`` by rename, look for the file
``stop`` after each round, and then write what it came to, to ``result``.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.files_appear import wait_for_file, wait_until
from harness.job import Job


@dataclass(frozen=True, slots=True)
class Paced:
    """Such an application within a job."""

    job: Job
    seconds: float = 60

    def progress(self) -> int:
        try:
            return int((self.job.files / "progress").read_text())
        except FileNotFoundError:
            return 0

    def must_work_on(self, rounds: int = 2) -> int:
        """Wait until it has finished some rounds more than now."""
        aim = self.progress() + rounds
        there = wait_until(lambda: self.progress() >= aim, self.job.files, self.seconds, unless_gone=self.job.processes)
        if not there:
            raise AssertionError(f"stuck after round {self.progress()}\n{self.job.orch.transcript()}")
        return self.progress()

    def stop(self) -> list[str]:
        """Have it end, and return the words of its result."""
        (self.job.files / "stop").touch()
        if not wait_for_file(self.job.files / "result", self.seconds, unless_gone=self.job.processes):
            raise AssertionError(f"no result after round {self.progress()}\n{self.job.orch.transcript()}")
        self.job.wait_until_over()
        return (self.job.files / "result").read_text().split()
