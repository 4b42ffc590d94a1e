"""Compile an image into tapes: for every process what it plays, stage by stage.

Pure: needs no root and touches nothing, so it is tested with plain data and ``orch restore --dry-run``
prints it. Stages, with a barrier behind each:

grow
    every process makes its memory, session and group, and forks its children in between
gather
    processes enter groups that others founded; stand-ins end, then zombies; a barrier behind each step
dress
    descriptors, threads, handlers, timers, credentials: everything else
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from orchestrator.ids import ObjectId, Pid, Tid
from orchestrator.kinds.memory.heirlooms import plan_heirlooms
from orchestrator.kinds.memory.lazily import Area, Later
from orchestrator.kinds.memory.rebuild import (
    Backings,
    Inherited,
    Span,
    fill_pages,
    rebuild_memory,
    shared_ranges,
    tell_merging,
)
from orchestrator.kinds.memory.record import AddressSpace, PageRun
from orchestrator.kinds.task import (
    attributes,
    audit,
    barriers,
    credentials,
    limits,
    scheduling,
    seccomp,
    signals,
    timers,
    userspace,
)
from orchestrator.kinds.task.filesystem import FilesystemContext, enter_removed, tell_filesystem
from orchestrator.kinds.task.numa import several_nodes
from orchestrator.kinds.task.process import OF_PROCESS, OUTSIDE, Process, Thread, main_thread, other_threads
from orchestrator.kinds.terminals.session import SlaveOf, tell_controlling, tell_foreground
from orchestrator.restore.baseline import Baseline
from orchestrator.restore.ends import plan_ends
from orchestrator.restore.helper import halves
from orchestrator.restore.layout import Layout
from orchestrator.restore.threads import ThreadTapes, beget
from orchestrator.restore.tree import INIT, Node, Tree, plan_tree
from orchestrator.snapshot import Snapshot
from orchestrator.tape.build import Tape

_CLONE_ARGS = struct.Struct("<11Q")
_THREAD_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000  # VM FS FILES SIGHAND THREAD SYSVSEM
_CLONE_FS, _CLONE_FILES = 0x200, 0x400
_CLONE_PARENT = 0x8000
_NOWHERE = FilesystemContext(ObjectId(-1), "", "/", -1)
_CLONE_INTO_CGROUP = 0x2_0000_0000
_SIGCHLD = 17
_SPECIAL_ORDER = ("vvar", "vvar_vclock", "vdso")
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_DUMPABLE = 4
_RLIMIT_CORE = 4
_WALL = 0x40000000
_SIG_UNBLOCK = 1
_MAX_FD = 0xFFFFFFFF


class ProcessTapes(msgspec.Struct):
    """What one process plays."""

    node: Node
    grow: Tape
    births: list[Node] = msgspec.field(default_factory=list)
    """In the order of the clone3 entries of ``grow``."""
    fill: Tape | None = None
    """Fills in large memory, when all is mapped, while orch does the same with ``helped``."""
    helped: list[PageRun] = msgspec.field(default_factory=list)
    missing: list[Area] = msgspec.field(default_factory=list)
    """What comes when the process runs."""
    dress: Tape | None = None
    threads: list[ThreadTapes] = msgspec.field(default_factory=list)
    """In the order of the clone3 entries of ``dress``."""


class Plan(msgspec.Struct):
    """Everything that a restore will do inside of tasks."""

    snapshot: Snapshot
    layout: Layout
    tree: Tree
    tapes: dict[Pid, ProcessTapes]
    gather: list[dict[Pid, Tape]]
    """What is played when everybody is there; a barrier behind each."""

    def render(self) -> Iterator[str]:
        """Print all tapes, as strace would."""
        for pid, tapes in self.tapes.items():
            name = tapes.node.process.name if tapes.node.process else "init" if pid == INIT else "stand-in"
            stages = [("grow", tapes.grow)]
            if tapes.fill is not None:
                stages.append((f"fill, while orch fills {sum(run.length for run in tapes.helped)} bytes", tapes.fill))
            if tapes.missing:
                size = sum(run.length for area in tapes.missing for run in area.runs)
                yield f"{pid} ({name}) is resumed without {size} bytes of its memory"
            stages += (("gather", step[pid]) for step in self.gather if pid in step)
            if tapes.dress is not None:
                stages.append(("dress", tapes.dress))
            stages += [(f"thread {one.thread.tid}", one.tape) for one in _all_threads(tapes.threads)]
            for stage, tape in stages:
                if len(tape):
                    yield f"{pid} ({name}) {stage}:"
                    yield from (f"  {line}" for line in tape.entries())


def add_clone(tape: Tape, pid: int | None, flags: int, exit_signal: int, cgroup: int | None = None) -> None:
    """Add a clone3 entry that makes task ``pid``, or one with any number. See struct clone_args in clone(2).

    ``cgroup``: a descriptor of the cgroup v2 to be born in. Moving a process later would wait for an RCU
    grace period, some ten milliseconds.
    """
    exit_signal = 0 if flags & _CLONE_PARENT else exit_signal
    if cgroup is not None:
        flags |= _CLONE_INTO_CGROUP
    words = (flags, 0, 0, 0, exit_signal, 0, 0, 0, 0, int(pid is not None), cgroup or 0)
    arguments = tape.block(_CLONE_ARGS.pack(*words))
    if pid is not None:
        tape.point(arguments, 8 * 8, tape.block(pid.to_bytes(8, "little")))
    tape.clone3(arguments, _CLONE_ARGS.size)


def parked(sizes: dict[str, int], layout: Layout) -> dict[str, Span]:
    """Say where vvar and vdso lie while they are parked, from their sizes."""
    at, spans = layout.parking, {}
    for name in _SPECIAL_ORDER:
        if name in sizes:
            spans[name] = Span(at, at + sizes[name])
            at += sizes[name]
    return spans


PlaceFiles = Callable[[Tape, Pid, ObjectId], Callable[[Tape], None]]
"""(tape, process, table) -> what lets go of the depot. Locks of flock(2) are taken in the name of the process.

