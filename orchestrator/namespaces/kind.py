"""What a kind of namespace is: its record, its capture, its rebuild.

A job shares each kind of namespace with orch, or has one of its own ("private"). Private ones are
captured here and rebuilt around the first process of a restore; shared ones are joined again.
Namespaces below the job's own (a container inside the job) are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.tape.build import Tape


class Namespace(Record, frozen=True):
    """One kind of namespace of a job."""

    kind: str
    """As in /proc/PID/ns: "uts", "net", ..."""
    private: bool
    body: Any = None
    """The kind's record; None for a shared one."""


class NamespaceKind(msgspec.Struct, frozen=True):
    """One kind of namespace. The functions stand side by side in the kind's module."""

    name: str
    clone_flag: int
    record: type[Record]
    capture: Callable[[HostPid, Scope], Record | None]
    """Describe the private namespace of a held process; note what cannot be rebuilt in the scope."""
    rebuild: Callable[[Any, Tape], None] | None = None
    """Write tape entries that the first process inside plays, as root, before any file is opened; for mounts, after
    those of ``fresh``. Low descriptors are free, and are again afterwards."""
    outside: Callable[[Any, HostPid], None] | None = None
    """What orch itself does from outside (netlink), after ``rebuild``, with that process waiting."""
    check: Callable[[Any], None] | None = None
    """Before anything is restored: raise a RestoreError if it cannot be rebuilt here."""
    fill: Callable[[Any, Depot], None] | None = None
    """In the depot, before it opens any file: what is made of the image's page data and shared objects."""
    fresh: Callable[[Tape], None] | None = None
    """For a namespace made anew on request (--new) when the image has no record of it: its minimum (/proc, lo up)."""
