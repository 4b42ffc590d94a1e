"""The Python interface, in its blocking form. :mod:`orchestrator.aio` has the same for trio."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from orchestrator.daemon import read_report
from orchestrator.errors import OrchError
from orchestrator.job import Job, find_job, list_jobs
from orchestrator.kill import kill_job
from orchestrator.opened import Image

if TYPE_CHECKING:
    from orchestrator.checkpointing import Ending, Progress
    from orchestrator.migration.source import Migrated

__all__ = [
    "Image",
    "Job",
    "StartedJob",
    "checkpoint",
    "find_job",
    "kill_job",
    "list_jobs",
    "migrate",
    "open_image",
    "prune",
    "restore",
    "run",
]


class StartedJob(Job):
    """A job that this process has started or restored, and so can wait for."""

    def __init__(self, job: Job, reports: IO[bytes]) -> None:
        super().__init__(job.record)
        self.reports = reports
        """Readable once the job has ended."""
        self._exit_code: int | None = None

    def wait(self) -> int:
        """Wait until the job has ended; return its root's exit code, or -N if it died of signal N."""
        if self._exit_code is None:
            with self.reports:
                status = read_report(self.reports.readline()).status
            if status is None:
                raise OrchError(f"the supervisor of {self.name} did not say how the job ended")
            self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    name: str | None = None,
    new: Collection[str] = (),
    user: str | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> StartedJob:
    """Start a program as a job with a supervisor of its own; it outlives the caller.

    ``new`` names namespaces to make; ``env`` are variables to set beside ours; ``output`` is a file that the
    job's output is appended to, without which it is dropped.
    """
    options = _given({"--name": name, "--user": user, "--cwd": cwd, "--output": output, "--new": ",".join(new)})
    for variable, value in (env or {}).items():
        options += ["--env", f"{variable}={value}"]
    return _start(["run", *options, "-d"], ["--", *(os.fspath(word) for word in argv)])


def restore(
    image: str | os.PathLike[str],
    *,
    name: str | None = None,
    new: Collection[str] = (),
    host_pids: bool = False,
    inherited: Mapping[str, int] | None = None,
    output: str | os.PathLike[str] | None = None,
    verify: bool = False,
    tcp: str = "keep",
    timeout: float = 120.0,
    lazy: bool = False,
    keys: Sequence[str | os.PathLike[str]] = (),
) -> StartedJob:
    """Bring a job back from an image, with a supervisor of its own; it outlives the caller.

    ``host_pids`` keeps the PIDs in our own PID namespace, where they must be free. ``inherited`` gives
    descriptors of ours in place of outside resources that the job had, by their keys in the image. ``tcp`` may give
    up the TCP connections that the image keeps with the outside ("close"), or those within the job, too ("close-all").
    With ``lazy`` the job runs before its memory is there: pages come from the image when they are used, and the rest
    when there is time. Should one not come the job is killed, and its ``wait`` raises PagesLost.
    ``keys`` are files of private keys, for an image that is encrypted. A restore that has not got on at all for
    ``timeout`` seconds is given up.
    """
    options = _given({"--name": name, "--output": output, "--new": ",".join(new)})
    if host_pids:
        options += ["--pid-namespace", "host"]
    if verify:
        options.append("--verify")
    options.append(f"--timeout={timeout}")
    if lazy:
        options.append("--lazy")
    if tcp != "keep":
        options.append(f"--tcp={tcp}")
    for key, fd in (inherited or {}).items():
        options += ["--inherit", f"{key}={fd}"]
    for file in keys:
        options += ["--key", os.fspath(file)]
    return _start(["restore", *options, "-d"], ["--", os.fspath(image)], (inherited or {}).values())


def _given(options: Mapping[str, str | os.PathLike[str] | None]) -> list[str]:
    return [f"{option}={os.fspath(value)}" for option, value in options.items() if value]