For a thread with a table of its own the process is OUTSIDE; it has a copy of its process's table then.
"""


class Compiler:
    """Turns a snapshot into a plan."""

    def __init__(
        self,
        snapshot: Snapshot,
        layout: Layout,
        baseline: Baseline,
        backings: Backings,
        place_files: PlaceFiles,
        slave_of: SlaveOf,
        special_sizes: dict[str, int],
        cgroup_fd: int | None,
        later: Mapping[Pid, Later] | None = None,
    ) -> None:
        """``later``: the processes of which memory may come when they run."""
        self._later = later or {}
        self._snapshot = snapshot
        self._layout = layout
        self._baseline = baseline
        self._backings = backings
        self._place_files = place_files
        self._slave_of = slave_of
        self._cgroup_fd = cgroup_fd
        self._blank = parked(special_sizes, layout)
        self._memories = {m.id: m for m in snapshot.memories}
        self._while_births = {**self._memories, **self._with_heirlooms()}
        """What each has while its children are born."""
        self._filesystems = {f.id: f for f in snapshot.filesystems}
        self._actions = {a.id: a for a in snapshot.signal_actions}
        self._tapes: dict[Pid, ProcessTapes] = {}

    def compile(self) -> Plan:
        """Compile every tape."""
        tree = plan_tree(self._snapshot.processes, self._shares_pages)
        for node in tree.nodes:
            self._grow(node)
        for node in tree.nodes:
            if node.process and node.process.state:
                self._dress(self._tapes[node.pid], node, node.process)
        return Plan(
            self._snapshot,
            self._layout,
            tree,
            self._tapes,
            [*gather(tree), tell_foreground(self._snapshot.processes, self._slave_of), self._enter_removed(tree)],
        )

    def _enter_removed(self, tree: Tree) -> dict[Pid, Tape]:
        """Write what must be done while all have the depot's descriptors, and what children must not inherit."""
        step = {}
        for node in tree.nodes:
            state = node.process.state if node.process else None
            if state is not None and not node.flags & 0x200 and self._filesystems[state.filesystem].is_removed:
                step[node.pid] = Tape(f"{node.pid}: enter a removed directory")
                enter_removed(step[node.pid], self._filesystems[state.filesystem], self._backings.file)
        return step

    def _with_heirlooms(self) -> dict[ObjectId, AddressSpace]:
        """Return the address spaces that are given to children before they are their process's own."""
        of = {p.pid: p.state.memory for p in self._snapshot.processes if p.state}
        users = Counter(of.values())
        parents = {
            of[p.pid]: of[p.parent]
            for p in self._snapshot.processes
            if p.state and p.parent in of and users[of[p.pid]] == users[of[p.parent]] == 1
        }
        spaces = {id_: space.vmas for id_, space in self._memories.items()}
        given = plan_heirlooms(spaces, parents, ascending=not self._snapshot.chain)
        return {id_: msgspec.structs.replace(self._memories[id_], vmas=vmas) for id_, vmas in given.items()}

    def _shares_pages(self, child: Process, parent: Process) -> bool:
        if not child.state or not parent.state or child.state.memory == parent.state.memory:
            return False
        wanted, have = self._while_births[child.state.memory], self._while_births[parent.state.memory]
        return bool(shared_ranges(wanted.vmas, have.vmas))

    def _login(self, node: Node | None) -> int:
        if node is None:
            return self._baseline.login
        return node.process.state.login if node.process and node.process.state else self._login(node.creator)

    def _inherited(self, node: Node) -> Inherited:
        creator = node.creator
        blank = Inherited((), self._blank, self._layout.keep_out, self._layout.parking, -1, None)
        if creator is None or (creator.process is None and not creator.is_stand_in):
            return blank
        state = creator.process.state if creator.process else None
        if state is None or not self._memory_before(creator, node):
            return self._inherited(creator)
        return self._having(self._while_births[state.memory])

    def _having(self, memory: AddressSpace) -> Inherited:
        special = {v.backing: Span(v.start, v.end) for v in memory.vmas if v.backing in _SPECIAL_ORDER}
        return Inherited(memory.vmas, special, self._layout.keep_out, self._layout.parking, memory.executable, memory)

    def _has_a_helper(self, node: Node) -> bool:
        """Whether orch fills part of its memory: that of one process, while there is nothing else to do."""
        alone = len(self._memories) == 1 and not (node.before_setsid or node.after_setsid)
        return alone and not several_nodes()

    def _memory_before(self, creator: Node, node: Node) -> bool:
        for step in self._steps(creator):
            if step == "memory":
                return True
            if step is node:
                return False
        raise AssertionError("a node is not among the births of its creator")

    def _steps(self, node: Node) -> Iterator[Node | str]:
        """Order a process's births, its setsid and its memory; the memory comes as late as it may."""
        done = False
        for births in (node.before_setsid, node.after_setsid):
            if births is node.after_setsid and node.makes_session:
                yield "session"
            yield from (birth for birth in births if birth.pid not in node.inherits)
            inheritors = [birth for birth in births if birth.pid in node.inherits]
            if inheritors and not done:
                done = True
                yield "memory"
            yield from inheritors
        if not done:
            yield "memory"

    def _grow(self, node: Node) -> None:
        process = node.process
        tape = Tape(f"{node.pid}: grow")
        tapes = ProcessTapes(node, tape)
        self._tapes[node.pid] = tapes
        if node.creator is None:  # it adopts whom nobody else does, in a PID namespace of the host too
            tape.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        audit.tell_login(tape, self._login(node), self._login(node.creator))
        heirlooms = False
        for step in self._steps(node):
            if step == "session":
                tape.setsid()
                if process is not None:
                    tell_controlling(tape, process, self._slave_of)
            elif isinstance(step, Node):
                exit_signal = step.process.exit_signal if step.process else _SIGCHLD
                into = self._cgroup_fd if step.process is not None and process is None else None
                add_clone(tape, step.pid, step.flags, exit_signal, into)
                tapes.births.append(step)
            elif process and process.state and not node.flags & 0x100:
                memory = self._while_births[process.state.memory]
                heirlooms = memory is not self._memories[process.state.memory]
                later: list[PageRun] | None = [] if self._has_a_helper(node) else None
                missing = None if heirlooms else self._later.get(process.pid)
                rebuild_memory(tape, memory, self._inherited(node), self._backings, later, missing)
                if missing is not None:
                    tapes.missing = missing.areas
                if later:
                    mine, tapes.helped = halves(later)
                    tapes.fill = Tape(f"{node.pid}: fill")
                    fill_pages(tapes.fill, mine, self._backings)
        if heirlooms and process and process.state:
            memory = self._memories[process.state.memory]
            rebuild_memory(tape, memory, self._having(self._while_births[memory.id]), self._backings)
        if node.makes_group:
            tape.setpgid(0, 0)

    def _dress(self, tapes: ProcessTapes, node: Node, process: Process) -> None:
        state = process.state
        assert state is not None
        base = self._baseline
        tape = Tape(f"{process.pid}: dress")
        tapes.dress = tape
        leader = main_thread(process)
        let_go = None if node.flags & _CLONE_FILES else self._place_files(tape, process.pid, state.files)
        if not node.flags & 0x200:
            tell_filesystem(tape, self._filesystems[state.filesystem], base.filesystem)
        if not node.flags & 0x800:
            signals.tell_actions(tape, self._actions[state.signal_actions].actions, [])
        if not node.flags & 0x100:
            barriers.tell_barriers(tape, self._memories[state.memory].barriers)
            attributes.tell_futex_slots(tape, state.attributes)
            if state.attributes.merges_memory:
                tell_merging(tape, self._memories[state.memory])
        attributes.tell_before_threads(tape, state.attributes, base.features)
        tapes.threads = self._beget(tape, process, leader, other_threads(process), 0)
        if let_go is not None:  # threads with tables of their own have theirs from the depot, too
            let_go(tape)
        signals.tell_no_child_signal(tape)
        timers.tell_posix_timers(tape, process.pid, state.posix_timers)
        limits.tell_limits(tape, state.limits, base.limits)
        self._thread_state(tape, process, leader)
        changed = leader.credentials != base.credentials
        attributes.tell_process(tape, state.attributes, credentials_changed=changed)
        signals.tell_pending(tape, process.pid, None, state.pending)
        timers.tell_interval_timers(tape, state.interval_timers)

    def _beget(
        self, tape: Tape, process: Process, maker: Thread, others: Sequence[Thread], depth: int
    ) -> list[ThreadTapes]:
        def install(tape: Tape, of: ObjectId) -> None:
            seccomp.tell_filter(tape, self._snapshot.seccomp_filters[of])

        def make(tape: Tape, thread: Thread, others: Sequence[Thread], depth: int) -> ThreadTapes:
            add_clone(tape, thread.tid, _THREAD_FLAGS & ~(_CLONE_FILES if thread.files != OF_PROCESS else 0), 0)
            return self._dress_thread(process, thread, others, depth)

        return beget(tape, maker, others, depth, install, make)

    def _dress_thread(self, process: Process, thread: Thread, others: Sequence[Thread], depth: int) -> ThreadTapes:
        assert process.state is not None
        tape = Tape(f"{process.pid}/{thread.tid}: dress")
        births = self._beget(tape, process, thread, others, depth)
        if thread.files != OF_PROCESS:
            self._place_files(tape, OUTSIDE, thread.files)(tape)
        if thread.filesystem != OF_PROCESS:
            tape.unshare(_CLONE_FS)
            tell_filesystem(tape, self._filesystems[thread.filesystem], _NOWHERE)
        self._thread_state(tape, process, thread)
        if thread.credentials != self._baseline.credentials and process.state.attributes.dumpable == 1:
            tape.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
        return ThreadTapes(thread, tape, births)

    def _thread_state(self, tape: Tape, process: Process, thread: Thread) -> None:
        base = self._baseline
        attributes.tell_name(tape, thread.attributes.name)
        attributes.tell_thread_before_credentials(tape, thread.attributes, base.attributes)
        scheduling.tell_scheduling(tape, thread.scheduling, base.scheduling)
        userspace.tell_addresses(tape, thread.addresses)
        credentials.tell_credentials(tape, thread.credentials, base.credentials)
        attributes.tell_thread_after_credentials(tape, thread.attributes)
        signals.tell_pending(tape, process.pid, Tid(thread.tid), thread.pending)
        if thread.seccomp is not None and thread.seccomp.strict:
            seccomp.tell_strict(tape)


