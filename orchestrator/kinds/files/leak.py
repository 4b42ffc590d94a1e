"""Find out whether a job shares pipes, sockets or memory with processes outside of it.

Who holds what outside is looked up before the job is frozen; the judgement comes when its files are known.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from orchestrator.ids import HostPid

_KINDS = ("pipe:[", "socket:[")
_DELETED = " (deleted)"


class Holder(NamedTuple):
    """A process outside of the job that has something open or mapped."""

    pid: int
    comm: str
    fd: int
    """-1 for a mapping."""


Holders = Mapping[tuple[int, int], list[Holder]]
"""By (st_dev, st_ino)."""


def outside_holders(inside: Collection[HostPid]) -> dict[tuple[int, int], list[Holder]]:
    """Look through all processes but those ``inside`` (and ourselves) for what a job might share with them."""
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
    comm = ""
    for fd, path in [*_listed(pid, "fd"), *_listed(pid, "map_files")]:
        try:
            link = os.readlink(path)
            if not link.startswith(_KINDS) and not link.endswith(_DELETED):
                continue
            status = os.stat(path)
        except (FileNotFoundError, PermissionError):
            continue
        if not comm:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                comm = file.read().rstrip("\n")
        found.setdefault((status.st_dev, status.st_ino), []).append(Holder(pid, comm, fd))


def _listed(pid: int, directory: str) -> Iterable[tuple[int, str]]:
    path = f"/proc/{pid}/{directory}"
    for name in os.listdir(path):
        yield (int(name) if directory == "fd" else -1), f"{path}/{name}"
