"""One checkpoint, from the freeze to the finished image. Synchronous: ptrace belongs to one thread."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from orchestrator.capture.ahead import Ahead, reading_ahead
from orchestrator.capture.deltas import WORTH_A_REPLICA, Deltas
from orchestrator.capture.estimate import expected_bytes
from orchestrator.capture.guard import guarded
from orchestrator.capture.hold import HeldJob, HeldProcess, descend
from orchestrator.capture.late import WORTHWHILE_PROCESSES, foresee
from orchestrator.capture.memory import Left, may_write_itself, write_held
from orchestrator.capture.pages import SMALL_BYTES, copy_file
from orchestrator.capture.rehearsal import rehearse
from orchestrator.capture.replica import Keep
from orchestrator.capture.stream import goes_out_at_once, held_sources, send_held, write_left
from orchestrator.capture.tasks import JobCapture, MemoryToWrite
from orchestrator.capture.tracking import JobTracking
from orchestrator.errors import CaptureFailed, EmptyJob, ImageWriteFailed, NoSuchProcess, UsageError
from orchestrator.freezer import Freezer, V1Freezer
from orchestrator.ids import HostPid, Pid
from orchestrator.image.codec import encode_records
from orchestrator.image.stream import Writer
from orchestrator.kinds.files.kind import FileTable
from orchestrator.kinds.files.leak import Holder, outside_holders, report_leaks
from orchestrator.kinds.files.table import FileCollector
from orchestrator.kinds.memory.capture import Mappers
from orchestrator.kinds.memory.shared import shared_object
from orchestrator.kinds.memory.socket_ring import tie_ring
from orchestrator.kinds.memory.sysv import SegmentMapper
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task.own_cgroups import JobCgroups, OwnCgroups
from orchestrator.kinds.task.places import Elsewhere
from orchestrator.kinds.task.process import unshareable
from orchestrator.linux import vdso
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.rlimits import many_descriptors, most_descriptors
from orchestrator.linux.spare import spare_bytes, spare_tasks
from orchestrator.namespaces.survey import prepare, survey
from orchestrator.restore.descriptors import needed_limit, placers
from orchestrator.snapshot import Machine, Snapshot
from orchestrator.tape.build import TapeError
from orchestrator.tape.tracee import TaskGone
from orchestrator.version import VERSION

PAGE_SIZE = 4096
FORMAT_ARCHITECTURE = arch.MACHINE
_URGENT_NICE = -20
_SWITCH_SECONDS = 0.0001


class Statistics(msgspec.Struct):
    """What a checkpoint took. Times in microseconds, sizes in bytes."""

    freezing_us: int = 0
    """From the request until every task stood still."""
    frozen_us: int = 0
    """How long the job stood still, the freezing included."""
    memwrite_us: int = 0
    """The part of it that went into writing pages, or into copy-on-write replicas that hold them."""
    output: str = ""
    """The image's file."""
    delta_to: str = ""
    """The image that this one is a delta to."""
    rounds: int = 0
    """How often the job's memory was written before, while it ran."""
    referred_bytes: int = 0
    """How much of the memory lies there, or in images that it refers to."""
    compared: bool = False
    """Whether that was found out by comparing contents, as nobody had noted what was written."""
    tracked: bool = False
    """Whether writes are noted from here on."""
    replicas: int = 0
    """Processes whose pages were written from a replica, while the job ran again."""
    short_of_memory: bool = False
    """Whether there was no memory to spare for replicas."""
    short_of_tasks: bool = False
    """Whether limits of the job's cgroups left no room for them, and as many again."""
    processes: int = 0
    threads: int = 0
    pages_written: int = 0
    metadata_bytes: int = 0
    image_bytes: int = 0
    total_us: int = 0


