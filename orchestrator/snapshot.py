"""The whole of an image's metadata: one record that holds all others."""

from __future__ import annotations

from typing import Any

from orchestrator.ids import Pid
from orchestrator.image.chain import Link
from orchestrator.kinds.files.kind import FileTable
from orchestrator.kinds.memory.record import AddressSpace
from orchestrator.kinds.record import Record
from orchestrator.kinds.task.filesystem import FilesystemContext
from orchestrator.kinds.task.places import CgroupDirectory
from orchestrator.kinds.task.process import Process
from orchestrator.kinds.task.seccomp import SeccompFilter
from orchestrator.kinds.task.signals import SignalActions


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
    """A job at one moment. What differs in kind (namespaces, files, objects) is plain data here; see
    :class:`orchestrator.restore.decoded.KnownSnapshot`.
    """

    orch: str
    """The version that wrote it."""
    job: str
    root: Pid
    """The process whose end is the job's end."""
    machine: Machine
    clocks: Clocks
    namespaces: list[Any]
    processes: list[Process]
    """Parents before children."""
    memories: list[AddressSpace]
    file_tables: list[FileTable]
    files: list[Any]
    objects: list[Any]
    filesystems: list[FilesystemContext]
    signal_actions: list[SignalActions]
    page_bytes: int
    seccomp_filters: list[SeccompFilter] = []  # noqa: RUF012 - msgspec copies it
    cgroups: list[CgroupDirectory] = []  # noqa: RUF012
    """Those of version 1 that threads are in, parents first."""
    own_cgroups: list[CgroupDirectory] = []  # noqa: RUF012
    """The job's own and those below it, parents first."""
    chain: list[Link] = []  # noqa: RUF012
    """The other images that pages of this one lie in."""
