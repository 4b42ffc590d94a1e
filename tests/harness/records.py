"""Records of an image, made plainly: everything as a fresh process has it, but for what a test names."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.ids import ObjectId, Pid, Tid
from orchestrator.kinds.files.kind import FileTable
from orchestrator.kinds.memory.rebuild import Backings
from orchestrator.kinds.memory.record import AddressSpace, Vma
from orchestrator.kinds.task.attributes import ProcessAttributes, ThreadAttributes
from orchestrator.kinds.task.credentials import Credentials
from orchestrator.kinds.task.filesystem import FilesystemContext
from orchestrator.kinds.task.limits import Limits
from orchestrator.kinds.task.process import Process, ProcessState, Thread
from orchestrator.kinds.task.scheduling import Scheduling
from orchestrator.kinds.task.signals import SignalActions
from orchestrator.kinds.task.timers import IntervalTimers
from orchestrator.kinds.task.userspace import UserAddresses
from orchestrator.restore.baseline import Baseline
from orchestrator.restore.layout import Layout, plan_layout
from orchestrator.restore.plan import Compiler, Plan
from orchestrator.snapshot import Clocks, Machine, Snapshot

CREDENTIALS = Credentials((0, 0, 0, 0), (0, 0, 0, 0), (), 0, 0, 0, 0, 0, 0)
LIMITS = Limits(tuple((0, 0) for _ in range(16)))
SCHEDULING = Scheduling(0, 0, 0, 0, 0, 0, 0, 0, 0, b"\1", 0, 0)
ATTRIBUTES = ThreadAttributes(b"x", 0, False, 0)
BASELINE = Baseline(
    CREDENTIALS, LIMITS, SCHEDULING, ATTRIBUTES, FilesystemContext(ObjectId(-1), "/", "/", 0), 0, 0x33
)  # fmt: skip
BACKINGS = Backings(100, 4096, lambda of: 200 + of, lambda of: 300 + of, lambda _of, _vma, _tape: None)
ARENA_BYTES = 1 << 20


def thread(tid: int) -> Thread:
    """Make a thread with nothing special."""
    addresses = UserAddresses((0, 2, 0), 0, 0, 0, (0, 0, 0, 0))
    return Thread(Tid(tid), bytes(216), b"", 0, [], ATTRIBUTES, CREDENTIALS, SCHEDULING, addresses)


def process(
    pid: int,
    parent: int = 0,
    *,
    group: int | None = None,
    session: int | None = None,
    zombie: bool = False,
    subreaper: bool = False,
    exit_signal: int = 17,
    exit_status: int = 0,
    memory: int | None = None,
    files: int | None = None,
    filesystem: int | None = None,
    signal_actions: int | None = None,
) -> Process:
    """Make a process; a table that is not named is its own."""
    ids = (pid, parent, pid if group is None else group, pid if session is None else session)
    own_pid, of_parent, of_group, of_session = map(Pid, ids)
    if zombie:
        return Process(own_pid, of_parent, of_group, of_session, exit_signal, f"p{pid}", [], None, exit_status)

    def own(table: int | None) -> ObjectId:
        return ObjectId(pid if table is None else table)

    state = ProcessState(
        own(memory), own(files), own(filesystem), own(signal_actions), [], ProcessAttributes(subreaper, 1, 0),
        LIMITS, IntervalTimers(((0, 0, 0, 0),) * 3), [], 0, "",
    )  # fmt: skip
    return Process(own_pid, of_parent, of_group, of_session, exit_signal, f"p{pid}", [thread(pid)], state)


def address_space(id_: int, vmas: Sequence[Vma] = ()) -> AddressSpace:
    """Make an address space."""
    return AddressSpace(ObjectId(id_), list(vmas), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b"", ObjectId(0), 1)


def snapshot(processes: Sequence[Process], memories: Sequence[AddressSpace] | None = None) -> Snapshot:
    """Make a snapshot of processes with every table that they refer to."""
    states = [p.state for p in processes if p.state is not None]
    spaces = {s.memory: address_space(s.memory) for s in states} | {m.id: m for m in memories or ()}
    return Snapshot(
        orch="test", job="test", root=processes[0].pid, machine=Machine("x86_64", "", "", 0, ""),
        clocks=Clocks(0, 0, 0), namespaces=[], processes=list(processes), memories=list(spaces.values()),
        file_tables=[FileTable(of, []) for of in sorted({s.files for s in states})], files=[], objects=[],
        filesystems=[FilesystemContext(of, "/", "/", 0) for of in sorted({s.filesystem for s in states})],
        signal_actions=[SignalActions(of, []) for of in sorted({s.signal_actions for s in states})], page_bytes=0,
    )  # fmt: skip


def layout(memories: Sequence[AddressSpace]) -> Layout:
    return plan_layout(memories, ARENA_BYTES)


def compile_plan(of: Snapshot) -> Plan:
    """Compile a snapshot as a restore would."""
    return Compiler(
        of,
        layout(of.memories),
        BASELINE,
        BACKINGS,
        lambda _tape, _process, _table: lambda _: None,
        lambda _terminal: 0,
        {},
        None,
    ).compile()
