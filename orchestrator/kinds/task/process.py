"""The records of processes and threads: what ties the kinds of task state together."""

from __future__ import annotations

from orchestrator.ids import ObjectId, Pid, Tid
from orchestrator.kinds.record import Record
from orchestrator.kinds.task.attributes import ProcessAttributes, ThreadAttributes
from orchestrator.kinds.task.credentials import Credentials
from orchestrator.kinds.task.limits import Limits
from orchestrator.kinds.task.scheduling import Scheduling
from orchestrator.kinds.task.timers import IntervalTimers, PosixTimer
from orchestrator.kinds.task.userspace import UserAddresses

OUTSIDE = Pid(0)
"""The parent of a process whose parent is not part of the job: process 1 of the restored namespace."""


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
    """The leader first; empty for a zombie."""
    state: ProcessState | None = None
    """None for a zombie."""
    exit_status: int = 0
    """The wait status of a zombie."""
