"""The labels of security modules: SELinux contexts, AppArmor profiles. See proc_pid_attr(5).

A restored process has that of the orch that restores, as no rule says that it might take on another.
"""

from __future__ import annotations

from functools import cache

from orchestrator.ids import HostPid
from orchestrator.kinds.scope import Scope
from orchestrator.linux.procfs import read_file

LABEL = "label"
"""How --external allows that a process gets another label."""


@cache
def own_label() -> str | None:
    """Return orch's own label; None where no security module has any."""
    return read_label("self")


def read_label(pid: int | str) -> str | None:
    """Return the label of a process."""
    try:
        return read_file(f"/proc/{pid}/attr/current").rstrip(b"\0\n").decode(errors="backslashreplace") or None
    except OSError:
        return None


def note_label(scope: Scope, pid: HostPid, seen: HostPid) -> None:
    """Note in the scope that a process has another label than orch, if so. ``seen``: its number in /proc."""
    own = own_label()
    if own is None or LABEL in scope.externals:
        return
    label = read_label(seen)
    if label is not None and label != own:
        scope.unsupported(
            pid,
            f"security label {label}",
            f"it is not that of orch ({own}), and cannot be taken on again",
            f"--external {LABEL} gives the restored process that of the orch that restores",
        )
