"""Rebuild a job from an image: from an empty process to a tree that runs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from orchestrator.errors import CannotHonour, RebuildFailed
from orchestrator.ids import DepotFd, HostPid, HostTid, ObjectId, Pid, Tid
from orchestrator.image.reader import ImageFile
from orchestrator.kinds.files.depot import (
    claims,
    finish_depot,
    first_holders,
    flock_takers,
    leave_depot,
    lock_table,
    place_table,
    rebuild_depot,
    settle_table,
    take_own_flocks,
)
from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.files.namespace import outer_namespaces, wanted_outer
from orchestrator.kinds.files.procfile import share, shared_files
from orchestrator.kinds.files.slots import Slots, close_all_but
from orchestrator.kinds.memory.rebuild import Backings, fill_pages
from orchestrator.kinds.memory.record import PageRun
from orchestrator.kinds.memory.shared import open_shared, seal_shared
from orchestrator.kinds.memory.sysv import SysvSegment, attach_vma, ensure_segment, finish_segment, segments_of
from orchestrator.kinds.sockets.tcp_release import KeptConnections
from orchestrator.kinds.task import registers, signals
from orchestrator.kinds.task.process import OUTSIDE, Process
from orchestrator.kinds.task.traps import arm
from orchestrator.kinds.terminals.claim import claim_masters, wanted_masters
from orchestrator.kinds.terminals.ends import slave_in_depot
from orchestrator.linux import ptrace
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.proc_maps import read_maps
from orchestrator.linux.rlimits import many_descriptors, most_descriptors
from orchestrator.restore import seed
from orchestrator.restore.baseline import Baseline
from orchestrator.restore.descriptors import divide, placers
from orchestrator.restore.helper import by_image, write_pages
from orchestrator.restore.layout import plan_layout
from orchestrator.restore.lazy import Laziness, PagerProcess, plan_later, watch
from orchestrator.restore.patience import Patience
from orchestrator.restore.plan import Compiler, Plan, ProcessTapes, add_clone, parked
from orchestrator.restore.play import Actor, Birth, Stage, await_state, begin_sleep, behead, first_stop, resume
from orchestrator.restore.surroundings import Surroundings
from orchestrator.restore.threads import ThreadTapes
from orchestrator.restore.tree import INIT, Node
from orchestrator.snapshot import Snapshot
from orchestrator.tape.build import Tape
from orchestrator.tape.memory import Arena, ProcMemory
from orchestrator.tape.tracee import find_call_site

ARENA_BYTES = 512 << 20
_PROT_RWX, _MAP_SHARED_FIXED = 7, 0x11
_MREMAP_MAYMOVE_FIXED = 3
_CLONE_PARENT = 0x8000
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_MAX_FD = 0xFFFFFFFF
_NR_MMAP = 9
_STATUS_FD = 3
_SIGRT_FIRST, _NSIG = 32, 64


class Restored(msgspec.Struct):
    """A job that runs again."""

    child: HostPid
    """Our own child: the reaper of the new namespace, or the job's root itself."""
    root: HostPid
    """The job's root, to signal."""
    status_fd: int
    """Where the wait status of the root arrives (4 bytes), -1 if ``child`` is the root."""
    pids: dict[Pid, HostPid]
    seconds: float


class Descriptors(msgspec.Struct):
    """Standing descriptors of the depot, in the first process from its start."""

    slots: Slots
    numbers: dict[str, DepotFd] = msgspec.field(default_factory=dict)

    def give(self, name: str) -> DepotFd:
        """Return the number of a standing descriptor."""
        if name not in self.numbers:
            self.numbers[name] = self.slots.take()
        return self.numbers[name]


