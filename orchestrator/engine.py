"""A checkpoint and a restore as a whole: from what was asked for to the finished image, or the running job."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from orchestrator.ancestry import Wanted, planned
from orchestrator.capture.checkpoint import FORMAT_ARCHITECTURE, PAGE_SIZE, Request, Statistics, take
from orchestrator.errors import NoSuchJob, NotPermitted, UsageError
from orchestrator.freezer import locate_cgroup, make_freezer
from orchestrator.ids import HostPid
from orchestrator.image.chain import open_ancestors
from orchestrator.image.packing import Packing
from orchestrator.image.reader import ImageFile
from orchestrator.image.spool import STANDARD
from orchestrator.image.stream import open_writer
from orchestrator.job import STATE_DIRECTORY, note_failure, pager_cgroup
from orchestrator.kill import KILL_SECONDS, await_supervisor, empty_cgroup
from orchestrator.kinds.files.references import check_references
from orchestrator.kinds.memory.known import check_places
from orchestrator.kinds.sockets.tcp_cut import Cut, cut_connections
from orchestrator.kinds.sockets.tcp_hold import KEEP, let_through
from orchestrator.kinds.sockets.tcp_release import filters_of
from orchestrator.kinds.task.filesystem import check_entered
from orchestrator.kinds.task.process import check_chains, check_own_tables
from orchestrator.paging.inquiry import await_filled
from orchestrator.restore.baseline import own_baseline
from orchestrator.restore.checks import check
from orchestrator.restore.decoded import KnownSnapshot
from orchestrator.restore.job import Restore
from orchestrator.restore.lazy import Laziness
from orchestrator.restore.patience import DEFAULT_SECONDS, Patience
from orchestrator.restore.surroundings import Surroundings
from orchestrator.snapshot import Snapshot
from orchestrator.supervisor import Root
from orchestrator.target import Target

if TYPE_CHECKING:
    from orchestrator.image.keys import Recipient

Ending = Literal["run", "stop", "kill"]
Progress = Callable[[str, int, int], None]
"""Called with what is done, how many bytes of it are done, and of how many."""

# Stops are waited for by whoever comes first: two captures in one process would take each other's.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
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
    """Called with the path of the image while the job is held, which then is killed. If it raises, the job goes on."""
    given_up: Callable[[], None] | None = None
    """Called as soon as a job that was handed over cannot run here any more."""


def checkpoint(
    target: Target, output: str | None, options: CheckpointOptions, progress: Progress | None = None
) -> Statistics:
    """Write an image of a target. On failure there is no image, and the job goes on as before.

    Without an ``output`` it is named after the target.
    """
    _require_root("a checkpoint")
    if KEEP in options.externals and options.ending != "kill":
        raise UsageError(
            "connections with the outside can be kept only if the job ends",
            hint="--tcp keep needs --kill: the other end goes on with a job that goes on",
        )
    ending = options.ending if options.hand_over is None else "move"
    recipients = _recipients(options.encrypt)
    wanted = Wanted(
        output=output,
        parent=options.parent,
        track=options.track,
        ends=ending in ("kill", "move"),
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
            ending=ending,
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
        if ending in ("kill", "move"):
            await_supervisor(target.job, time.monotonic() + KILL_SECONDS)
        elif output != STANDARD and options.noted:
            target.job.note_image(output)
    return statistics


def _recipients(encrypt: Sequence[str]) -> Sequence[Recipient]:
    if not encrypt:
        return ()
    from orchestrator.image.keys import read_recipients

    return read_recipients(encrypt)


def _require_root(what: str) -> None:
    if os.geteuid() != 0:
        raise NotPermitted(f"{what} needs root", hint="run orch as root")


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


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """How a job is restored."""

    new: frozenset[str] = frozenset()
    """Namespaces to make anew, beside those that the job had for itself."""
    host_pids: bool = False
    """Whether the PIDs must be free on the host, rather than in a new PID namespace."""
    inherited: Mapping[str, int] = field(default_factory=dict)
    """Outside resources, by key: "stdio[1]", "pipe[123]" -> a descriptor of ours."""
    controlling: frozenset[str] = frozenset()
    """Which of these are terminals that may control sessions of the job."""
    verify: bool = False
    """Whether the page data is compared with its checksums first."""
    cut: Cut | None = None
    """Which TCP connections of the image the job finds ended."""
    patience: float = DEFAULT_SECONDS
    """Seconds after which a restore that does not get on is given up."""
    lazy: bool = False
    """Whether the job runs before its memory is there: pages come when they are used, or when there is time."""
    gate: Callable[[], None] | None = None
    """Called when all is built, before anything of it runs. If it raises, nothing is left."""
    pager: frozenset[str] = frozenset()
    """For tests: "on-demand" brings only what is used, "everything" leaves out little, too."""


def decode(image: ImageFile) -> Snapshot:
    """Decode the records of an image that is to be restored; kinds that are not known are refused by name."""
    snapshot = image.decode(KnownSnapshot)
    check_references(snapshot.files, snapshot.file_tables, snapshot.objects, snapshot.page_bytes)
    check_entered(snapshot.filesystems, len(snapshot.files))
    tables, contexts = {table.id for table in snapshot.file_tables}, {one.id for one in snapshot.filesystems}
    check_own_tables(snapshot.processes, tables, contexts)
    check_chains(snapshot.processes, len(snapshot.seccomp_filters))
    open_ancestors(image, snapshot.chain)
    if snapshot.chain:
        sizes = {0: snapshot.page_bytes, **{link.number: link.pages for link in snapshot.chain}}
        check_places(snapshot.memories, sizes)
    return snapshot


def may_restore(snapshot: Snapshot, options: RestoreOptions) -> None:
    """Raise RestoreError's children if files, names, ports or anything else that a job needs is not there."""
    Patience(options.patience).watch(
        lambda: check(snapshot, new=options.new, host_pids=options.host_pids, inherited=options.inherited)
    )


