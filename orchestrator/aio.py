"""The Python interface for trio: the functions of :mod:`orchestrator.api`, none of which blocks the loop.

A checkpoint or a start that was begun is finished also when its scope is cancelled: half of one is worth nothing.
Each runs in one thread from beginning to end, as ptrace demands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from orchestrator import api
from orchestrator.api import Image, Job, StartedJob

if TYPE_CHECKING:
    from orchestrator.checkpointing import Ending, Progress
    from orchestrator.migration.source import Migrated

__all__ = ["checkpoint", "kill_job", "migrate", "open_image", "prune", "restore", "run", "wait"]


async def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    name: str | None = None,
    new: Collection[str] = (),
    user: str | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> StartedJob:
    """Start a program as a job. See :func:`orchestrator.api.run`."""
    start = partial(api.run, argv, name=name, new=new, user=user, cwd=cwd, env=env, output=output)
    return await trio.to_thread.run_sync(start)


async def restore(
    image: str | os.PathLike[str],
    *,
    name: str | None = None,
    new: Collection[str] = (),
    host_pids: bool = False,
    inherited: Mapping[str, int] | None = None,
    output: str | os.PathLike[str] | None = None,
    verify: bool = False,
    tcp: str = "keep",
    timeout: float = 120.0,  # noqa: ASYNC109  it is not of the whole, but of what does not get on
    lazy: bool = False,
    keys: Sequence[str | os.PathLike[str]] = (),
) -> StartedJob:
    """Bring a job back from an image. See :func:`orchestrator.api.restore`."""
    start = partial(
        api.restore,
        image,
        name=name,
        new=new,
        host_pids=host_pids,
        inherited=inherited,
        output=output,
        verify=verify,
        tcp=tcp,
        timeout=timeout,
        lazy=lazy,
        keys=keys,
    )
    return await trio.to_thread.run_sync(start)


async def checkpoint(
    target: Job | str | int,
    output: str | os.PathLike[str] | None = None,
    *,
    ending: Ending = "run",
    timeout: float = 10.0,  # noqa: ASYNC109  it is the freezer's, and undone when it is over
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
    """Write a job to an image and open it. See :func:`orchestrator.api.checkpoint`.

    ``progress`` is called in another thread.
    """
    write = partial(
        api.checkpoint,
        target,
        output,
        ending=ending,
        timeout=timeout,
        externals=externals,
        durable=durable,
        checksums=checksums,
        level=level,
        compress=compress,
        encrypt=encrypt,
        replicate=replicate,
        parent=parent,
        track=track,
        precopy=precopy,
        progress=progress,
    )
    return await trio.to_thread.run_sync(write)


async def wait(job: StartedJob) -> int:
    """Wait until a job that we have started has ended; return its exit code. Cancelling leaves the job alone."""
    if job.reports.closed:
        return job.wait()
    await trio.lowlevel.wait_readable(job.reports)
    return job.wait()


async def kill_job(name: str) -> None:
    """Kill every process of a job, and wait until nothing is left of it."""
    await trio.to_thread.run_sync(api.kill_job, name)


async def migrate(
    target: Job | str,
    command: Sequence[str | os.PathLike[str]],
    *,
    rounds: int = 8,
    timeout: float = 10.0,  # noqa: ASYNC109  it is the destination's
    externals: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Migrated:
    """Move a job while it runs. See :func:`orchestrator.api.migrate`. ``progress`` is called in another thread."""
    move = partial(api.migrate, target, command, rounds=rounds, timeout=timeout, externals=externals, progress=progress)
    return await trio.to_thread.run_sync(move)


async def prune(path: str | os.PathLike[str], *, remove_parents: bool = False) -> list[str]:
    """Make a delta whole. See :func:`orchestrator.api.prune`."""
    return await trio.to_thread.run_sync(partial(api.prune, path, remove_parents=remove_parents))


async def open_image(path: str | os.PathLike[str], keys: Sequence[str | os.PathLike[str]] = ()) -> Image:
    """Open an image to look into it."""
    return await trio.to_thread.run_sync(api.open_image, path, keys)
