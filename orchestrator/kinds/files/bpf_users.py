"""Who else uses the BPF maps of a job: programs, and files of a bpffs, which stay where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator

from orchestrator.ids import HostPid
from orchestrator.kinds.scope import Scope
from orchestrator.linux import bpf
from orchestrator.linux.mountinfo import read_mountinfo

_MOST_PINNED = 10_000


class BpfUsers:
    """The maps of one capture. It is one of the scope's finishers."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._maps: dict[int, tuple[HostPid, str]] = {}

    def note(self, number: int, pid: HostPid, what: str) -> None:
        """Note that the job has a map."""
        self._maps.setdefault(number, (pid, what))

    def __call__(self) -> None:
        for program, name, maps in bpf.programs():
            for number in {*maps} & self._maps.keys():
                pid, what = self._maps[number]
                self._scope.unsupported(pid, what, f"BPF program {program} ({name}) uses it, which cannot be saved")
        for path, number in self._pinned():
            if number in self._maps:
                pid, what = self._maps[number]
                self._scope.outside(pid, what, f"it is pinned as {path}, outside of the job")

    def _pinned(self) -> Iterator[tuple[str, int]]:
        """Yield the maps of all bpffs that the job or orch can see."""
        seen: set[int] = set()
        for pid in {os.getpid(), *(one for one, _ in self._maps.values())}:
            for mount in read_mountinfo(pid):
                device = os.makedev(mount.major, mount.minor)
                if mount.fstype != "bpf" or device in seen:
                    continue
                seen.add(device)
                yield from _maps_below(f"/proc/{pid}/root{mount.mountpoint}", mount.mountpoint)


def _maps_below(top: str, shown: str) -> Iterator[tuple[str, int]]:
    looked_at = 0
    for directory, _, names in os.walk(top):
        for name in names:
            looked_at += 1
            if looked_at > _MOST_PINNED:
                return
            path = os.path.join(directory, name)
            try:
                fd = bpf.open_pinned(path)
            except OSError:
                continue
            try:
                if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:bpf-map":
                    yield shown + path.removeprefix(top), bpf.map_info(fd).id
            finally:
                os.close(fd)
