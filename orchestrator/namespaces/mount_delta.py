"""Compare the mounts of a job with orch's own: what it has in addition, what it lacks, what it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from orchestrator.linux.mountinfo import Mount

MS_RDONLY = 1
_RELATIME, _STRICTATIME = 1 << 21, 1 << 24
_FLAGS = {
    "ro": MS_RDONLY, "nosuid": 2, "nodev": 4, "noexec": 8, "nosymfollow": 256, "noatime": 1024, "nodiratime": 2048,
    "relatime": _RELATIME, "rw": 0,
}  # fmt: skip
_NEW_TYPES = frozenset(("proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "tmpfs"))
_SUPER_KEYS: dict[str, frozenset[str]] = {
    "tmpfs": frozenset(("size", "nr_inodes", "mode", "uid", "gid", "huge", "mpol", "noswap")),
    "proc": frozenset(("hidepid", "gid", "subset")),
    "devpts": frozenset(("gid", "uid", "mode", "ptmxmode", "max")),
}


class Added(NamedTuple):
    """A mount that the job has and orch has not."""

    mount: Mount
    bind_from: str | None
    """Where that is mounted already: with ``from_job`` in the job's mounts before it, else in orch's. None: remade."""
    from_job: bool = False


class Refused(NamedTuple):
    """A difference that cannot be made again."""

    mountpoint: str
    reason: str


class Delta(msgspec.Struct):
    """How the job's mounts differ from orch's."""

    added: list[Added] = msgspec.field(default_factory=list)
    """In the order in which they must be mounted."""
    removed: list[str] = msgspec.field(default_factory=list)
    """Mountpoints, the deepest first."""
    changed: list[Mount] = msgspec.field(default_factory=list)
    """Common mounts, with the job's options."""
    common: list[tuple[Mount, Mount]] = msgspec.field(default_factory=list)
    """(orch's, the job's)."""
    refused: list[Refused] = msgspec.field(default_factory=list)


def mount_flags(options: str) -> int:
    """Return the MS_* flags of a mount's own options. ValueError names one that cannot be given to mount(2)."""
    words = options.split(",")
    flags = 0
    for word in words:
        if word not in _FLAGS:
            raise ValueError(word)
        flags |= _FLAGS[word]
    return flags if "relatime" in words or "noatime" in words else flags | _STRICTATIME


def super_data(mount: Mount) -> str:
    """Return the data that mount(2) needs to make such a file system again."""
    words = [word for word in mount.super_options.split(",") if word not in ("rw", "ro")]
    if mount.fstype == "cgroup":
        return ",".join(word for word in words if not word.startswith("release_agent="))
    keys = _SUPER_KEYS.get(mount.fstype, frozenset())
    return ",".join(word for word in words if word.partition("=")[0] in keys)


def visible_at(mounts: Sequence[Mount], path: str) -> Mount:
    """Return the mount in which a path ends, as the kernel walks it: through what lies on top."""
    at: dict[tuple[int, str], Mount] = {(mount.parent, mount.mountpoint): mount for mount in mounts}
    ids = {mount.id for mount in mounts}
    current = next(mount for mount in mounts if mount.mountpoint == "/" and mount.parent not in ids)
    prefix = ""
    for word in ["", *path.strip("/").split("/")]:
        prefix = f"{prefix.rstrip('/')}/{word}"
        while (above := at.get((current.id, prefix))) is not None and above is not current:
            current = above
    return current


def _key(mount: Mount) -> tuple[str, str, int, int]:
    return mount.mountpoint, mount.root, mount.major, mount.minor


