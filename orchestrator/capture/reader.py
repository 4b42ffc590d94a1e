"""The second process that reads ahead. Import it only where there is one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from orchestrator.capture.ahead import SHARING
from orchestrator.capture.channel import Channel
from orchestrator.capture.sharing import SharedStructures
from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.files.alike import Looks, find, looks
from orchestrator.kinds.files.owner import ask_signals, has_owner
from orchestrator.linux.kcmp import KCMP_FILES, KCMP_FS, KCMP_VM
from orchestrator.linux.pidfd import open_task, pidfd_getfd
from orchestrator.linux.proc_fd import FdInfo, Foretold, ProcFds
from orchestrator.linux.proc_misc import read_ns_ids
from orchestrator.linux.procfs import read_file

_AT_ONCE = 128
_URGENT_NICE = -20
_SHARED = (KCMP_VM, KCMP_FILES, KCMP_FS)
_LATER_SHARE = 0.6
"""So much of what is asked first about each task is read by others before we come to it."""
_OF_TASK = ("status",)
_FIRST = ("stat", "auxv", "task/{}/children")
_THEN = ("maps", "timers", "cgroup", "oom_score_adj", "coredump_filter", "loginuid")


def serve(channel: Channel, pids: Sequence[HostPid]) -> NoReturn:
    """Be told which tasks stand still, some of them the main threads of ``pids``; and then whose tables to read."""
    try:
        os.setsid()  # a signal for our process group is the other's to answer
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        tids = channel.receive()
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, _URGENT_NICE)
        for told in _about(tids or (), {*pids}):
            channel.send(told)
        small, large = channel.receive() or ((), ())
        for pid in small:
            with contextlib.suppress(OSError), ProcFds(pid) as fds:
                channel.send({f"/proc/{pid}/fd": [(fd, fds.raw(fd)) for fd in fds.numbers()]})
        reader = _TableReader()
        for pid in large:
            for part in reader.read(pid):
                channel.send(part)
            channel.send([])
    finally:
        os._exit(0)


def _about(tids: Sequence[int], leaders: set[HostPid]) -> Iterator[dict[str, Any]]:
    """Find out what can be told of tasks: what is asked first only of the last ones, as the asking has begun."""
    for tid in reversed(tids[int(len(tids) * _LATER_SHARE) :]):
        yield _read(tid, (*_OF_TASK, *_FIRST) if tid in leaders else _OF_TASK)
    yield {SHARING: {kind: _sharing(kind, [tid for tid in tids if tid in leaders]) for kind in _SHARED}}
    for tid in tids:
        if tid in leaders:
            told = _read(tid, _THEN)
            with contextlib.suppress(OSError):
                told[f"/proc/{tid}/ns"] = read_ns_ids(tid)
                told[f"/proc/{tid}/exe"] = os.stat(f"/proc/{tid}/exe").st_ino
                for name in ("cwd", "root"):
                    told[f"/proc/{tid}/{name}"] = os.readlink(f"/proc/{tid}/{name}")
            yield told


def _sharing(kind: int, pids: Sequence[int]) -> dict[int, int]:
    structures, firsts, found = SharedStructures(kind), dict[ObjectId, int](), {}
    with contextlib.suppress(OSError):
        for pid in pids:
            structure, _ = structures.identify(HostPid(pid))
            found[pid] = firsts.setdefault(structure, pid)
    return found


def _read(tid: int, names: Sequence[str]) -> dict[str, Any]:
    told = {}
    for name in names:
        path = f"/proc/{tid}/{name.format(tid)}"
        with contextlib.suppress(OSError):  # whoever asks for it shall see why
            told[path] = read_file(path)
    return told


class _Seen(NamedTuple):
    pid: HostPid
    fd: int


class _TableReader:
    """Reads large tables."""

    def __init__(self) -> None:
        self._known: dict[Looks, list[_Seen]] = {}

    def read(self, pid: HostPid) -> Iterator[list[tuple[int, FdInfo, str, Foretold]]]:
        """Look at all descriptors of a process."""
        pidfd = open_task(pid)
        try:
            with ProcFds(pid) as fds:
                numbers = fds.numbers()
                for at in range(0, len(numbers), _AT_ONCE):
                    yield [self._look(pid, pidfd, fd, fds) for fd in numbers[at : at + _AT_ONCE]]
        finally:
            os.close(pidfd)

    def _look(self, pid: HostPid, pidfd: int, fd: int, fds: ProcFds) -> tuple[int, FdInfo, str, Foretold]:
        info = fds.info(fd)
        alike = self._known.setdefault(looks(info), [])
        place = find(alike, pid, fd)
        if place >= 0:
            return fd, info, "", Foretold(place)
        alike.insert(~place, _Seen(pid, fd))
        link = fds.link(fd)
        if not has_owner(link, info.flags):
            return fd, info, link, Foretold(place)
        local = pidfd_getfd(pidfd, fd)
        try:
            # Whoever captures a socket needs a descriptor of his own anyway.
            status = None if link.startswith("socket:") else os.fstat(local)
            return fd, info, link, Foretold(place, status, ask_signals(local))
        finally:
            os.close(local)