class Request(msgspec.Struct):
    """What is to be saved and how the job goes on afterwards."""

    name: str
    freezer: Freezer | None = None
    """The job's cgroup; or ``tree``."""
    tree: HostPid | None = None
    """The root of a plain process tree."""
    cgroup: str = ""
    """The job's path in the cgroup2 hierarchy, "/" first; "" for a plain tree."""
    root: HostPid | None = None
    """The process whose end is the job's end; by default the oldest root."""
    ending: str = "run"
    """"run", "stop" or "kill"."""
    hand_over: Callable[[], None] | None = None
    """Called while a job that is to be killed is held, and its image is whole. If it raises, the job goes on."""
    given_up: Callable[[], None] | None = None
    """Called as soon as nothing of a job that is killed can run any more."""
    timeout: float = 10.0
    """Seconds that freezing may take."""
    externals: frozenset[str] = frozenset()
    stdio: Mapping[tuple[int, int, int], int] = msgspec.field(default_factory=dict)
    ghost_limit: int = 1 << 40
    deltas: Deltas | None = None
    """How writes to the memory are followed."""
    replicate: bool = True
    """Whether a job that goes on does so before its memory is written: copy-on-write replicas hold it meanwhile."""
    durable: bool = True
    """Whether the image is on the disk when the checkpoint is done."""
    checksums: bool = True
    progress: Callable[[str, int, int], None] | None = None
    """Called with (what, done bytes, all bytes) while pages are written."""


def take(request: Request, writer: Writer) -> Statistics:
    """Capture a job into an image and commit it.

    A job that goes on runs again before the image is on the disk; one that is to end or to stop is held
    until its image is safe.
    """
    statistics = Statistics()
    started = time.monotonic_ns()
    deltas = request.deltas or Deltas()
    if deltas.must_compare:
        statistics.compared = True
        deltas.compare(lambda: _held_for_a_moment(request, statistics))
    inside = _inside(request)
    holders = outside_holders(inside)
    hierarchy = "freezer" if isinstance(request.freezer, V1Freezer) else ""
    own = OwnCgroups(request.freezer.path if request.freezer is not None else None, request.cgroup, hierarchy)
    cgroups = JobCgroups(own, Elsewhere((hierarchy,) if hierarchy else ()))
    prepare(inside)
    vdso.digest()  # read here, so that nobody waits for it
    private, shared = expected_bytes(inside)
    private = max(private - deltas.unwritten_bytes(), 0)
    spare = spare_bytes(inside)
    wanted = request.replicate and request.ending == "run" and (deltas.parent is None or private >= WORTH_A_REPLICA)
    many = private >= SMALL_BYTES or len(inside) >= WORTHWHILE_PROCESSES
    statistics.short_of_tasks = wanted and many and spare_tasks(inside) < 2 * len(inside)
    replicating = wanted and private <= spare and not statistics.short_of_tasks
    while_held = shared if replicating else private + shared
    at_once = goes_out_at_once(writer, request.ending, while_held > spare)
    if at_once:
        replicating = False
    else:
        writer.expect(while_held if 2 * while_held <= spare else 0)
    statistics.short_of_memory = wanted and not replicating and not statistics.short_of_tasks
    with contextlib.ExitStack() as replicas:
        with (
            reading_ahead(inside) as ahead,
            deltas.followed() as tracking,
            _guarded(request),
            _hurried(),
            many_descriptors(),
        ):
            # Behind the fork of a reader: whoever writes first to memory that both have is held up.
            rehearse(lambda pid, pipe: _rehearse(pid, pipe, writer, cgroups))
            if replicating and tracking is None:
                ahead.foreseen = foresee(inside, private)
            keep = (lambda replica: replicas.callback(replica.end)) if replicating else None
            left = _hold_and_write(
                request, writer, holders, cgroups, statistics, keep, ahead, tracking, at_once=at_once
            )
        statistics.tracked = deltas.keeps
        if not at_once:
            with _image_errors(writer):
                write_left(writer, left, _progress(request, left), checksums=request.checksums)
    if request.ending == "run":
        writer.commit(durable=request.durable, checksums=request.checksums)
    statistics.image_bytes = writer.image_bytes
    statistics.total_us = _us(started)
    return statistics


def _rehearse(pid: HostPid, pipe: str, writer: Writer, cgroups: JobCgroups) -> None:
    with writer.scrap() as scrap:
        _hold_and_write(
            Request("rehearsal", tree=pid, externals=frozenset((pipe,))),
            scrap,
            {},
            cgroups,
            Statistics(),
            None,
            Ahead(),
        )