class Restore:
    """One restore, from the decoded image to the running job. ``surroundings`` knows namespaces and cgroup."""

    def __init__(
        self,
        image: ImageFile,
        snapshot: Snapshot,
        surroundings: Surroundings,
        inherited: Mapping[str, int],
        baseline: Baseline,
        controlling: frozenset[str] = frozenset(),
        laziness: Laziness | None = None,
        patience: Patience | None = None,
        gate: Callable[[], None] | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._gate = gate
        self._laziness = laziness
        self._pager: PagerProcess | None = None
        self._image = image
        self._snapshot = snapshot
        self._surroundings = surroundings
        self._masters: dict[str, int] = {}
        self._controlling = controlling
        self._outer: dict[str, int] = {}
        awaited = {**wanted_outer(snapshot.files), **dict.fromkeys(wanted_masters(snapshot.files, snapshot.objects))}
        self._given = {**dict.fromkeys(awaited, -1), **inherited}
        self._baseline = baseline
        self._layout = plan_layout(snapshot.memories, ARENA_BYTES)
        self._limit = most_descriptors()
        self._slots, self._apart, _ = divide(snapshot, self._limit)
        self._standing = Descriptors(self._slots)
        self._seals = Tape("seals")
        self._backings: Backings | None = None
        self._kept = KeptConnections()
        self._hosts: dict[Pid, HostPid] = {}
        self._threads: dict[tuple[Pid, Tid], Actor] = {}

    def plan(self) -> tuple[Plan, Depot]:
        """Compile everything; returns the plan and the depot with its tape."""
        image_fd = self._standing.give("image")
        self._standing.numbers["arena"] = DepotFd(self._slots.passing)
        for number in self._image.ancestors:
            self._standing.give(_standing_name(number))
        for name in ("status", *(("cgroup",) if self._surroundings.cgroup_fd is not None else ())):
            self._standing.give(name)
        given = {key: self._standing.give(key) for key in self._given}
        slots = self._slots
        files = {file.id: file for file in self._snapshot.files}
        apart = {of for some in self._apart.values() for of in some}
        common = {of: file for of, file in files.items() if of not in apart}
        depot = Depot(
            Tape("depot"), slots, image_fd, self._image.pages_offset, common, self._snapshot.objects,
            inherited=given, scratch_address=self._layout.keep_out.end,
        )  # fmt: skip
        self._surroundings.before_depot(depot)
        takers = flock_takers(self._snapshot.files, frozenset(placers(self._snapshot).values()))
        rebuild_depot([*common.values()], depot, takers)
        mapped = {v.of for m in self._snapshot.memories for v in m.vmas if v.backing == "object"}
        objects = {of: open_shared(of, depot) for of in sorted(mapped)}
        segments = {v.of for m in self._snapshot.memories for v in m.vmas if v.backing == "sysv"}
        for of in sorted(segments):
            existing = () if "ipc" in self._surroundings.new else segments_of(HostPid(os.getpid()))
            ensure_segment(of, depot, existing)
            finish_segment(self._segment(of), self._seals)
        self._backings = backings = Backings(
            image_fd,
            self._image.pages_offset,
            lambda of: depot.slot(ObjectId(of)),
            lambda of: objects[ObjectId(of)],
            lambda of, vma, tape: attach_vma(self._segment(of), vma, tape),
            {
                number: (self._standing.give(_standing_name(number)), other.pages_offset)
                for number, other in self._image.ancestors.items()
            },
        )
        tables = {table.id: table for table in self._snapshot.file_tables}
        first = first_holders(self._snapshot.file_tables)
        shared = shared_files(self._snapshot.files, self._snapshot.file_tables)

        def place_files(tape: Tape, pid: Pid, of: ObjectId) -> Callable[[Tape], None]:
            table = tables[of]
            slots = self._slots
            if pid == OUTSIDE:
                slots.close_the_rest(tape)
            if of in self._apart:
                own = {id_: files[id_] for id_ in self._apart[of]}
                slots = Slots(own, claims([table], own.values()), inherited=slots)
                theirs = Depot(tape, slots, image_fd, self._image.pages_offset, own, self._snapshot.objects, pid)
                rebuild_depot([*own.values()], theirs)
            place_table(table, tape, slots)
            take_own_flocks(tape, pid, files, takers, slots)
            settle_table(table, tape, slots, files, self._snapshot.objects, first, shared)

            def let_go(tape: Tape) -> None:
                leave_depot(table, tape, slots)
                lock_table(table, tape)

            return let_go

        compiler = Compiler(
            self._snapshot,
            self._layout,
            self._baseline,
            backings,
            place_files,
            lambda terminal: slave_in_depot(terminal, depot, self._controlling),
            special_sizes(self._snapshot),
            self._standing.numbers.get("cgroup"),
            plan_later(self._snapshot, self._image, self._laziness) if self._laziness is not None else {},
        )
        seal_shared(depot, self._seals)
        plan = compiler.compile()
        plan.gather += share(shared, placers(self._snapshot), files, depot.slot)
        return plan, depot

    def _segment(self, of: int) -> SysvSegment:
        record = self._snapshot.objects[of]
        assert isinstance(record, SysvSegment)
        return record

    def run(self) -> Restored:
        """Rebuild the job and let it run. Leaves nothing behind on failure."""
        with many_descriptors():
            return self._run()

    def _run(self) -> Restored:
        began = time.monotonic()
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        arena = Arena(self._layout.arena, self._layout.arena_bytes)
        stage: Stage | None = None
        child = None
        try:
            self._outer = outer_namespaces(self._snapshot.files)
            self._masters = claim_masters(self._snapshot.files, self._snapshot.objects)
            self._given.update(self._masters)
            self._given.update(self._outer)
            plan, depot = self.plan()
            self._check_room()
            stage, seed_actor = self._sow(arena, status_write)
            own_init = plan.tree.origin.process is not None
            first = self._found(stage, seed_actor, own_init=own_init)
            child = HostPid(first.tracee.tid)
            self._surroundings.inside(stage, first, depot, own_init=own_init)
            finish_depot(self._snapshot.files, depot, child)
            self._kept.take(self._snapshot.files, child, depot.slot)
            self._grow(stage, first, plan)
            self._finish(stage, plan)
            self._kept.release()
            if self._gate is not None:
                self._gate()
            self._wake(stage, first, own_init=own_init)
            if self._pager is not None:
                self._pager.begin()
        except BaseException:
            if stage is not None:
                stage.kill()
            if self._pager is not None:
                self._pager.abandon()
            self._surroundings.places.undo()
            self._kept.close()
            os.close(status_read)
            raise
        finally:
            os.close(status_write)
            self._let_masters_go()
            for fd in self._outer.values():
                os.close(fd)
            arena.close()
            self._surroundings.close()
        if own_init:
            os.close(status_read)
            status_read = -1
        return Restored(
            child, self._hosts[self._snapshot.root], status_read, dict(self._hosts), time.monotonic() - began
        )

    def _let_masters_go(self) -> None:
        """Close our own descriptors of terminals: a terminal ends with the last one of its master."""
        while self._masters:
            os.close(self._masters.popitem()[1])

    def _check_room(self) -> None:
        if self._slots.highest >= self._limit:
            raise CannotHonour(
                f"the restore needs descriptor numbers up to {self._slots.highest}, and the limit is {self._limit}",
                hint="raise the hard limit of open files (ulimit -Hn)",
            )

    def _sow(self, arena: Arena, status_write: int) -> tuple[Stage, Actor]:
        """Start the seed and map the arena in it."""
        ours = {"image": self._image.fd, "arena": arena.fd, "status": status_write, **self._given}
        ours.update({_standing_name(number): other.fd for number, other in self._image.ancestors.items()})
        if self._surroundings.cgroup_fd is not None:
            ours["cgroup"] = self._surroundings.cgroup_fd
        numbers = self._standing.numbers
        pid = seed.spawn({numbers[name]: fd for name, fd in ours.items()})
        self._let_masters_go()
        try:
            first_stop(pid, suspend_seccomp=self._has_seccomp())
            base = arch.unpack_registers(ptrace.get_regset(pid, ptrace.NT_PRSTATUS))
            arch.forget_call(base)
            loop = arena.reserve(len(arch.TAPE_LOOP))
            arena.write(loop, arch.TAPE_LOOP)
            stage = Stage(arena, loop, base, seed.SYSCALL, self._patience)
            actor = stage.adopt(HostTid(pid), Pid(pid), Tid(pid))
            result = actor.tracee.call(
                _NR_MMAP, arena.base, arena.size, _PROT_RWX, _MAP_SHARED_FIXED, numbers["arena"], 0
            )
            if result != arena.base:
                raise RebuildFailed(f"the arena could not be mapped: {os.strerror(-result)}")
        except BaseException:
            with contextlib.suppress(OSError):
                os.kill(pid, 9)
                os.waitpid(pid, ptrace.WALL)
            raise
        return stage, actor

    def _found(self, stage: Stage, seed_actor: Actor, *, own_init: bool) -> Actor:
        """Make the first process inside of the new namespaces, and let the seed go."""
        born: list[Actor] = []

        def remember(actor: Actor) -> list[Birth]:
            born.append(actor)
            if not inside:  # then it has whatever number was free
                actor.tracee.pid, actor.tracee.vtid = Pid(actor.tracee.tid), Tid(actor.tracee.tid)
            return []

        inside = self._surroundings.new_pid_namespace
        blank = Tape("first process: park vvar and vdso")
        sizes = special_sizes(self._snapshot)
        spans = parked(sizes, self._layout)
        for line in read_maps(seed_actor.tracee.tid):
            name = line.path.decode().strip("[]")
            if name in spans:
                if line.end - line.start != sizes[name]:
                    raise CannotHonour(f"this kernel's {name} differs in size from the image's")
                blank.mremap(line.start, sizes[name], sizes[name], _MREMAP_MAYMOVE_FIXED, spans[name].start)
        close_all_but(blank, sorted(number for name, number in self._standing.numbers.items() if name != "arena"))
        for number in range(_SIGRT_FIRST, _NSIG + 1):  # posix_spawn cannot reset libc's own two
            blank.rt_sigaction(number, bytes(32), 0, 8)
        blank.chdir("/")
        blank.umask(0)
        tape = self._surroundings.clone_tape(stage, seed_actor)
        into = self._standing.numbers.get("cgroup") if own_init else None
        add_clone(tape, INIT if inside else None, self._surroundings.flags | _CLONE_PARENT, 0, into)
        stage.play(seed_actor, tape, [Birth(Pid(1), Tid(1), blank, remember)])
        first = born[0]
        seed_tid = seed_actor.tracee.tid
        os.kill(seed_tid, 9)
        del stage.actors[seed_tid]
        while os.WIFSTOPPED(os.waitpid(seed_tid, ptrace.WALL)[1]):
            ptrace.cont(seed_tid)
        return first

    def _births(self, plan: Plan, tapes: ProcessTapes) -> list[Birth]:
        return [self._birth(plan, node) for node in tapes.births]

    def _birth(self, plan: Plan, node: Node) -> Birth:
        tapes = plan.tapes[node.pid]

        def born(actor: Actor) -> list[Birth]:
            self._hosts[node.pid] = HostPid(actor.tracee.tid)
            self._threads[node.pid, Tid(node.pid)] = actor
            self._surroundings.born(node, HostPid(actor.tracee.tid))
            return self._births(plan, tapes)

        return Birth(node.pid, Tid(node.pid), tapes.grow, born)

    def _grow(self, stage: Stage, first: Actor, plan: Plan) -> None:
        origin = plan.tree.origin
        self._hosts[origin.pid] = HostPid(first.tracee.tid)
        self._threads[origin.pid, Tid(origin.pid)] = first
        if origin.process is not None:
            self._surroundings.born(origin, HostPid(first.tracee.tid))
        tapes = plan.tapes[origin.pid]
        stage.play(first, tapes.grow, self._births(plan, tapes))
        for pid, others in plan.tapes.items():
            if others.fill is not None:
                self._fill(stage, self._threads[pid, Tid(pid)], others.fill, others.helped)
        missing = {pid: tapes.missing for pid, tapes in plan.tapes.items() if tapes.missing}
        if missing and self._laziness is not None:
            world = watch(stage, {pid: self._threads[pid, Tid(pid)] for pid in missing}, missing)
            self._pager = PagerProcess(world, self._image, self._laziness)
        stage.play(first, self._seals)
        for step in plan.gather:
            for pid, tape in step.items():
                stage.start(self._threads[pid, Tid(pid)], tape)
            stage.run()

    def _fill(self, stage: Stage, actor: Actor, tape: Tape, helped: Sequence[PageRun]) -> None:
        """Fill large memory together with its process."""
        assert self._backings is not None
        stage.start(actor, tape)
        pid = HostPid(actor.tracee.tid)
        left: list[PageRun] = []
        for image, runs in by_image(helped, self._image):
            left += write_pages(pid, image.fd, image.pages_offset, runs)
        stage.run()
        if left:
            alone = Tape(tape.label)
            fill_pages(alone, left, self._backings)
            stage.play(actor, alone)

    def _finish(self, stage: Stage, plan: Plan) -> None:
        for pid, tapes in plan.tapes.items():
            if tapes.dress is None:
                continue
            births = [self._thread_birth(pid, one) for one in tapes.threads]
            stage.start(self._threads[pid, Tid(pid)], tapes.dress, births)
        stage.run()

    def _thread_birth(self, pid: Pid, tapes: ThreadTapes) -> Birth:
        tid = tapes.thread.tid

        def born(actor: Actor) -> list[Birth]:
            self._threads[pid, tid] = actor
            return [self._thread_birth(pid, one) for one in tapes.births]

        return Birth(pid, tid, tapes.tape, born)

    def _wake(self, stage: Stage, first: Actor, *, own_init: bool) -> None:
        """Give every task its own registers, take the arena away, and let go.

        Who is to stop goes first, while its parent can still be made to forget what it knows already.
        """
        unmapped: set[ObjectId] = set()
        stops: dict[HostTid, int] = {}
        ptrace_free: set[HostTid] = set()
        self._surroundings.cgroups.make()
        for process in reversed(self._snapshot.processes):
            if process.state is None:
                continue
            memory = self._snapshot.memories[process.state.memory]
            self._surroundings.settle(process, memory, self._hosts[process.pid])
            own: dict[HostTid, int] = {}
            shared = 0
            for info in process.state.pending:
                shared |= 1 << int.from_bytes(info[:4], "little") - 1
            sleepers = {} if process.state.memory in unmapped else self._fall_asleep(stage, process, shared)
            for thread in process.threads:
                actor = self._threads[process.pid, thread.tid]
                if thread.places:
                    self._surroundings.places.put(thread.places, actor.tracee.tid)
                if thread.cgroup is not None and self._surroundings.has_cgroup:
                    self._surroundings.cgroups.put(thread.cgroup, actor.tracee.tid, alone=True)
                pending = shared
                for info in thread.pending:
                    pending |= 1 << int.from_bytes(info[:4], "little") - 1
                wanted = registers.for_resume(thread.registers, pending & ~thread.signal_mask)
                wanted = sleepers.get(thread.tid, wanted)
                unmap = None
                if process.state.memory not in unmapped:
                    unmapped.add(process.state.memory)
                    unmap = (self._vdso_syscall(process), *self._arena_range())
                resume(actor.tracee, wanted, thread.extended_state, thread.signal_mask, unmap)
                if thread.traps is not None:
                    arm(actor.tracee.tid, thread.traps)
                own[actor.tracee.tid] = process.state.stopped_by if thread is process.threads[0] else 0
            if process.headless:
                self._await_pager()
                behead(
                    stage,
                    self._threads[process.pid, Tid(process.pid)],
                    self._vdso_syscall(process),
                    process.exit_status,
                )
            parent = self._told_parent(process, unmapped)
            if parent is None:
                stops |= own
            else:
                self._await_pager()
                _let_go(own)
                ptrace_free |= own.keys()
                stage.play(self._threads[parent.pid, Tid(parent.pid)], self._forget_stop(process, parent))
        self._surroundings.cgroups.settle()
        if not own_init:
            self._retire_init(stage, first)
        self._await_pager()
        _let_go(stops)
        ptrace_free |= stops.keys()
        for tid in list(stage.actors):
            if tid not in ptrace_free:
                ptrace.detach(tid)
            del stage.actors[tid]

    def _await_pager(self) -> None:
        """See that who brings the job's memory may be killed from here on: then the job may run."""
        if self._pager is not None:
            self._pager.await_ready()

    def _fall_asleep(self, stage: Stage, process: Process, pending: int) -> dict[Tid, bytes]:
        """Let threads begin what is left of their sleeps, unless a signal ends these anyhow; the kernel remembers it.

        Return their registers with which each sleeps on.
        """
        sleepers = {}
        for thread in process.threads:
            signals_left = pending | signals.mask_of(thread.pending)
            if thread.sleep is not None and not signals_left & ~thread.signal_mask:
                actor = self._threads[process.pid, thread.tid]
                sleeps = begin_sleep(stage, actor, thread.sleep, self._vdso_syscall(process))
                sleepers[thread.tid] = registers.to_sleep_on(thread.registers, is_over=not sleeps)
        return sleepers

    def _told_parent(self, process: Process, unmapped: set[ObjectId]) -> Process | None:
        """Return the parent of a process that is to stop, if it was told of that and can still play a tape."""
        if process.state is None or not process.state.stopped_by:
            return None
        parent = next((one for one in self._snapshot.processes if one.pid == process.parent), None)
        if parent is None or parent.state is None or parent.headless or parent.state.memory in unmapped:
            return None
        return parent

    def _forget_stop(self, process: Process, parent: Process) -> Tape:
        """Let a parent take what it hears of a stop once more."""
        assert process.state is not None
        assert parent.state is not None
        actions = next(one for one in self._snapshot.signal_actions if one.id == parent.state.signal_actions)
        tape = Tape(f"{parent.pid}: forget the stop of {process.pid}")
        signals.tell_stop_known(
            tape, process.pid, actions.actions, parent.state.pending, waited=process.state.stop_told
        )
        return tape

    def _retire_init(self, stage: Stage, first: Actor) -> None:
        """Let process 1 become the reaper of its namespace."""
        tape = Tape("process 1: keep one descriptor")
        tape.dup3(self._standing.numbers["status"], _STATUS_FD, os.O_CLOEXEC)
        tape.close_range(_STATUS_FD + 1, _MAX_FD, 0)
        tape.prctl(_PR_SET_NAME, b"orch-init\0", 0, 0, 0)
        tape.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # process 1 of a namespace is one already
        stage.play(first, tape)
        values = first.tracee.registers.copy()
        stack = next(line for line in read_maps(first.tracee.tid) if line.path == b"[stack]")
        arch.enter_init(values, seed.INIT, stack.end - 4096, self._snapshot.root, _STATUS_FD)
        resume(first.tracee, arch.pack_registers(values), b"", (1 << 64) - 1, (seed.SYSCALL, *self._arena_range()))

    def _has_seccomp(self) -> bool:
        return any(thread.seccomp for process in self._snapshot.processes for thread in process.threads)

    def _arena_range(self) -> tuple[int, int]:
        return self._layout.arena, self._layout.arena_bytes

    def _vdso_syscall(self, process: Process) -> int:
        assert process.state is not None
        memory = self._snapshot.memories[process.state.memory]
        vdso = next((vma for vma in memory.vmas if vma.backing == "vdso"), None)
        if vdso is None:
            return self._find_call_site(process)
        from orchestrator.linux.vdso import syscall_offset

        return vdso.start + syscall_offset(arch.SYSCALL_INSTRUCTION)

    def _find_call_site(self, process: Process) -> int:
        memory = ProcMemory(self._hosts[process.pid])
        try:
            found = find_call_site(self._hosts[process.pid], memory)
        finally:
            memory.close()
        if not found:
            raise RebuildFailed(f"process {process.pid} has no system-call instruction anywhere")
        return found


def _standing_name(number: int) -> str:
    return f"image {number}"


def _let_go(stops: Mapping[HostTid, int]) -> None:
    """Detach tasks, with the signal that each is to stop by, or 0."""
    for tid, stop in stops.items():
        ptrace.detach(tid, stop)
        if stop:  # then its other threads, which come next, are told to stop before they are let go
            await_state(tid, "T")


def special_sizes(snapshot: Snapshot) -> dict[str, int]:
    """Return the sizes of vvar and vdso in bytes; all processes of one kernel have the same."""
    sizes: dict[str, int] = {}
    for memory in snapshot.memories:
        for vma in memory.vmas:
            if vma.backing in ("vvar", "vvar_vclock", "vdso"):
                sizes[vma.backing] = vma.end - vma.start
    return sizes
