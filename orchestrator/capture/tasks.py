"""Capture the processes of a held job: ask every task, and put the answers into records."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from orchestrator.capture.ahead import Ahead
from orchestrator.capture.hold import HeldJob, HeldProcess, make_workspaces
from orchestrator.capture.late import LateMemory, look_at
from orchestrator.capture.questions import Asked, Questions, ask_break
from orchestrator.capture.replica import Cloning, Keep, Replica
from orchestrator.capture.sharing import SharedStructures
from orchestrator.capture.threads import ThreadView, leave_rseq_section, read_threads, settle_interrupted_call
from orchestrator.capture.tracking import JobTracking
from orchestrator.errors import CaptureFailed
from orchestrator.ids import HostPid, ObjectId, Pid
from orchestrator.kinds.files.io_uring import IO_URING
from orchestrator.kinds.files.kind import FileTable
from orchestrator.kinds.memory.aio import AIO, any_contexts, probe_bytes, ring_name, save_ring
from orchestrator.kinds.memory.capture import CapturedMemory, Mappers, Pages, Placer, Range, capture_memory
from orchestrator.kinds.memory.record import AddressSpace, PageRun, Vma
from orchestrator.kinds.memory.tracked import TrackedMemory
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task import (
    attributes,
    audit,
    labels,
    refused,
    registers,
    seccomp,
    signals,
    sleeps,
)
from orchestrator.kinds.task.filesystem import FilesystemContext, capture_filesystem
from orchestrator.kinds.task.own_cgroups import JobCgroups
from orchestrator.kinds.task.places import Place
from orchestrator.kinds.task.process import OUTSIDE, Process, ProcessState, Thread
from orchestrator.linux import kcmp, ptrace
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.pidfd import open_task
from orchestrator.linux.proc_fd import list_fds
from orchestrator.linux.proc_maps import FlagsAhead, MapLine, read_maps
from orchestrator.linux.proc_misc import (
    cgroup_of,
    read_autogroup_nice,
    read_coredump_filter,
    read_oom_score_adj,
)
from orchestrator.linux.proc_stat import Stat, read_stat
from orchestrator.linux.proc_status import Status
from orchestrator.linux.procfs import inode_at
from orchestrator.snapshot import Clocks
from orchestrator.tape.build import Played, TapeError
from orchestrator.tape.tracee import TaskGone, Tracee

_TAPE_BYTES = 32 * 1024
_WALKED_LONG_KIB = 64 * 1024
"""From so much memory on, a thread that waits for what the kernel tells of it is worth its while."""
_NOBODYS = ObjectId(-1)


class MemoryToWrite(NamedTuple):
    """What is to be stored of one address space."""

    process: HeldProcess
    vmas: list[Vma]
    runs: list[PageRun]
    """What the process itself can write."""
    unreadable: list[PageRun]
    """What it has no permission to read."""

    @property
    def bytes(self) -> int:
        """How much it is."""
        return sum(run.length for run in self.runs) + sum(run.length for run in self.unreadable)


class _Turn(msgspec.Struct):
    """What is known of a process before it is its turn to be captured. A dead one has nothing but its number."""

    process: HeldProcess
    vm: ObjectId = _NOBODYS
    new_memory: bool = False
    views: Sequence[ThreadView] = ()
    sequences: Sequence[ptrace.RseqConfiguration] = ()
    asked: Asked | None = None
    """What the leader is playing."""
    cloning: Cloning | None = None
    """What it becomes a parent by."""

    def begin(self, asked: Asked, keep: Keep | None) -> None:
        """Let the leader play."""
        process = self.process
        if asked.birth is not None:
            assert keep is not None
            self.cloning = Cloning(process, asked.tape, asked.birth, keep)
        else:
            assert process.workspace is not None
            process.leader.start(asked.tape, process.workspace)
        self.asked = asked  # only now: whoever waits for its end must not wait for one that did not begin

    def finish(self) -> tuple[Played, Replica | None]:
        """Wait for what the leader plays."""
        if self.cloning is not None:
            finished = self.cloning.finish()
            self.asked = None
            return finished
        self.asked = None
        return self.process.leader.finish(), None


class JobCapture:
    """Captures process after process, parents first; shared structures are captured with the first that has them."""

    def __init__(
        self,
        job: HeldJob,
        scope: Scope,
        mappers: Mappers,
        table_of: Callable[[HeldProcess, HostPid | None], FileTable],
        table_of_thread: Callable[[HostPid, int, HostPid], FileTable],
        directory_of: Callable[[HostPid, str], ObjectId],
        cgroups: JobCgroups,
        ahead: Ahead,
        keep: Keep | None,
        tracking: JobTracking | None = None,
    ) -> None:
        """``keep`` gets the replicas, of what was foreseen."""
        self._job = job
        self._keep = keep
        self._tracking = tracking
        self._scope = scope
        self._mappers = mappers
        self._table_of = table_of
        self._table_of_thread = table_of_thread
        self._directory_of = directory_of
        self._of_threads: set[ObjectId] = set()
        self._elsewhere = cgroups.elsewhere
        self._own_cgroups = cgroups.own
        self._vm = SharedStructures(kcmp.KCMP_VM, ahead.alike(kcmp.KCMP_VM))
        self._fd = SharedStructures(kcmp.KCMP_FILES, ahead.alike(kcmp.KCMP_FILES))
        self._fs = SharedStructures(kcmp.KCMP_FS, ahead.alike(kcmp.KCMP_FS))
        self._sig = SharedStructures(kcmp.KCMP_SIGHAND)
        self._seccomp = seccomp.SeccompCollector(scope)
        self._asynchronous = any_contexts()
        self._turns: list[_Turn] = []
        self._workspaces: dict[ObjectId, HeldProcess] = {}
        self._questions = Questions(scope)
        self._flags: dict[ObjectId, FlagsAhead] = {}
        self._tracked: dict[ObjectId, TrackedMemory | None] = {}
        self._memory: dict[HostPid, CapturedMemory] = {}
        living = sum(not process.is_zombie for process in job.processes.values())
        self._parents = {process.stat.ppid for process in job.processes.values()}
        self._placer = Placer(scope.layout, alone=living < 2)
        self._ahead = ahead
        self._late: dict[HostPid, LateMemory] = {}
        self._describing: list[Callable[[bool], None]] = []
        self._locks_future = False
        self._controlled: dict[Pid, Stat] = {}
        self.processes: list[Process] = []
        self.memories: list[AddressSpace] = []
        self.file_tables: list[FileTable] = []
        self.filesystems: list[FilesystemContext] = []
        self.signal_actions: list[signals.SignalActions] = []
        self.clocks = Clocks(0, 0, 0)
        self.writes: list[MemoryToWrite] = []
        self.replicas: dict[HostPid, Replica] = {}
        """By process."""

    @property
    def has_replicas(self) -> bool:
        """Whether each process has one, and nothing that it does not have."""
        return bool(self._late) and len(self.replicas) == len(self._late) and not self._locks_future

    def describe_memory(self, *, by_replicas: bool) -> None:
        """Describe what was not described yet, by what the processes have, or their replicas when the job runs again.

        Raises CaptureFailed if a replica has not got what its process has.
        """
        for describe in self._describing:
            describe(by_replicas)

    @property
    def seccomp_filters(self) -> list[seccomp.SeccompFilter]:
        """The filters of all threads."""
        return self._seccomp.filters

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Have all processes begin to play what they are asked; with replicas, that takes them a while."""
        for process in parents_first(self._job.processes):
            if (turn := self._turn(process)) is not None:
                self._turns.append(turn)
        living = [turn for turn in self._turns if turn.views]
        self._lend_workspaces(living)
        owners = [turn for turn in living if turn.process.owns_workspace]
        if self._ahead.foreseen:
            self._late = look_at([turn.process for turn in owners], self._ahead.foreseen, self._mappers)
        if not self._late:
            self._look_ahead(owners)
        self._ahead.tell([turn.process.seen for turn in living])
        try:
            for turn in owners:
                if turn.vm not in self._flags:
                    self._begin_asking(turn)
            yield
        finally:
            for turn in self._turns:
                if turn.asked is not None:  # nobody wants its answers any more
                    with contextlib.suppress(OSError, TaskGone, TapeError):
                        self._finish(turn)

    def run(self) -> None:
        """Capture every process."""
        for turn in self._turns:
            self._capture(turn)
        if self._controlled:
            self._scope.finishers.append(self._find_terminals)

    def _turn(self, process: HeldProcess) -> _Turn | None:
        """Look at a process from outside; None if it cannot be asked anything."""
        if process.is_zombie:
            return _Turn(process)
        before = len(self._scope.blockers.unsupported)
        self._note_unaskable(process)
        views = read_threads(process, self._seccomp)
        if len(self._scope.blockers.unsupported) > before:
            return None
        assert process.memory is not None
        sequences = [leave_rseq_section(process.memory, view.thread) for view in views]
        return _Turn(process, *self._vm.identify(process.seen), views, sequences)

    def _parent(self, process: HeldProcess) -> HeldProcess | None:
        return self._job.processes.get(HostPid(process.stat.ppid))

    def _capture(self, turn: _Turn) -> None:
        process, vm, new_memory, views = turn.process, turn.vm, turn.new_memory, turn.views
        parent = self._parent(process)
        status = process.status
        common = {
            "pid": process.pid,
            "parent": parent.pid if parent else OUTSIDE,
            "group": Pid(status.ns_pgid[-1]),
            "session": Pid(status.ns_sid[-1]),
            "exit_signal": process.stat.exit_signal,
            "name": os.fsdecode(process.stat.comm),
        }
        if process.is_zombie:
            self.processes.append(Process(**common, threads=[], exit_status=process.stat.exit_code))  # type: ignore[arg-type]
            return
        if process.stat.tty_nr:
            self._controlled[process.pid] = process.stat
        sig, new_actions = self._sig.identify(process.seen, vm)  # see CLONE_SIGHAND in clone(2)
        places = cgroup_of(process.seen) if self._own_cgroups.asks or self._elsewhere.watches else {}
        cgroup = self._own_cgroups.of_process(places)
        threads = []
        answers: Mapping[str, Any] | None = None
        for view, rseq in zip(views, turn.sequences, strict=True):
            strays = self._elsewhere.of(process.seen, view.thread.tid, places)
            found, record = self._capture_thread(turn, view, rseq, strays, cgroup)
            threads.append(record)
            answers = answers or found
        assert answers is not None
        if new_actions:
            self.signal_actions.append(signals.SignalActions(sig, answers["actions"]))
        of_process = msgspec.structs.replace(answers["process"], keyring=answers["keyrings"].process)
        labels.note_label(self._scope, process.host, process.seen)
        refused.note_refused(self._scope, process.host, answers["refused"], status)
        self._locks_future |= answers.get("locks future", False)
        if new_memory:
            brk = ask_break(process) if vm in self._flags else answers["brk"]
            self._capture_memory(process, vm, parent, of_process, brk, answers["barriers"], threads[0])
        fd, new_table = self._fd.identify(process.seen)
        if new_table:
            self.file_tables.append(self._table_of(process, parent.seen if parent else None))
        fs, new_filesystem = self._fs.identify(process.seen)
        if new_filesystem:
            self.filesystems.append(capture_filesystem(fs, process.seen, status.umask, self._scope, self._directory_of))
        if not new_table and fd in self._of_threads:
            self._scope.unsupported(process.host, "file table", "it is shared with a thread that has one of its own")
        if any(view.own_files or view.own_filesystem for view in views):
            root = next(context.root for context in self.filesystems if context.id == fs)
            threads = [
                self._with_own_tables(process, view, thread, new_table, root)
                for view, thread in zip(views, threads, strict=True)
            ]
        for worker in process.workers:
            if IO_URING in self._scope.externals and "iou-wrk" in worker:  # it is made anew when there is work
                continue
            reason = "it works for the kernel (io_uring, vhost) and never leaves it"
            self._scope.unsupported(process.host, f"thread {worker}", reason)
        state = ProcessState(
            vm, fd, fs, sig,
            ptrace.peek_signals(process.seen, shared=True) if status.shd_pnd else [],
            of_process,
            answers["limits"],
            answers["interval timers"],
            answers["posix timers"],
            read_oom_score_adj(process.seen),
            cgroup,
            process.stopped_by,
            audit.login_of(process.host),
            stop_told=bool(process.stopped_by) and not process.stat.exit_code,
            session_nice=read_autogroup_nice(process.seen) if common["session"] == process.pid else 0,
        )  # fmt: skip
        exit_status = process.stat.exit_code if process.headless else 0
        self.processes.append(
            Process(**common, threads=threads, state=state, exit_status=exit_status, headless=process.headless)  # type: ignore[arg-type]
        )

    def _with_own_tables(
        self, process: HeldProcess, view: ThreadView, thread: Thread, process_has_table: bool, root: str
    ) -> Thread:
        """Record what a thread has for itself. Nothing of that may be shared with anybody else."""
        tid = HostPid(view.thread.tid)
        self._scope.names[tid] = process.name
        if view.own_files:
            what = f"descriptor table of thread {tid}"
            of, new = self._fd.identify(tid)
            if new:
                self._of_threads.add(of)
                pidfd = open_task(tid)
                self._scope.closers.append(pidfd)
                self.file_tables.append(self._table_of_thread(tid, pidfd, process.seen))
                thread = msgspec.structs.replace(thread, files=of)
            else:
                self._scope.unsupported(process.host, what, "it is shared, but not with the whole process")
            if view.seccomp is not None or not process_has_table:
                reason = "not that of the process, while filters, or the process's own, are shared with others"
                self._scope.unsupported(process.host, what, reason)
        if view.own_filesystem:
            what = f"working directory, root and umask of thread {tid}"
            of, new = self._fs.identify(tid)
            if new:
                context = capture_filesystem(of, tid, view.status.umask, self._scope, self._directory_of)
                self.filesystems.append(context)
                thread = msgspec.structs.replace(thread, filesystem=of)
                if context.is_removed or context.root != "/" or root != "/":
                    reason = "not those of the process, and one was removed or the root is not that of the machine"
                    self._scope.unsupported(process.host, what, reason)
            else:
                self._scope.unsupported(process.host, what, "it is shared, but not with the whole process")
        return thread

    def _note_unaskable(self, process: HeldProcess) -> None:
        scope, pid = self._scope, process.host
        if not arch.is_64_bit(process.leader.registers):
            scope.unsupported(pid, "32-bit code", "only 64-bit processes can be saved")
            return
        for thread in process.threads:
            refused.note_privileged(scope, pid, thread.tid, thread.registers)
        if not process.leader.syscall_at:
            scope.unsupported(pid, "memory", "it holds no system-call instruction anywhere")

    def _find_terminals(self) -> None:
        """Say which terminals control whom, when all that the job has are known."""
        from orchestrator.kinds.terminals.session import resolve_terminals

        groups = {p.status.ns_pgid[0]: Pid(p.status.ns_pgid[-1]) for p in self._job.processes.values()}
        resolve_terminals(self._scope, self._controlled, groups, self.processes)

    def _lend_workspaces(self, turns: Iterable[_Turn]) -> None:
        """Give each address space memory for tapes."""
        wanted = []
        for turn in turns:
            if turn.vm not in self._workspaces:
                self._workspaces[turn.vm] = turn.process
                probing = probe_bytes(turn.process.seen) if self._asynchronous else 0
                wanted.append((turn.process, _TAPE_BYTES + probing))
        make_workspaces(wanted)
        for turn in turns:
            turn.process.workspace = self._workspaces[turn.vm].workspace

    def _look_ahead(self, turns: Iterable[_Turn]) -> None:
        """Begin to look at large address spaces."""
        for turn in turns:
            owner = turn.process
            tracked = self._tracking.memory_of(owner, turn.vm) if self._tracking is not None else None
            self._tracked[turn.vm] = tracked
            if owner.status.vm_rss_kib >= _WALKED_LONG_KIB:
                self._flags[turn.vm] = FlagsAhead(owner.seen)
            if tracked is not None:  # now, as nobody overtakes who walks slowly through the same page tables
                with Pages(owner.seen) as pages:
                    tracked.look(pages, read_maps(owner.seen))

    def _begin_asking(self, turn: _Turn) -> None:
        """Let the leader of a process begin to play what it is asked."""
        leader = turn.views[0]
        settle_interrupted_call(leader.thread, leader.status)
        turn.begin(self._ask(turn, leader.thread, leader.status), self._keep)

    def _ask(self, turn: _Turn, thread: Tracee, status: Status) -> Asked:
        process = turn.process
        replica = thread is process.leader and process.owns_workspace and process.host in self._late
        return self._questions.of(process, thread, status, walked=turn.vm in self._flags, replica=replica)

    def _finish(self, turn: _Turn) -> Played:
        played, replica = turn.finish()
        if replica is not None:
            self.replicas[turn.process.host] = replica
        return played

    def _capture_thread(
        self,
        turn: _Turn,
        view: ThreadView,
        rseq: ptrace.RseqConfiguration,
        strays: tuple[Place, ...],
        cgroup: str,
    ) -> tuple[Mapping[str, Any], Thread]:
        process, thread, status = turn.process, view.thread, view.status
        assert process.workspace is not None
        if turn.asked is None:
            settle_interrupted_call(thread, status)
        assert process.memory is not None
        as_called = thread.registers.copy()
        sleeps.name_restarted_call(as_called, process.memory)
        asked = turn.asked
        if asked is not None:
            played = self._finish(turn)
        else:
            asked = self._ask(turn, thread, status)
            played = thread.play(asked.tape, process.workspace)
        answers = asked.read(played)
        if "clocks" in answers:
            self.clocks = Clocks(time.time_ns(), *answers["clocks"])
        keys = answers["keyrings"]
        if answers["landlock"]:
            refused.note_landlock(self._scope, process.host, thread.tid)
        refused.note_keys(self._scope, process.host, thread.tid, keys)
        record = Thread(
            thread.vtid,
            registers.for_image(as_called),
            thread.xstate,
            thread.sigmask,
            ptrace.peek_signals(thread.tid, shared=False) if status.sig_pnd else [],
            msgspec.structs.replace(answers["attributes"], keyring=keys.thread),
            answers["credentials"],
            answers["scheduling"],
            msgspec.structs.replace(answers["addresses"], rseq=(rseq.address, rseq.size, rseq.signature, rseq.flags)),
            view.seccomp,
            places=strays,
            traps=process.traps.get(thread.tid),
            cgroup=self._own_cgroups.of_thread(thread.tid, cgroup),
            sleep=sleeps.capture_sleep(as_called, process.memory),
        )
        return answers, record

    def _capture_memory(
        self,
        process: HeldProcess,
        vm: ObjectId,
        parent: HeldProcess | None,
        of_process: attributes.ProcessAttributes,
        brk: int,
        registered: int,
        leader: Thread,
    ) -> None:
        assert process.workspace is not None
        ours = Range(process.workspace.base, process.workspace.base + process.workspace.size)
        policy = leader.attributes.memory_policy
        late = self._late.get(process.host)

        def describe(pid: HostPid, mappers: Mappers) -> CapturedMemory:
            relative = self._memory.get(parent.host) if parent else None
            return capture_memory(
                pid, self._scope, mappers, self._placer, relative, ours, policy,
                has_children=process.host in self._parents,
                tracked=self._tracked.get(vm),
                ahead=self._flags.pop(vm, None),
            )  # fmt: skip

        def conclude(found: CapturedMemory) -> None:
            self._memory[process.host] = found
            self.memories[at] = msgspec.structs.replace(
                self.memories[at], vmas=found.vmas, lock_future=found.lock_future
            )
            self._write_later(process, found)

        def describe_late(by_replica: bool) -> None:
            assert late is not None
            if by_replica:
                replica = self.replicas[process.host].host
                self._scope.names[replica] = process.name
                found = describe(replica, late.mappers)
                late.refuse_changed(found)
            else:
                found = describe(process.seen, self._mappers)
            conclude(found)

        memory = describe(process.seen, self._mappers) if late is None else None
        known: CapturedMemory | LateMemory | None = memory or late
        assert known is not None
        stat = process.stat if not process.headless else read_stat(process.seen)
        at = len(self.memories)
        self.memories.append(
            AddressSpace(
                vm, [],
                stat.start_code, stat.end_code, stat.start_data, stat.end_data, stat.start_brk, brk, stat.start_stack,
                stat.arg_start, stat.arg_end, stat.env_start, stat.env_end,
                process.auxv, self._executable(process, known.lines),
                of_process.dumpable, bool(of_process.thp_disable), read_coredump_filter(process.seen),
                0, registered,
            )
        )  # fmt: skip
        if memory is not None:
            for number, vma in enumerate(memory.vmas):
                if vma.backing == AIO:
                    memory.vmas[number] = self._capture_ring(process, vma)
            conclude(memory)
        else:
            self._describing.append(describe_late)

    def _write_later(self, process: HeldProcess, memory: CapturedMemory) -> None:
        unreadable = set(memory.unreadable)
        own = [run for run in memory.own if run not in unreadable] if unreadable else memory.own
        self.writes.append(MemoryToWrite(process, memory.vmas, own, memory.unreadable))

    def _capture_ring(self, process: HeldProcess, vma: Vma) -> Vma:
        """Let a process find out whether something is on its way in a context of asynchronous I/O."""
        from orchestrator.kinds.memory.aio_probe import Play, Unclear, requests_on_their_way

        workspace, memory, scope = process.workspace, process.memory, self._scope
        assert workspace is not None
        assert memory is not None
        what, hint = ring_name(vma.start, vma.end), f"--external {AIO} lets go of them"
        if any(blocker.object == what for blocker in scope.blockers.unsupported):
            return vma
        if AIO not in scope.externals:
            used = set(list_fds(process.seen))
            free = next(number for number in range(len(used) + 1) if number not in used)
            self._ahead.distrust(process.seen)
            play: Play = lambda tape: process.leader.play(tape, workspace)  # noqa: E731
            try:
                count = requests_on_their_way(play, memory, vma, free, sorted(os.sched_getaffinity(0)))
            except Unclear:
                reason = "requests may be on their way, which the kernel does not show"
                scope.unsupported(process.host, what, reason, hint)
            else:
                if count:
                    scope.unsupported(
                        process.host, what, f"{count} requests are on their way and do not come back", hint
                    )
        return save_ring(scope, memory, vma)

    def _executable(self, process: HeldProcess, lines: Iterable[MapLine]) -> ObjectId:
        link = f"/proc/{process.seen}/exe"
        inode = inode_at(link)
        line = next((line for line in lines if line.inode == inode and line.path), None)
        if line is None:
            self._scope.unsupported(process.host, f"executable {os.readlink(link)}", "it is not mapped any more")
            return ObjectId(-1)
        return self._mappers.file(process.seen, _as_private(line), False)


def _as_private(line: MapLine) -> MapLine:
    return line._replace(shared=False)


def parents_first(processes: dict[HostPid, HeldProcess]) -> list[HeldProcess]:
    """Order processes so that a parent stands before its children."""
    ordered: list[HeldProcess] = []
    children: dict[int, list[HeldProcess]] = {}
    roots = []
    for process in sorted(processes.values(), key=lambda p: (p.stat.starttime, p.host)):
        if HostPid(process.stat.ppid) in processes:
            children.setdefault(process.stat.ppid, []).append(process)
        else:
            roots.append(process)
    stack = list(reversed(roots))
    while stack:
        process = stack.pop()
        ordered.append(process)
        stack += reversed(children.get(process.host, []))
    if len(ordered) != len(processes):
        raise CaptureFailed("the processes do not form a tree")
    return ordered
