"""A restore as a whole: from an image to the running job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

import msgspec

from orchestrator.errors import NoSuchJob, NotPermitted
from orchestrator.freezer import locate_cgroup
from orchestrator.image.chain import open_ancestors
from orchestrator.image.reader import ImageFile
from orchestrator.job import directory_of, note_failure, pager_cgroup
from orchestrator.kill import KILL_SECONDS, empty_cgroup
from orchestrator.kinds.files.references import check_references
from orchestrator.kinds.memory.known import check_places
from orchestrator.kinds.sockets.tcp_cut import Cut, cut_connections
from orchestrator.kinds.sockets.tcp_hold import let_through
from orchestrator.kinds.sockets.tcp_release import filters_of
from orchestrator.kinds.task.filesystem import check_entered
from orchestrator.kinds.task.process import check_chains, check_own_tables
from orchestrator.restore.baseline import own_baseline
from orchestrator.restore.checks import check
from orchestrator.restore.decoded import KnownSnapshot
from orchestrator.restore.job import Restore
from orchestrator.restore.lazy import Laziness
from orchestrator.restore.patience import DEFAULT_SECONDS, Patience
from orchestrator.restore.surroundings import Surroundings
from orchestrator.snapshot import Snapshot
from orchestrator.supervisor import Root


class RestoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a job is restored."""

    new: frozenset[str] = frozenset()
    """Namespaces to make anew, beside those that the job had for itself."""
    host_pids: bool = False
    """Whether the PIDs must be free on the host, rather than in a new PID namespace."""
    inherited: Mapping[str, int] = msgspec.field(default_factory=dict)
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
    if os.geteuid() != 0:
        raise NotPermitted("a restore needs root", hint="run orch as root")
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
    directory = directory_of(os.path.basename(cgroup or ""))

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
