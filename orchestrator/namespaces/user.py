"""User namespaces: noticed, and refused by name. See user_namespaces(7)."""

from __future__ import annotations

from orchestrator.ids import HostPid
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.nsfs import CLONE_NEWUSER
from orchestrator.namespaces.kind import NamespaceKind


class UserNamespace(Record, frozen=True, tag="user"):
    """Nothing yet: no image holds one."""


def _capture(pid: HostPid, scope: Scope) -> None:
    scope.unsupported(pid, "user namespace", "a user namespace of its own (mapped user ids) cannot be rebuilt")


KIND = NamespaceKind("user", CLONE_NEWUSER, UserNamespace, _capture)
