"""Find out whether a job shares pipes, FIFOs, pseudo-terminals, memory or BPF maps with processes outside of it.

Who holds what outside is looked up before the job is frozen; the judgement comes when its files are known. Whoever
seems to be outside is looked at once more then: the job may have started and ended processes meanwhile.
Sockets judge for themselves: what counts there is the other end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from orchestrator.ids import HostPid
from orchestrator.kinds.scope import Scope
from orchestrator.linux.proc_fd import read_fdinfo
from orchestrator.linux.proc_maps import parse_maps
from orchestrator.linux.procfs import read_file
from orchestrator.linux.tty import PTMX, SLAVE_MAJORS

_DELETED = " (deleted)"
_SHOWN = 3
_MAP = "anon_inode:bpf-map"


class Holder(NamedTuple):
    """A process outside of the job that has something open or mapped."""

    pid: int
    comm: str
    fd: int
    """-1 for a mapping."""

    def __str__(self) -> str:
        return f"{self.pid} ({self.comm}) " + ("in its memory" if self.fd < 0 else f"as fd {self.fd}")


def outside_holders(inside: Collection[HostPid]) -> dict[tuple[int, int], list[Holder]]:
    """Look through all processes but those ``inside`` and ourselves; by (st_dev, st_ino)."""
    found: dict[tuple[int, int], list[Holder]] = {}
    skipped = {*inside, os.getpid()}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) not in skipped:
            try:
                _look_at(int(entry), found)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it has ended, or is hidden from us
    return found


def _look_at(pid: int, found: dict[tuple[int, int], list[Holder]]) -> None:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        comm = file.read().rstrip("\n")
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            link = os.readlink(path)
            if link == _MAP:
                identity = map_identity(int(read_fdinfo(pid, int(name)).get("map_id") or 0))
                found.setdefault(identity, []).append(Holder(pid, comm, int(name)))
            if not link.startswith(("pipe:[", "/")):
                continue
            status = os.stat(path)
            if stat.S_ISFIFO(status.st_mode) or link.endswith(_DELETED) or _is_terminal(status):
                found.setdefault(_identity(pid, int(name), status), []).append(Holder(pid, comm, int(name)))
        except (FileNotFoundError, PermissionError):
            continue
    for key in _deleted_mappings(pid):
        found.setdefault(key, []).append(Holder(pid, comm, -1))


def _is_terminal(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and (status.st_rdev == PTMX or os.major(status.st_rdev) in SLAVE_MAJORS)


def _identity(pid: int, fd: int, status: os.stat_result) -> tuple[int, int]:
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == PTMX:
        return master_identity(status, int(read_fdinfo(pid, fd).get("tty-index") or 0))
    return status.st_dev, status.st_ino


def master_identity(status: os.stat_result, number: int) -> tuple[int, int]:
    """Return what tells masters apart, which are all opened from one file: no inode has such a number."""
    return status.st_dev, -1 - number


def map_identity(number: int) -> tuple[int, int]:
    """Return what tells BPF maps apart, all of which have one inode: no device has such a number."""
    return -1, number


def _deleted_mappings(pid: int) -> set[tuple[int, int]]:
    maps = read_file(f"/proc/{pid}/maps")
    lines = [line for line in maps.splitlines(keepends=True) if line.endswith(b" (deleted)\n")]
    return {(os.makedev(*line.dev), line.inode) for line in parse_maps(b"".join(lines)) if line.shared}


def _still_holds(holder: Holder, identity: tuple[int, int]) -> bool:
    try:
        if holder.fd < 0:
            return identity in _deleted_mappings(holder.pid)
        path = f"/proc/{holder.pid}/fd/{holder.fd}"
        if os.readlink(path) == _MAP:
            return map_identity(int(read_fdinfo(holder.pid, holder.fd).get("map_id") or 0)) == identity
        status = os.stat(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return _identity(holder.pid, holder.fd, status) == identity


def report_leaks(scope: Scope, holders: Mapping[tuple[int, int], Sequence[Holder]]) -> None:
    """Note everything of the job that somebody outside holds too."""
    for identity, shared in scope.shared.items():
        suspects = holders.get(identity, ())
        outsiders = [one for one in suspects if one.pid not in scope.pids and _still_holds(one, identity)]
        if not outsiders:
            continue
        names = ", ".join(str(holder) for holder in outsiders[:_SHOWN])
        more = f" and {len(outsiders) - _SHOWN} more" if len(outsiders) > _SHOWN else ""
        hint = None
        if shared.key is not None:
            hint = f"--external '{shared.key}' leaves it out of the image, to be handed over at the restore"
        scope.outside(shared.pid, shared.what, f"shared with {names}{more}, outside of the job", hint)