def rebuild(image: ImageFile, snapshot: Snapshot, options: RestoreOptions, cgroup: str | None) -> tuple[Root, int]:
    """Bring a job back into ``cgroup``; return its root and the microseconds that it took.

    On failure nothing of it is left.
    """
    _require_root("a restore")
    if options.verify:
        for one in (image, *image.ancestors.values()):
            one.verify_pages()
    given_up = filters_of(snapshot.files) if options.cut else set()
    snapshot = _without_cut(snapshot, options)
    may_restore(snapshot, options)
    restored = _restore(image, snapshot, options, cgroup).run()
    if given_up:
        let_through(given_up)
    root = Root(
        restored.child,
        restored.root,
        None if restored.status_fd < 0 else lambda ended: _status(restored.status_fd, ended),
    )
    return root, round(restored.seconds * 1e6)


def dry_run(image: ImageFile, snapshot: Snapshot, options: RestoreOptions) -> Iterator[str]:
    """Compile a restore without doing any of it; print its tapes as strace would."""
    plan, depot = _restore(image, _without_cut(snapshot, options), options, None).plan()
    yield "depot:"
    yield from (f"  {line}" for line in depot.tape.entries())
    yield from plan.render()


def _without_cut(snapshot: Snapshot, options: RestoreOptions) -> Snapshot:
    if options.cut is None:
        return snapshot
    return msgspec.structs.replace(snapshot, files=cut_connections(snapshot.files, options.cut))


def _restore(image: ImageFile, snapshot: Snapshot, options: RestoreOptions, cgroup: str | None) -> Restore:
    baseline = own_baseline()
    surroundings = Surroundings(
        snapshot.namespaces,
        snapshot.clocks,
        new=options.new,
        host_pids=options.host_pids,
        cgroup=cgroup,
        baseline=baseline,
        cgroups=snapshot.cgroups,
        own_cgroups=snapshot.own_cgroups,
    )
    laziness = _laziness(options, cgroup) if options.lazy else None
    given = options.inherited, baseline, options.controlling
    return Restore(image, snapshot, surroundings, *given, laziness, Patience(options.patience), options.gate)


def _laziness(options: RestoreOptions, cgroup: str | None) -> Laziness:
    directory = f"{STATE_DIRECTORY}/{os.path.basename(cgroup or '')}"

    def end_job(why: str) -> None:
        note_failure(directory, why)
        if cgroup is not None:
            with contextlib.suppress(NoSuchJob):
                empty_cgroup(locate_cgroup(cgroup), KILL_SECONDS)

    return Laziness(
        directory,
        end_job,
        cgroup=pager_cgroup(cgroup) if cgroup is not None and locate_cgroup(cgroup).version == 2 else None,
        on_demand="on-demand" in options.pager,
        everything="everything" in options.pager,
    )


def _status(fd: int, ended: int) -> int:
    """Read the wait status of the root, which process 1 wrote; without one it is that of process 1."""
    told = os.read(fd, 4)
    os.close(fd)
    return int.from_bytes(told, "little") if len(told) == 4 else ended
