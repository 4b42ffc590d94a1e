"""Cgroup namespaces: which cgroup looks like the root. See cgroup_namespaces(7).

Such a namespace takes the cgroup that its maker is in as its root, so it is rebuilt by CLONE_NEWCGROUP
once the first process is in place; nothing else is to be written.
"""

from __future__ import annotations

import os

from orchestrator.ids import HostPid
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.nsfs import CLONE_NEWCGROUP
from orchestrator.linux.proc_misc import parse_cgroup
from orchestrator.namespaces.enter import enter
from orchestrator.namespaces.kind import NamespaceKind


class CgroupNamespace(Record, frozen=True, tag="cgroup"):
    """Where the first process is, seen from the namespace's root: "/" in every hierarchy it can be rebuilt for."""

    paths: dict[str, str]
    """Controllers ("" for cgroup v2) to path."""


def cgroup_seen_inside(pid: HostPid) -> dict[str, str]:
    """Say in which cgroup of each hierarchy a process is, as its own cgroup namespace shows it."""
    with open(f"/proc/{pid}/cgroup", "rb", buffering=0) as file:
        # The kernel asks for the namespace of whoever reads, not of whoever opened.
        return parse_cgroup(enter(pid, ["cgroup"], lambda: os.pread(file.fileno(), 1 << 16, 0)))


def _capture(pid: HostPid, scope: Scope) -> CgroupNamespace:
    paths = cgroup_seen_inside(pid)
    for controllers, path in paths.items():
        if path != "/":
            scope.unsupported(
                pid,
                "cgroup namespace",
                f"its root is not the cgroup of the process: that is {path} seen from inside"
                + (f" (hierarchy {controllers})" if controllers else ""),
            )
            break
    return CgroupNamespace(paths)


KIND = NamespaceKind("cgroup", CLONE_NEWCGROUP, CgroupNamespace, _capture)
