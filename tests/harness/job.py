"""One job under test: a directory of its own, a name of its own, and what is done to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import cgroups
from harness.command import CommandFailed, Finished, Orch
from harness.deadline import Deadline
from harness.descendants import descendants, describe, kill_all, reap, wait_until_childless

_numbers = itertools.count(1)


@dataclass(slots=True)
class Job:
    """A job and its directory: ``files`` is for the program, ``image`` is where checkpoints go."""

    name: str
    directory: Path
    orch: Orch
    run_options: list[str] = field(default_factory=list)
    checkpoint_options: list[str] = field(default_factory=list)
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
        self.orch.ok("checkpoint", "--cgroup", self.name, "-o", str(target), *self.checkpoint_options, *options)
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

    def move(self, *options: str) -> None:
        """Send the job through a pipe: ``orch checkpoint --kill -o - | orch restore -d -``."""
        sending = ("checkpoint", "--cgroup", self.name, "--kill", "-o", "-", *self.checkpoint_options, *options)
        receiving = ("restore", "-", "-d", *self.restore_options)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        sender, sent = self.orch.start(*sending, stdout=writing)
        os.close(writing)
        receiver, received = self.orch.start(*receiving, stdin=reading)
        os.close(reading)
        for finished in (self.orch.finish(sender, sent, sending), self.orch.finish(receiver, received, receiving)):
            if finished.exit_code:
                raise CommandFailed(f"{finished}\n{self.orch.transcript()}")

    def checkpoint_killed_when(self, moment: Callable[[], bool]) -> None:
        """Start a checkpoint and kill -9 it at a certain moment, before its image is there.

        Nothing tells of a seized task, and such moments are short: one that was missed is waited for again.
        """
        deadline = Deadline.after(30)
        while not self._killed_at(moment):
            self.image.unlink(missing_ok=True)
            if deadline.passed:
                raise CommandFailed(f"the moment to kill it never came\n{self.orch.transcript()}")

    def _killed_at(self, moment: Callable[[], bool]) -> bool:
        process, _ = self.orch.start("checkpoint", "--cgroup", self.name, "-o", str(self.image))
        try:
            while process.poll() is None:
                if moment():
                    process.kill()
                    killed = process.wait() < 0
                    if self.image.exists():  # that was too late, so it must be a whole one
                        self.orch.ok("show", str(self.image))
                        return False
                    return killed
            return False
        finally:
            process.kill()
            process.wait()

    def is_traced(self) -> bool:
        """Tell whether a process of the job has a tracer."""
        for task in self.tasks():
            with contextlib.suppress(OSError):
                if "\nTracerPid:\t0\n" not in (task / "status").read_text(errors="replace"):
                    return True
        return False

    def is_being_written(self) -> bool:
        """Tell whether an image without its name is there, or some process has one open."""
        if any(self.image.parent.iterdir()):
            return True
        for pid in self.processes():
            with contextlib.suppress(OSError):
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    if os.readlink(f"/proc/{pid}/fd/{fd}").startswith(str(self.image.parent) + "/"):
                        return True
        return False

    def tasks(self) -> list[Path]:
        """List the threads of the job, as their directories in /proc."""
        found: list[Path] = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                found += Path(f"/proc/{pid}/task").iterdir()
        return found

    def pids(self) -> list[int]:
        """List the processes in the job's cgroups."""
        return [pid for cgroup in cgroups.of_job(self.name) for pid in cgroups.pids_of(cgroup)]

    def must_stand_still(self) -> None:
        """See that each process of the job is frozen or stopped."""
        for cgroup in cgroups.of_job(self.name):
            if cgroups.frozen(cgroup):
                continue
            for pid in cgroups.pids_of(cgroup):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    state = describe(int(task.name))
                    if ") T" not in state and not (task.name == str(pid) and ") Z" in state):
                        raise CommandFailed(f"not stopped: {state}")

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
