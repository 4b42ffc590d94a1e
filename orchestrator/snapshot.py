"""The whole of an image's metadata: one record that holds all others."""

from __future__ import annotations

from orchestrator.ids import Pid
from orchestrator.kinds.files.kind import FileTable
from orchestrator.kinds.files.registry import FileObject, FileRecord
from orchestrator.kinds.memory.record import AddressSpace
from orchestrator.kinds.memory.sysv import SysvSegment
from orchestrator.kinds.record import Record
from orchestrator.kinds.task.filesystem import FilesystemContext
from orchestrator.kinds.task.process import Process
from orchestrator.kinds.task.signals import SignalActions

from orchestrator.namespaces.registry import AnyNamespace


class Machine(Record, frozen=True):
    """Where an image was made, as far as a restore depends on it."""

    architecture: str
    kernel: str
    vdso: str
    """Names the vDSO; code of another one cannot be returned into."""
    xstate_bytes: int
    hostname: str


class Clocks(Record, frozen=True):
    """The job's clocks at the checkpoint, in nanoseconds."""

    realtime: int
    monotonic: int
    boottime: int


class Snapshot(Record, frozen=True):
    """A job at one moment."""

    orch: str
    """The version that wrote it."""
    job: str
    root: Pid
    """The process whose end is the job's end."""
    machine: Machine
    clocks: Clocks
    namespaces: list[AnyNamespace]
    processes: list[Process]
    """Parents before children."""
    memories: list[AddressSpace]
    file_tables: list[FileTable]
    files: list[FileRecord]
    objects: list[FileObject | SysvSegment]
    filesystems: list[FilesystemContext]
    signal_actions: list[SignalActions]
    page_bytes: int
