"""A snapshot as it is restored: nothing in it but records that are known."""

from __future__ import annotations

from orchestrator.kinds.files.registry import FileObject, FileRecord
from orchestrator.kinds.memory.sysv import SysvSegment
from orchestrator.namespaces.registry import AnyNamespace
from orchestrator.snapshot import Snapshot


class KnownSnapshot(Snapshot, frozen=True):
    """Decoding an image as this refuses, by name, any record of a kind that this orch does not know."""

    namespaces: list[AnyNamespace]
    files: list[FileRecord]
    objects: list[FileObject | SysvSegment]
