"""Time namespaces: offsets of CLOCK_MONOTONIC and CLOCK_BOOTTIME. See time_namespaces(7)."""

from __future__ import annotations

import time

from orchestrator.ids import HostPid
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.nsfs import CLONE_NEWTIME
from orchestrator.linux.procfs import read_record
from orchestrator.namespaces.kind import NamespaceKind

_SECOND = 10**9
_NAMES = {"1": "monotonic", "7": "boottime"}


class TimeNamespace(Record, frozen=True, tag="time"):
    """What the job's clocks showed at the checkpoint, in nanoseconds."""

    monotonic_ns: int
    boottime_ns: int


def parse_offsets(raw: bytes) -> dict[str, int]:
    """Parse a /proc/PID/timens_offsets: "monotonic" and "boottime" to nanoseconds."""
    rows = (line.split() for line in raw.decode().splitlines())
    return {_NAMES.get(clock, clock): int(seconds) * _SECOND + int(ns) for clock, seconds, ns in rows}


def initial_clocks() -> TimeNamespace:
    """Read the clocks of the initial time namespace, which is what offsets count from, wherever we are ourselves."""
    own = parse_offsets(read_record("/proc/self/timens_offsets"))
    return TimeNamespace(
        time.clock_gettime_ns(time.CLOCK_MONOTONIC) - own["monotonic"],
        time.clock_gettime_ns(time.CLOCK_BOOTTIME) - own["boottime"],
    )


def clocks_of(pid: HostPid) -> TimeNamespace:
    """Tell what the clocks show now to the children of a process, which are its own unless it has unshared."""
    offsets = parse_offsets(read_record(f"/proc/{pid}/timens_offsets"))
    initial = initial_clocks()
    return TimeNamespace(initial.monotonic_ns + offsets["monotonic"], initial.boottime_ns + offsets["boottime"])


def offsets(record: TimeNamespace, now_monotonic_ns: int, now_boottime_ns: int) -> bytes:
    """Return what must be written to /proc/PID/timens_offsets so that the clocks go on from the record.

    ``now`` is of the initial time namespace (:func:`initial_clocks`). It must be written before the namespace
    has a process: the writer has unshared CLONE_NEWTIME, and its next child enters.
    """
    lines = []
    for name, shift in (
        ("monotonic", record.monotonic_ns - now_monotonic_ns),
        ("boottime", record.boottime_ns - now_boottime_ns),
    ):
        seconds, ns = divmod(shift, _SECOND)
        lines.append(f"{name} {seconds} {ns}\n")
    return "".join(lines).encode()


def _capture(pid: HostPid, scope: Scope) -> TimeNamespace:  # noqa: ARG001
    return clocks_of(pid)


KIND = NamespaceKind("time", CLONE_NEWTIME, TimeNamespace, _capture)
