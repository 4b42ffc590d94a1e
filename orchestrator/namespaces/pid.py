"""PID namespaces: the numbers themselves are given by clone3(2), set_tid. See pid_namespaces(7)."""

from __future__ import annotations

import os

from orchestrator.ids import HostPid
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.nsfs import CLONE_NEWPID
from orchestrator.linux.procfs import read_record
from orchestrator.namespaces.inside import inside
from orchestrator.namespaces.kind import NamespaceKind
from orchestrator.namespaces.sysctl import write_sysctl
from orchestrator.tape.build import Tape

_LAST_PID = "/proc/sys/kernel/ns_last_pid"


class PidNamespace(Record, frozen=True, tag="pid"):
    """What a PID namespace remembers beside its processes."""

    last_pid: int
    """The number that was given last, so that the next process gets a higher one."""


def _grandchild_reads() -> int:
    # Entering a PID namespace moves one's children only: a grandchild of orch looks.
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, read_record(_LAST_PID))
        finally:
            os._exit(0)
    os.close(writing)
    try:
        answer = os.read(reading, 64)
    finally:
        os.close(reading)
        os.waitpid(child, 0)
    return int(answer) - 1  # the looker took a number itself


_known: dict[int, int] = {}


def read_last_pid(pid: HostPid) -> None:
    """Read the counter of a process's PID namespace, for the capture of this one: before the job is held."""
    _known[os.stat(f"/proc/{pid}/ns/pid").st_ino] = inside(pid, ["pid"], _grandchild_reads, int)


def _capture(pid: HostPid, scope: Scope) -> PidNamespace:
    # What the job has made since then is among its processes, or has ended.
    known = _known.get(os.stat(f"/proc/{pid}/ns/pid").st_ino, 0)
    return PidNamespace(max(known, *scope.pids.values()))


def _rebuild(record: PidNamespace, tape: Tape) -> None:
    # set_tid leaves this counter alone, so it may be set before the other processes are made.
    write_sysctl(tape, _LAST_PID, str(record.last_pid))


KIND = NamespaceKind("pid", CLONE_NEWPID, PidNamespace, _capture, _rebuild)