def _start(head: list[str], tail: list[str], fds: Iterable[int] = ()) -> StartedJob:
    """Have a process of its own become the supervisor: ours may have threads, and need not live as long."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    reports = open(reading, "rb")  # noqa: SIM115  it is the job's from here on
    try:
        try:
            command = [sys.executable, "-m", "orchestrator.cli", *head, "--report", str(writing), *tail]
            finished = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[writing, *fds],
                check=False,
            )
        finally:
            os.close(writing)
        line = reports.readline()
        if not line:
            raise OrchError(finished.stderr.decode(errors="replace").strip() or "the supervisor said nothing")
        return StartedJob(find_job(read_report(line).job or ""), reports)
    except BaseException:
        reports.close()
        raise


def checkpoint(
    target: Job | str | int,
    output: str | os.PathLike[str] | None = None,
    *,
    ending: Ending = "run",
    timeout: float = 10.0,
    externals: Collection[str] = (),
    durable: bool = True,
    checksums: bool = True,
    level: int | None = None,
    compress: str | int | None = None,
    encrypt: Sequence[str] = (),
    replicate: bool = True,
    parent: str | os.PathLike[str] | None = None,
    track: bool = False,
    precopy: int = 0,
    progress: Progress | None = None,
) -> Image:
    """Write a job to an image and open it. The caller must not be traced, nor trace anything itself.

    ``target`` is a job, the name or path of a cgroup, or the process id of the root of a plain tree. The job
    goes on afterwards, unless ``ending`` is "kill" or "stop". On failure there is no image, and the job goes on.
    ``compress`` is "zstd" or "lz4", with a level as in "zstd:7" or without; ``level`` is one of zstd. ``encrypt`` names
    whom the image is encrypted to: public keys, or files of keys. Such an image is opened when something is asked of
    it, by the private keys that have been put into its ``keys``. Without ``replicate`` a job that goes on stands still
    until its memory is written. With a ``parent``, an image or "last", only what has changed since is written; with
    ``track`` a delta to this image will be made fast. With ``precopy`` the job's memory is written before, while
    it runs, in so many rounds at most: one that is to end or to stop stands still for what is left only.
    """
    from orchestrator.checkpointing import CheckpointOptions
    from orchestrator.checkpointing import checkpoint as write_image
    from orchestrator.image.packing import parse_packing
    from orchestrator.target import find_target

    how = level if compress is None else compress
    found = find_target(target)
    path = os.fspath(output) if output is not None else None
    options = CheckpointOptions(
        ending=ending,
        timeout=timeout,
        externals=frozenset(externals),
        durable=durable,
        checksums=checksums,
        packing=None if how is None else parse_packing(how),
        encrypt=tuple(encrypt),
        replicate=replicate,
        parent=None if parent is None else os.fspath(parent),
        track=track,
    )
    if precopy:
        from orchestrator.precopy import checkpoint_in_rounds

        path = checkpoint_in_rounds(found, path, options, precopy, progress).output
    else:
        path = write_image(found, path, options, progress).output
    return Image.unopened(path) if encrypt else Image(path)


def migrate(
    target: Job | str,
    command: Sequence[str | os.PathLike[str]],
    *,
    rounds: int = 8,
    timeout: float = 10.0,
    externals: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Migrated:
    """Move a job while it runs to where ``command`` leads, as ["ssh", HOST, "orch", "receive"] does.

    Its memory is sent at most ``rounds`` times while it runs; ``progress`` is called with the number of each and its
    bytes. It stands still for the destination ``timeout`` seconds at most. On failure it goes on here.
    """
    from orchestrator.checkpointing import CheckpointOptions
    from orchestrator.migration.source import migrate as move
    from orchestrator.target import find_target

    options = CheckpointOptions(timeout=timeout, externals=frozenset(externals))
    return move(find_target(target), [os.fspath(word) for word in command], options, rounds=rounds, progress=progress)


def prune(path: str | os.PathLike[str], *, remove_parents: bool = False) -> list[str]:
    """Make a delta whole, in place. With ``remove_parents`` remove the images that it referred to and nobody else does.

    Return the paths of these.
    """
    from orchestrator.merge import prune as make_whole

    return make_whole(os.fspath(path), remove_parents=remove_parents).removed


def open_image(path: str | os.PathLike[str], keys: Sequence[str | os.PathLike[str]] = ()) -> Image:
    """Open an image to look into it. Raises ImageError's children."""
    return Image(os.fspath(path), [os.fspath(key) for key in keys])