@contextlib.contextmanager
def _held_for_a_moment(request: Request, statistics: Statistics) -> Iterator[HeldJob]:
    began = time.monotonic_ns()
    with _guarded(request), _hurried(), many_descriptors():
        with _held(request, Ahead()) as job:
            yield job
        statistics.frozen_us = _us(began)


def _hold_and_write(
    request: Request,
    writer: Writer,
    holders: Mapping[tuple[int, int], Sequence[Holder]],
    cgroups: JobCgroups,
    statistics: Statistics,
    keep: Keep | None,
    ahead: Ahead,
    tracking: JobTracking | None = None,
    *,
    at_once: bool = False,
) -> list[Left]:
    """Do all that the job must stand still for; return what is left to be written afterwards.

    With ``keep``, which gets them, there may be replicas.
    """
    began = time.monotonic_ns()
    left: list[Left] = []
    with _held(request, ahead) as job:
        statistics.freezing_us = _us(began)
        scope, capture, conclude = _describe(request, job, holders, cgroups, keep, ahead, tracking)
        try:
            later = _may_be_described_later(scope, capture)
            if not later:
                capture.describe_memory(by_replicas=False)
                pages_at = _begin(writer, conclude(), statistics)
                writing = time.monotonic_ns()
                with _image_errors(writer):
                    progress = _progress(request, capture.writes)
                    if at_once:
                        sources = held_sources(capture.writes, scope, progress)
                        send_held(writer, job, sources, checksums=request.checksums, aside=request.ending == "run")
                    else:
                        able = may_write_itself(capture.processes)
                        write_held(capture.writes, able, writer.fd, pages_at, progress, keep, capture.replicas, left)
                        for act in scope.last_acts:
                            act()
                        for copy in scope.copies:
                            copy_file(copy, writer.fd, pages_at)
                statistics.memwrite_us = _us(writing)
            if tracking is not None:
                tracking.done(ends=False)
                assert request.deltas is not None
                request.deltas.armed_for(writer.image_id, writer.path)
            if request.ending != "run":
                writer.commit(durable=request.durable, checksums=request.checksums)
            if request.ending == "kill":
                if request.hand_over is not None:
                    request.hand_over()
                for act in scope.farewells:
                    act()
                statistics.frozen_us += _us(began)
                if tracking is not None:
                    tracking.done(ends=True)
                job.kill(request.given_up)
        finally:
            scope.close()
        if request.ending != "kill":
            job.release(stop=request.ending == "stop")
            statistics.frozen_us += _us(began)
    if later:
        capture.describe_memory(by_replicas=True)
        _begin(writer, conclude(), statistics)
        left += [Left(capture.replicas[write.process.host], write.runs, write.unreadable) for write in capture.writes]
    statistics.replicas = len(left)
    if request.deltas is not None:
        statistics.referred_bytes = request.deltas.referred_bytes(capture.memories)
    return left


def _may_be_described_later(scope: Scope, capture: JobCapture) -> bool:
    """Whether all that is left is memory, which replicas have, and may write."""
    if not capture.has_replicas or scope.copies or scope.last_acts:
        return False
    able = may_write_itself(capture.processes)
    return all(process.pid in able for process in capture.processes if process.state is not None)


def _begin(writer: Writer, snapshot: Snapshot, statistics: Statistics) -> int:
    """Begin the image with the metadata; return where its pages go."""
    metadata = encode_records(snapshot)
    statistics.processes = len(snapshot.processes)
    statistics.threads = sum(len(process.threads) for process in snapshot.processes)
    statistics.pages_written = snapshot.page_bytes // PAGE_SIZE
    statistics.metadata_bytes = len(metadata)
    return writer.begin(metadata, snapshot.page_bytes, chained=bool(snapshot.chain))


def _progress(request: Request, writes: Sequence[MemoryToWrite | Left]) -> Callable[[int], None]:
    total, done = sum(write.bytes for write in writes), 0

    def progress(size: int) -> None:
        nonlocal done
        done += size
        if request.progress is not None:
            request.progress("pages", done, total)

    return progress


@contextlib.contextmanager
def _image_errors(writer: Writer) -> Iterator[None]:
    """Turn what a write of pages fails with into the error of the image."""
    try:
        yield
    except OSError as error:
        raise writer.failed(error) from error
    except TapeError as error:
        raise writer.failed(OSError(error.errno, os.strerror(error.errno))) from error