def compare_mounts(host: Sequence[Mount], job: Sequence[Mount], *, own_cgroups: bool = False) -> Delta:
    """Compare. ``own_cgroups``: the job has a cgroup namespace, and its cgroup mounts show that."""
    delta = Delta()
    if not _same_root(host, job):
        delta.refused.append(Refused("/", "a root file system of its own (pivot_root) cannot be rebuilt"))
        return delta
    available: dict[tuple[str, str, int, int], list[Mount]] = {}
    for mount in reversed(host):
        available.setdefault(_key(mount), []).append(mount)
    extra = []
    for mount in job:
        twins = available.get(_key(mount))
        if not twins:
            extra.append(mount)
            continue
        twin = twins.pop()
        delta.common.append((twin, mount))
        if twin.options != mount.options:
            delta.changed.append(mount)
    _note_removed(delta, [mount for twins in available.values() for mount in twins])
    made: list[Mount] = []
    for mount in _parents_first(extra):
        if mount.mountpoint.startswith("/proc/") and _key(mount) in {_key(twin) for twin, _ in delta.common}:
            continue  # what the machine mounts there comes again with a new /proc
        _add(delta, mount, host, job, made, own_cgroups)
        made.append(mount)
    for mount in [*delta.changed, *(added.mount for added in delta.added)]:
        try:
            mount_flags(mount.options)
        except ValueError as error:
            delta.refused.append(Refused(mount.mountpoint, f"mount option {error} cannot be rebuilt"))
    return delta


def _same_root(host: Sequence[Mount], job: Sequence[Mount]) -> bool:
    ours, theirs = visible_at(host, "/"), visible_at(job, "/")
    return (ours.root, ours.major, ours.minor) == (theirs.root, theirs.major, theirs.minor)


def _note_removed(delta: Delta, gone: Sequence[Mount]) -> None:
    kept = Counter(twin.mountpoint for twin, _ in delta.common)
    for mount in gone:
        above = [twin for twin, _ in delta.common if twin.mountpoint == mount.mountpoint and twin.id > mount.id]
        if kept[mount.mountpoint] and above:
            delta.refused.append(
                Refused(mount.mountpoint, "it is unmounted from below another mount; that cannot be rebuilt")
            )
    delta.removed = [
        mount.mountpoint for mount in sorted(gone, key=lambda m: (m.mountpoint.count("/"), m.id), reverse=True)
    ]


def _parents_first(mounts: Sequence[Mount]) -> list[Mount]:
    waiting = list(mounts)
    ordered: list[Mount] = []
    while waiting:
        ids = {mount.id for mount in waiting}
        ready = [mount for mount in waiting if mount.parent not in ids or mount.parent == mount.id]
        ordered += ready
        waiting = [mount for mount in waiting if mount not in ready]
        if not ready:
            raise ValueError("mountinfo: a ring of parents")
    return ordered


def _add(
    delta: Delta, mount: Mount, host: Sequence[Mount], job: Sequence[Mount], made: Sequence[Mount], own_cgroups: bool
) -> None:
    if "//deleted" in mount.root:
        delta.refused.append(Refused(mount.mountpoint, "what is mounted there has been deleted"))
        return
    device = (mount.major, mount.minor)
    is_own_cgroup = own_cgroups and mount.fstype in ("cgroup", "cgroup2")
    if not is_own_cgroup:
        for candidates, from_job in ((host, False), (made, True)):
            view = host if not from_job else job
            source = _source(mount, [other for other in candidates if (other.major, other.minor) == device], view)
            if source is not None:
                delta.added.append(Added(mount, source, from_job))
                return
    if mount.fstype not in _NEW_TYPES:
        reason = f"a mount of type {mount.fstype} ({mount.source}) that orch has not; such cannot be rebuilt"
        delta.refused.append(Refused(mount.mountpoint, reason))
    elif mount.root != "/" and not is_own_cgroup:
        reason = f"it shows a part ({mount.root}) of a {mount.fstype} that is mounted nowhere else"
        delta.refused.append(Refused(mount.mountpoint, reason))
    elif mount.fstype == "tmpfs" and visible_at(job, mount.mountpoint) is not mount:
        reason = "a tmpfs that is covered by another mount cannot be saved"
        delta.refused.append(Refused(mount.mountpoint, reason))
    else:
        delta.added.append(Added(mount, None))


def _source(mount: Mount, candidates: Sequence[Mount], view: Sequence[Mount]) -> str | None:
    """Find a path that leads to the root of ``mount`` through another mount of the same file system."""
    for other in candidates:
        root = other.root.rstrip("/")
        if mount.root == other.root:
            path = other.mountpoint
        elif mount.root.startswith(root + "/"):
            path = other.mountpoint.rstrip("/") + mount.root[len(root) :]
        else:
            continue
        if visible_at(view, path) is other:
            return path
    return None
