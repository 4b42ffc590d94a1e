"""The records of processes and threads: what ties the kinds of task state together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import msgspec

from orchestrator.errors import ImageCorrupt
from orchestrator.ids import ObjectId, Pid, Tid
from orchestrator.kinds.record import Record
from orchestrator.kinds.task.attributes import ProcessAttributes, ThreadAttributes
from orchestrator.kinds.task.audit import UNSET
from orchestrator.kinds.task.credentials import Credentials
from orchestrator.kinds.task.limits import Limits
from orchestrator.kinds.task.scheduling import Scheduling
from orchestrator.kinds.task.seccomp import Seccomp
from orchestrator.kinds.task.sleeps import Sleep
from orchestrator.kinds.task.timers import IntervalTimers, PosixTimer
from orchestrator.kinds.task.traps import Traps
from orchestrator.kinds.task.userspace import UserAddresses

_SS_DISABLE = 2
OF_PROCESS = ObjectId(-1)
OUTSIDE = Pid(0)
"""The parent of a process whose parent is not part of the job: process 1 of the restored namespace."""


NO_GROUP = Pid(0)


class Thread(Record, frozen=True):
    """One thread."""

    tid: Tid
    registers: bytes
    """The NT_PRSTATUS regset, as at the stop: an interrupted call is restarted by the kernel."""
    extended_state: bytes
    """The NT_X86_XSTATE regset."""
    signal_mask: int
    pending: list[bytes]
    """Queued siginfo of this thread, 128 bytes each."""
    attributes: ThreadAttributes
    credentials: Credentials
    scheduling: Scheduling
    addresses: UserAddresses
    seccomp: Seccomp | None = None
    files: ObjectId = OF_PROCESS
    """Its own file table, -1 if it has that of the process."""
    filesystem: ObjectId = OF_PROCESS
    """Its own working directory and umask, -1 if it has those of the process."""
    places: tuple[tuple[str, str], ...] = ()
    """Hierarchies of cgroup v1 and where the thread is in them, if it was elsewhere than orch."""
    traps: Traps | None = None
    cgroup: str | None = None
    """Its cgroup, from the job's own on, if that is not the one of its process."""
    sleep: Sleep | None = None


class ProcessState(Record, frozen=True):
    """What a living process has beside its threads and the tables it refers to."""

    memory: ObjectId
    files: ObjectId
    filesystem: ObjectId
    signal_actions: ObjectId
    pending: list[bytes]
    attributes: ProcessAttributes
    limits: Limits
    interval_timers: IntervalTimers
    posix_timers: list[PosixTimer]
    oom_score_adj: int
    cgroup: str
    """Relative to the job's own cgroup: "" or "sub/group"."""
    stopped_by: int = 0
    """The signal of a group stop, 0 for a running process."""
    login: int = UNSET
    """The user id of its login, for the audit log."""
    terminal: ObjectId | None = None
    """The controlling terminal."""
    foreground: Pid = NO_GROUP
    """For the leader of a session with a terminal: the foreground process group; 0 if nobody is left in that."""
    stop_told: bool = False
    """Whether its parent has waited for its stop."""
    session_nice: int = 0
    """For the leader of a session: the nice value of its autogroup."""


class Process(Record, frozen=True):
    """One process, alive or a zombie. Ids are those that the job itself sees."""

    pid: Pid
    parent: Pid
    group: Pid
    session: Pid
    exit_signal: int
    name: str
    """comm, for people."""
    threads: list[Thread]
    """The leader first, unless it is headless; empty for a zombie."""
    state: ProcessState | None = None
    """None for a zombie."""
    exit_status: int = 0
    """The wait status of a zombie, or of a main thread that has ended."""
    headless: bool = False
    """Whether the main thread has ended before others."""


def check_chains(processes: Sequence[Process], filters: int) -> None:
    """Raise ImageCorrupt unless the seccomp filters that threads refer to are among the image's ``filters``."""
    for process in processes:
        for thread in process.threads:
            for of in thread.seccomp.filters if thread.seccomp is not None else ():
                if not 0 <= of < filters:
                    raise ImageCorrupt(f"thread {thread.tid} of the image has seccomp filter {of} of {filters}")


def check_own_tables(processes: Sequence[Process], tables: set[ObjectId], filesystems: set[ObjectId]) -> None:
    """Raise ImageCorrupt unless what threads have for themselves is in the image."""
    for process in processes:
        for thread in process.threads:
            for of, known in ((thread.files, tables), (thread.filesystem, filesystems)):
                if of != OF_PROCESS and of not in known:
                    raise ImageCorrupt(f"thread {thread.tid} of the image refers to table {of}, which is not there")


def main_thread(process: Process) -> Thread:
    """Return the thread that makes the others of a living process; one that has ended is like them, and has nothing."""
    first = process.threads[0]
    if not process.headless:
        return first
    nothing = UserAddresses((0, _SS_DISABLE, 0), 0, 0, 0, (0, 0, 0, 0))
    attributes = msgspec.structs.replace(first.attributes, name=os.fsencode(process.name), parent_death_signal=0)
    return msgspec.structs.replace(
        first,
        tid=Tid(process.pid),
        pending=[],
        attributes=attributes,
        addresses=nothing,
        seccomp=None,
        traps=None,
        sleep=None,
    )


def other_threads(process: Process) -> list[Thread]:
    """Return those that the main thread makes."""
    return process.threads if process.headless else process.threads[1:]


_TABLES = {"memory": "memory", "files": "file table", "filesystem": "working directory", "signal_actions": "handlers"}


def sharing_siblings(processes: Sequence[Process]) -> Iterator[tuple[Process, Process]]:
    """Yield (process, sibling): to share what it shares, the process must be cloned by that sibling, not its parent.

    ``processes`` stand in the order in which they are made.
    """
    for process, _, holders in _shared(processes):
        parent = next((p for p in holders if p.pid == process.parent), None)
        sibling = next((p for p in holders if p.parent == process.parent), None)
        if parent is None and sibling is not None:
            yield process, sibling


def unshareable(processes: Sequence[Process]) -> Iterator[tuple[Process, str, Process]]:
    """Yield (process, what, other) for what processes share that no order of clones brings about."""
    siblings = {process.pid: sibling for process, sibling in sharing_siblings(processes)}
    for process, table, holders in _shared(processes):
        maker = siblings[process.pid].pid if process.pid in siblings else process.parent
        if all(holder.pid != maker for holder in holders):
            yield process, _TABLES[table], holders[0]


def _shared(processes: Sequence[Process]) -> Iterator[tuple[Process, str, list[Process]]]:
    """Yield every process with a table that earlier ones have, too, and those."""
    seen: dict[tuple[str, ObjectId], list[Process]] = {}
    for process in processes:
        for table in _TABLES if process.state is not None else ():
            holders = seen.setdefault((table, getattr(process.state, table)), [])
            if holders:
                yield process, table, list(holders)
            holders.append(process)