def _inside(request: Request) -> list[HostPid]:
    """List the processes of a job before it is frozen; enough to know who is outside."""
    if request.freezer is not None:
        return request.freezer.tasks()
    return [HostPid(pid) for pid in descend(request.tree)] if request.tree is not None else []


def _guarded(request: Request) -> contextlib.AbstractContextManager[None]:
    if request.freezer is None:
        return contextlib.nullcontext()
    request.freezer.remember()
    return guarded(request.freezer.leave)


def _us(since: int) -> int:
    return (time.monotonic_ns() - since) // 1000


@contextlib.contextmanager
def _hurried() -> Iterator[None]:
    """Come first on a busy machine, and collect no garbage: a job that stands still waits for us.

    A thread that reads procfs gets its turn in the interpreter behind each page.
    """
    collected, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        with _urgent():
            yield
    finally:
        sys.setswitchinterval(interval)
        if collected:
            gc.enable()


@contextlib.contextmanager
def _urgent() -> Iterator[None]:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _URGENT_NICE)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@contextlib.contextmanager
def _held(request: Request, ahead: Ahead) -> Iterator[HeldJob]:
    """Hold the job; let it go however this ends."""
    job = HeldJob(request.timeout)
    try:
        if request.freezer is not None:
            _freeze_and_seize(request.freezer, request.timeout, job)
        elif request.tree is not None:
            try:
                job.seize_tree(request.tree)
            except (FileNotFoundError, ProcessLookupError) as error:
                raise NoSuchProcess(f"process {request.tree} is gone") from error
        with ahead.listening():
            job.wait(ahead.held)
            yield job
    except TaskGone as error:
        raise CaptureFailed(f"{error} while it was captured", hint="try again") from error
    except TapeError as error:
        raise CaptureFailed(f"a task could not be asked: {error.tape.label}: {error}") from error
    except TimeoutError as error:
        hint = "a network filesystem that does not answer holds up whoever looks at it"
        raise CaptureFailed(str(error), hint=hint) from error
    except (OSError, ImageWriteFailed) as error:
        gone = job.gone(error)
        if not gone:
            raise
        raise CaptureFailed(f"task {gone[0]} was killed while it was captured", hint="try again") from error
    finally:
        if request.freezer is not None:
            request.freezer.leave()
        job.release()


@contextlib.contextmanager
def _bound(request: Request) -> Iterator[None]:
    """Let the job stand still if we are killed, until the guard thaws it: when our children have ended, too."""
    if request.freezer is None:
        yield
        return
    request.freezer.bind()
    try:
        yield
    finally:
        request.freezer.thaw()


def _freeze_and_seize(freezer: Freezer, timeout: float, job: HeldJob) -> None:
    freezer.freeze(timeout)
    try:
        pids = freezer.tasks()
        if not pids:
            raise EmptyJob("the cgroup holds no process")
        job.seize(pids)
    finally:
        freezer.thaw()