def _all_threads(threads: Sequence[ThreadTapes]) -> Iterator[ThreadTapes]:
    for one in threads:
        yield one
        yield from _all_threads(one.births)


def gather(tree: Tree) -> Iterator[dict[Pid, Tape]]:
    """Write what brings the processes of a tree into their groups, and ends whoever is not to live."""
    joining = [node for node in tree.nodes if node.joins_group is not None]
    for first in (True, False):  # who keeps a group alive, then who leaves it
        step = {}
        for node in joining:
            if node.is_stand_in is first and node.joins_group is not None:
                step[node.pid] = Tape(f"{node.pid}: join a group")
                step[node.pid].setpgid(0, node.joins_group)
        yield step
    for round_ in plan_ends(tree):
        yield {node.pid: _become_subreaper(node) for node in round_.subreapers}
        yield {node.pid: _end(node) for node in round_.ends}
        reaps: dict[Pid, Tape] = {}
        for node in round_.ends:
            assert node.creator is not None
            reap = reaps.setdefault(node.creator.pid, Tape(f"{node.creator.pid}: reap"))
            reap.wait4(node.pid, 0, _WALL, 0)
        yield reaps
    yield {node.pid: _end_as(node.process) for node in tree.nodes if node.is_zombie and node.process is not None}


def _become_subreaper(node: Node) -> Tape:
    tape = Tape(f"{node.pid}: become a subreaper")
    tape.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return tape


def _end(node: Node) -> Tape:
    tape = Tape(f"{node.pid}: end")
    tape.ends_task = True
    tape.exit_group(0)
    return tape


def _end_as(process: Process) -> Tape:
    """Write the tape that ends a process with its recorded wait status."""
    tape = Tape(f"{process.pid}: end as a zombie")
    tape.ends_task = True
    number = process.exit_status & 0x7F
    attributes.tell_name(tape, process.name.encode())
    if not number:
        tape.exit_group(process.exit_status >> 8)
        return tape
    tape.prlimit64(0, _RLIMIT_CORE, bytes(16), 0)
    tape.rt_sigprocmask(_SIG_UNBLOCK, (1 << number - 1).to_bytes(8, "little"), 0, 8)
    tape.kill(process.pid, number)
    return tape
