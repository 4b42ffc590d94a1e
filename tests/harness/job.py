"""One job under test: a directory of its own, a name of its own, and what is done to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.command import CommandFailed, Finished, Orch
from harness.descendants import descendants, describe, kill_all, reap, wait_until_childless

_numbers = itertools.count(1)


@dataclass(slots=True)
class Job:
    """A job and its directory: ``files`` is for the program, ``image`` is where checkpoints go."""

    name: str
    directory: Path
    orch: Orch
    run_options: list[str] = field(default_factory=list)
    restore_options: list[str] = field(default_factory=list)

    @property
    def files(self) -> Path:
        return self.directory / "files"

    @property
    def image(self) -> Path:
        return self.directory / "images" / f"{self.name}.ckpt"

    def shared_memory_files(self) -> list[Path]:
        """List what bears the job's name among the POSIX shared memory objects."""
        return list(Path("/dev/shm").glob(f"*{self.name}-*"))

    def remove_shared_memory_files(self) -> None:
        """Remove the objects that the job named; orch must not."""
        for path in self.shared_memory_files():
            path.unlink()

    def run(self, command: Sequence[str | Path]) -> Finished:
        """Start the job in the background."""
        return self.orch.ok("run", "--name", self.name, *self.run_options, "-d", "--", *map(str, command))

    def checkpoint(self, *options: str, image: Path | None = None) -> Path:
        """Write an image of the job; it goes on unless the options say otherwise."""
        target = image or self.image
        self.orch.ok("checkpoint", "--cgroup", self.name, "-o", str(target), *options)
        if not target.exists():
            raise CommandFailed(f"checkpoint wrote no {target}\n{self.orch.transcript()}")
        extra = sorted(path.name for path in target.parent.iterdir() if path.suffix != ".ckpt")
        if extra:
            raise CommandFailed(f"checkpoint left {extra} beside the image")
        return target

    def checkpoint_and_kill(self, *options: str) -> Path:
        """Write an image and end the job; all of it must be gone when the command returns."""
        image = self.checkpoint("--kill", *options)
        self.wait_until_over()
        return image

    def restore(self, image: Path | None = None) -> Finished:
        """Bring the job back from its image, in the background."""
        return self.orch.ok("restore", str(image or self.image), "-d", *self.restore_options)

    def kill(self) -> None:
        """End the job."""
        self.orch.ok("kill", self.name)
        self.wait_until_over()

    def processes(self) -> list[int]:
        """List the processes that the test started and that are still there."""
        reap()
        return descendants()

    def wait_until_over(self, seconds: float = 10) -> None:
        """Wait until nothing of the job is left, its supervisor included."""
        left = wait_until_childless(seconds)
        if left:
            lines = "\n".join(describe(pid) for pid in left)
            raise CommandFailed(f"still there after the job's end:\n{lines}\n{self.orch.transcript()}")


@contextlib.contextmanager
def new_job() -> Iterator[Job]:
    """Make a job's directory, reachable by every user, and remove all of it afterwards."""
    name = f"t{os.getpid()}-{next(_numbers)}"
    directory = Path(tempfile.mkdtemp(prefix=f"job-{name}-"))
    directory.chmod(0o755)
    for below, mode in (("files", 0o777), ("images", 0o700), ("logs", 0o755), ("scratch", 0o1777)):
        (directory / below).mkdir()
        (directory / below).chmod(mode)
    job = Job(name, directory, Orch(directory / "logs", directory / "scratch"))
    try:
        yield job
        left = sorted(path.name for path in (directory / "scratch").iterdir())
        if left:
            raise CommandFailed(f"left in the temporary directory: {left}")
    finally:
        if descendants():
            with contextlib.suppress(Exception):
                job.orch.any_way("kill", name)
            kill_all()
        shutil.rmtree(directory, ignore_errors=True)