def _describe(
    request: Request,
    job: HeldJob,
    holders: Mapping[tuple[int, int], Sequence[Holder]],
    cgroups: JobCgroups,
    keep: Keep | None,
    ahead: Ahead,
    tracking: JobTracking | None,
) -> tuple[Scope, JobCapture, Callable[[], Snapshot]]:
    """Capture everything but the contents of memory and files; raise with all blockers if there are any.

    What makes the whole of it is called when the capture has described all memory, too.
    """
    scope = Scope(
        pids={process.host: process.pid for process in job.processes.values()},
        names={number: process.name for process in job.processes.values() for number in {process.host, process.seen}},
        living={process.host: process.seen for process in job.processes.values() if process.headless},
        externals=request.externals,
        stdio=dict(request.stdio),
        ghost_limit=request.ghost_limit,
        ends=request.ending == "kill" and request.hand_over is None,
        bound=lambda: _bound(request),
    )
    try:
        for parent, child in job.children_outside:
            scope.outside(parent.host, f"child process {child}", "it is not in the job's cgroup")
        files = FileCollector(scope, ahead.descriptors)

        def table_of(process: HeldProcess, parent: HostPid | None) -> FileTable:
            return files.table(process.seen, process.pidfd, parent)

        mappers = Mappers(
            lambda pid, line, writable: files.mapped(pid, line, writable=writable),
            lambda pid, line: shared_object(scope, pid, line),
            SegmentMapper(scope),
            lambda pid, line, vma: tie_ring(scope, files, pid, line, vma),
        )
        if tracking is not None:
            tracking.begin(job.processes.values())
        capture = JobCapture(job, scope, mappers, table_of, files.table, files.entered, cgroups, ahead, keep, tracking)
        with capture.asking():
            living = [process.seen for process in job.processes.values() if not process.is_zombie]
            parents = [HostPid(p.stat.ppid) for p in job.processes.values() if p.stat.ppid not in job.processes]
            namespaces = survey(living, scope, ours=[*parents, *job.processes])
            capture.run()
        hosts = {pid: host for host, pid in scope.pids.items()}
        for process, what, other in unshareable(capture.processes):
            reason = f"shared with process {other.pid} ({other.name}), which is neither its parent nor its sibling"
            scope.unsupported(hosts[process.pid], what, reason)
        for finish in scope.finishers:
            finish()
        report_leaks(scope, holders)
        scope.blockers.raise_if_any()
        _refuse_unknown_externals(scope)
        root = _root(request, job)
        tids = {int(thread.tid) for process in job.processes.values() for thread in process.threads}

        def conclude() -> Snapshot:
            scope.blockers.raise_if_any()
            snapshot = Snapshot(
                orch=VERSION,
                job=request.name,
                root=root,
                machine=_machine(job),
                clocks=capture.clocks,
                namespaces=namespaces,
                processes=capture.processes,
                memories=capture.memories,
                file_tables=capture.file_tables,
                files=files.files,
                objects=scope.objects,
                filesystems=capture.filesystems,
                signal_actions=capture.signal_actions,
                page_bytes=scope.layout.length,
                seccomp_filters=capture.seccomp_filters,
                cgroups=cgroups.elsewhere.directories(tids),
                own_cgroups=cgroups.own.directories() if request.cgroup else [],
                chain=request.deltas.links(capture.memories) if request.deltas is not None else [],
            )
            _refuse_too_many_descriptors(snapshot, scope)
            return snapshot

    except BaseException:
        scope.close()
        raise
    return scope, capture, conclude


def _machine(job: HeldJob) -> Machine:
    system = os.uname()
    return Machine(arch.MACHINE, system.release, vdso.digest(), _xstate_bytes(job), system.nodename)


def _refuse_unknown_externals(scope: Scope) -> None:
    """Raise UsageError if --external names one resource ("pipe[123]", unlike "unix") that the job does not have."""
    unknown = sorted(key for key in scope.externals - scope.found if "[" in key)
    if unknown:
        raise UsageError(
            f"--external {unknown[0]}: no process of the job has that open",
            hint="without it, the checkpoint names what the job shares with the outside, and the option for each",
        )


def _refuse_too_many_descriptors(snapshot: Snapshot, scope: Scope) -> None:
    """Raise Unsupported if no process here may have as many descriptors as the first process of a restore needs."""
    limit = most_descriptors()
    needed = needed_limit(snapshot, limit)
    if needed > limit:
        most = max(snapshot.file_tables, key=lambda table: len(table.descriptors))
        placer = placers(snapshot)[most.id]
        scope.unsupported(
            next(host for host, pid in scope.pids.items() if pid == placer),
            f"{len(most.descriptors)} descriptors",
            f"a restore would need a limit of {needed} open files, and it is {limit}",
            "raise the hard limit of open files (ulimit -Hn)",
        )
        scope.blockers.raise_if_any()


def _root(request: Request, job: HeldJob) -> Pid:
    if request.root is not None and request.root in job.processes:
        return job.processes[request.root].pid
    if request.tree is not None:
        return job.processes[request.tree].pid
    roots = [p for p in job.processes.values() if p.stat.ppid not in job.processes]
    return min(roots, key=lambda p: (p.stat.starttime, p.host)).pid


def _xstate_bytes(job: HeldJob) -> int:
    return max(len(thread.xstate) for process in job.processes.values() for thread in process.threads)
