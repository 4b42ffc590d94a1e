"""How mounts propagate: private, slave, shared, unbindable. See mount_namespaces(7), "Shared subtrees"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from orchestrator.linux.mountinfo import Mount
from orchestrator.tape.build import Tape

Propagation = Literal["private", "slave", "shared", "slave+shared", "unbindable", "host"]
""""host": in one peer group with the machine's mount, in both directions."""

_MS_REC, _MS_UNBINDABLE, _MS_PRIVATE, _MS_SLAVE, _MS_SHARED = 1 << 14, 1 << 17, 1 << 18, 1 << 19, 1 << 20
_CHANGES: dict[str, tuple[int, ...]] = {
    "private": (_MS_PRIVATE,),
    "slave": (_MS_SLAVE,),
    "shared": (_MS_PRIVATE, _MS_SHARED),
    "slave+shared": (_MS_SLAVE, _MS_SHARED),
    "unbindable": (_MS_UNBINDABLE,),
    "host": (),
}


def propagation_of(mount: Mount, host: Mount | None = None) -> Propagation:
    """Classify a mount of the job; ``host`` is the same mount in orch's namespace."""
    groups = dict(field.partition(":")[::2] for field in mount.fields)
    if "unbindable" in groups:
        return "unbindable"
    if host is not None and mount.fields and mount.fields == host.fields:
        return "host"
    if "shared" in groups:
        return "slave+shared" if "master" in groups else "shared"
    return "slave" if "master" in groups else "private"


def _becomes(host: Mount, base: Propagation) -> Propagation:
    """Tell what a copy of ``host`` is after the whole tree was changed to ``base``."""
    linked = any(field.startswith(("shared:", "master:")) for field in host.fields)
    if base == "host":
        return "host" if host.fields else "private"
    if base == "slave":
        return "slave" if linked else "private"
    if base == "slave+shared":
        return "slave+shared" if linked else "shared"
    return base


class Bases(NamedTuple):
    """One change of a whole tree, and what it leaves to explain."""

    base: Propagation
    deviations: list[tuple[str, Propagation]]
    """(mountpoint, what it is)."""
    impossible: list[str]
    """Mountpoints whose links with the machine's mounts cannot be made in this way."""


def base_propagation(common: Sequence[tuple[Mount, Mount]]) -> Bases:
    """Find the change of the whole tree that explains most. ``common`` pairs orch's mounts with the job's."""
    bases: tuple[Propagation, ...] = ("private", "slave", "slave+shared", "shared", "host")
    judged = [_judge(base, common) for base in bases]
    return min(judged, key=lambda found: (len(found.impossible), len(found.deviations)))


def _judge(base: Propagation, common: Sequence[tuple[Mount, Mount]]) -> Bases:
    found = Bases(base, [], [])
    for host, job in common:
        is_now, will_be = propagation_of(job, host), _becomes(host, base)
        if is_now == will_be:
            continue
        if is_now == "host" or ("slave" in is_now and "slave" not in will_be and will_be != "host"):
            found.impossible.append(job.mountpoint)
        else:
            found.deviations.append((job.mountpoint, is_now))
    return found


def change_propagation(tape: Tape, mountpoint: bytes, wanted: Propagation, *, recursive: bool = False) -> None:
    """Write the tape entries that change a mount, or with ``recursive`` all below it."""
    for flag in _CHANGES[wanted]:
        tape.mount(0, mountpoint + b"\0", 0, flag | (_MS_REC if recursive else 0), 0)
