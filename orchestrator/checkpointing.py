"""A checkpoint as a whole: from what was asked for to the finished image."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from orchestrator.ancestry import Wanted, planned
from orchestrator.capture.checkpoint import FORMAT_ARCHITECTURE, PAGE_SIZE, Request, Statistics, take
from orchestrator.errors import NotPermitted, UsageError
from orchestrator.freezer import make_freezer
from orchestrator.ids import HostPid
from orchestrator.image.packing import Packing
from orchestrator.image.spool import STANDARD
from orchestrator.image.stream import open_writer
from orchestrator.kill import KILL_SECONDS, await_supervisor
from orchestrator.kinds.sockets.tcp_hold import KEEP
from orchestrator.paging.inquiry import await_filled
from orchestrator.target import Target

if TYPE_CHECKING:
    from orchestrator.image.keys import Recipient

Ending = Literal["run", "stop", "kill"]
Progress = Callable[[str, int, int], None]
"""Called with what is done, how many bytes of it are done, and of how many."""

# Stops are waited for by whoever comes first: two captures in one process would take each other's.
_one_at_a_time = threading.Lock()


class CheckpointOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint is taken."""

    ending: Ending = "run"
    timeout: float = 10.0
    """Seconds that freezing may take."""
    externals: frozenset[str] = frozenset()
    """Outside resources that the job may hold, as "pipe[123]"."""
    ghost_limit: int = 1 << 40
    """The most bytes of an unlinked file that go into the image."""
    durable: bool = True
    """Whether the image is on the disk when the checkpoint is done."""
    checksums: bool = True
    """Whether the page data gets checksums."""
    packing: Packing | None = None
    """How the image is compressed."""
    encrypt: tuple[str, ...] = ()
    """Whom the image is encrypted to: public keys, or files of keys."""
    replicate: bool = True
    """Whether a job that goes on does so before its memory is written, which copy-on-write replicas hold meanwhile."""
    parent: str | None = None
    """The image that this one is a delta to; "last" is the newest of the job."""
    track: bool = False
    """Whether the job's writes are noted from here on, so that a delta to this image is made fast."""
    noted: bool = True
    """Whether the image is one of those that the job is known to have."""
    hand_over: Callable[[str], None] | None = None
    """Called with the path of the image while a job that is to be killed is held. If it raises, the job goes on."""
    given_up: Callable[[], None] | None = None
    """Called as soon as a job that is killed cannot run any more."""


def checkpoint(
    target: Target, output: str | None, options: CheckpointOptions, progress: Progress | None = None
) -> Statistics:
    """Write an image of a target. On failure there is no image, and the job goes on as before.

    Without an ``output`` it is named after the target.
    """
    if os.geteuid() != 0:
        raise NotPermitted("a checkpoint needs root", hint="run orch as root")
    if KEEP in options.externals and options.ending != "kill":
        raise UsageError(
            "connections with the outside can be kept only if the job ends",
            hint="--tcp keep needs --kill: the other end goes on with a job that goes on",
        )
    recipients = _recipients(options.encrypt)
    wanted = Wanted(
        output=output,
        parent=options.parent,
        track=options.track,
        ends=options.ending == "kill",
        packed=options.packing is not None or bool(options.encrypt),
        externals=options.externals,
        timeout=options.timeout,
    )
    if target.job is not None:
        await_filled(target.job.directory, options.timeout)
    with planned(target, wanted) as plan:
        request = Request(
            name=target.name,
            freezer=None if target.cgroup is None else make_freezer(target.cgroup),
            tree=target.tree,
            cgroup=target.hierarchy_path,
            root=_root(target),
            ending=options.ending,
            timeout=options.timeout,
            externals=options.externals,
            stdio=_standard_streams(target),
            ghost_limit=options.ghost_limit,
            durable=options.durable,
            checksums=options.checksums,
            replicate=options.replicate,
            progress=progress,
            deltas=plan.deltas,
            hand_over=None if options.hand_over is None else partial(options.hand_over, plan.output),
            given_up=options.given_up,
        )
        image = open_writer(
            plan.output,
            architecture=FORMAT_ARCHITECTURE,
            page_size=PAGE_SIZE,
            parent=plan.parent_id,
            packing=options.packing,
            recipients=recipients,
        )
        with _one_at_a_time, image as writer:
            statistics = take(request, writer)
    statistics.output = output = plan.output
    statistics.delta_to = plan.parent_path
    if target.job is not None:
        if options.ending == "kill":
            await_supervisor(target.job, time.monotonic() + KILL_SECONDS)
        elif output != STANDARD and options.noted:
            target.job.note_image(output)
    return statistics


def _recipients(encrypt: Sequence[str]) -> Sequence[Recipient]:
    if not encrypt:
        return ()
    from orchestrator.image.keys import read_recipients

    return read_recipients(encrypt)


def _root(target: Target) -> HostPid | None:
    if target.job is None or not target.job.record.root.is_alive():
        return target.tree
    return HostPid(target.job.record.root.pid)


def _standard_streams(target: Target) -> dict[tuple[int, int, int], int]:
    if target.job is None:
        return {}
    streams: dict[tuple[int, int, int], int] = {}
    for number, stream in enumerate(target.job.record.streams):
        # A regular file is the job's own: it is opened again by its path.
        if stream is not None and not stat.S_ISREG(stream.st_mode):
            streams.setdefault((stream.st_dev, stream.st_ino, stream.st_rdev), number)
    return streams
