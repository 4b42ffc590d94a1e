"""Mount namespaces, as the difference from the mounts that orch itself sees. See mount_namespaces(7).

What both have is inherited from the machine that restores; what only the job has is mounted again.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from orchestrator.errors import FileMissing
from orchestrator.ids import HostPid
from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.call import machine, syscall
from orchestrator.linux.mountinfo import Mount, parse_mountinfo, read_mountinfo
from orchestrator.linux.nsfs import CLONE_NEWNS
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open
from orchestrator.linux.syscalls import numbers
from orchestrator.namespaces.inside import visit
from orchestrator.namespaces.kind import NamespaceKind
from orchestrator.namespaces.mount_delta import MS_RDONLY, Added, Delta, compare_mounts, mount_flags, super_data
from orchestrator.namespaces.propagation import Propagation, base_propagation, change_propagation, propagation_of
from orchestrator.namespaces.tmpfs import AT_FDCWD, TooMuch, TreeEntry, archive_tree, fill_tree, rebuild_tree
from orchestrator.tape.build import Tape

_MS_REMOUNT, _MS_BIND = 32, 4096
_MNT_DETACH = 2
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_EMPTY_PATH = 0x1000
_mount_attr = struct.Struct("=QQQQ")  # attr_set attr_clr propagation userns_fd
_MOUNT_ATTR_NOATIME, _MOUNT_ATTR__ATIME = 0x10, 0x70
_NOSUID_NODEV_NOEXEC = 2 | 4 | 8


class JobMount(Record, frozen=True):
    """A mount that only the job has."""

    mountpoint: bytes
    fstype: str
    source: bytes
    flags: int
    data: bytes
    propagation: Propagation
    bind_from: bytes | None = None
    """Of a bind mount: where what it shows is found."""
    from_job: bool = False
    """Whether that is in a mount that stands before this one, and not in the machine's own."""
    super_readonly: bool = False
    tree: list[TreeEntry] = []  # noqa: RUF012 - msgspec copies it


class Option(NamedTuple):
    """A mount of the machine's own that the job has with other options."""

    mountpoint: bytes
    flags: int


class Peer(NamedTuple):
    """A mount of the machine's own that propagates in another way than the root does."""

    mountpoint: bytes
    propagation: Propagation


class ProcOptions(NamedTuple):
    """How the job's own /proc is mounted."""

    flags: int
    data: bytes


class MountNamespace(Record, frozen=True, tag="mnt"):
    """How the job's mounts differ from the machine's."""

    propagation: Propagation
    """Of the root, and of most."""
    removed: list[bytes]
    mounts: list[JobMount]
    options: list[Option]
    peers: list[Peer]
    proc: ProcOptions | None = None
    """Of a procfs that the job has over /proc. It is not among ``mounts``: :func:`fresh` makes it."""


class _Seen(NamedTuple):
    mountinfo: bytes
    trees: dict[str, int]
    """Mountpoint of a tmpfs -> the visitor's descriptor for a copy of that mount without what is mounted on it."""


def _look(proc: int, host: list[Mount], own_cgroups: bool) -> _Seen:
    # Our own mountinfo follows us into the namespace, whose /proc may be anything.
    with open(os.open(f"{os.getpid()}/mountinfo", os.O_RDONLY, dir_fd=proc), "rb") as file:
        raw = file.read()
    delta = compare_mounts(host, parse_mountinfo(raw), own_cgroups=own_cgroups)
    trees = {added.mount.mountpoint: open_tree(added.mount.mountpoint) for added in delta.added if _is_archived(added)}
    return _Seen(raw, trees)


def _is_archived(added: Added) -> bool:
    return added.mount.fstype == "tmpfs" and added.bind_from is None


def open_tree(path: str) -> int:
    """Copy the one mount at ``path`` to nowhere, and return a descriptor for that."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    number = numbers(machine())
    tree = syscall(number["open_tree"], AT_FDCWD, ctypes.addressof(name), flags)
    # Reading through it shall leave no access times behind.
    attributes = ctypes.create_string_buffer(_mount_attr.pack(_MOUNT_ATTR_NOATIME, _MOUNT_ATTR__ATIME, 0, 0))
    here = ctypes.create_string_buffer(b"")
    size = _mount_attr.size
    syscall(number["mount_setattr"], tree, ctypes.addressof(here), _AT_EMPTY_PATH, ctypes.addressof(attributes), size)
    return tree


def _capture(pid: HostPid, scope: Scope) -> MountNamespace | None:
    host = read_mountinfo()
    own_cgroups = os.stat(f"/proc/{pid}/ns/cgroup").st_ino != os.stat("/proc/self/ns/cgroup").st_ino
    if os.readlink(f"/proc/{pid}/root") == "/":  # it sees all of its namespace
        delta = compare_mounts(host, read_mountinfo(pid), own_cgroups=own_cgroups)
        if not delta.refused and not any(_is_archived(added) for added in delta.added):
            return _describe(pid, scope, delta, {})
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with visit(pid, ["mnt"], lambda: _look(proc, host, own_cgroups), _Seen) as visitor:
            delta = compare_mounts(host, parse_mountinfo(visitor.value.mountinfo), own_cgroups=own_cgroups)
            for refused in delta.refused:
                scope.unsupported(pid, f"mount {refused.mountpoint}", refused.reason)
            if delta.refused:
                return None
            pidfd = pidfd_open(visitor.pid)
            try:
                trees = {path: pidfd_getfd(pidfd, fd) for path, fd in visitor.value.trees.items()}
            finally:
                os.close(pidfd)
    finally:
        os.close(proc)
    return _describe(pid, scope, delta, trees)


def _describe(pid: HostPid, scope: Scope, delta: Delta, trees: dict[str, int]) -> MountNamespace:
    base, peers, impossible = base_propagation(delta.common)
    for path in impossible:
        scope.unsupported(pid, f"mount {path}", "it propagates to or from the machine's mounts, unlike the others")
    if base == "host" and (delta.added or delta.removed or delta.changed):
        reason = "it has mounts of its own, but propagates them to the machine's (same peer groups)"
        scope.unsupported(pid, "mount namespace", reason)
    mounts = []
    proc = None
    for mount, bind_from, from_job in delta.added:
        if mount.mountpoint == "/proc" and mount.fstype == "proc" and bind_from is None:
            proc = ProcOptions(mount_flags(mount.options), os.fsencode(super_data(mount)))
            continue
        tree: list[TreeEntry] = []
        if mount.mountpoint in trees and bind_from is None:
            try:
                tree = _archive(trees[mount.mountpoint], scope)
            except TooMuch as error:
                scope.unsupported(pid, f"mount {mount.mountpoint} (tmpfs)", str(error))
        mounts.append(
            JobMount(
                os.fsencode(mount.mountpoint),
                mount.fstype,
                os.fsencode(mount.source),
                mount_flags(mount.options),
                os.fsencode(super_data(mount)),
                propagation_of(mount),
                None if bind_from is None else os.fsencode(bind_from),
                from_job,
                "ro" in mount.super_options.split(","),
                tree,
            )
        )
    return MountNamespace(
        base,
        [os.fsencode(path) for path in delta.removed],
        mounts,
        [Option(os.fsencode(mount.mountpoint), mount_flags(mount.options)) for mount in delta.changed],
        [Peer(os.fsencode(path), kind) for path, kind in peers],
        proc,
    )


def _archive(mount: int, scope: Scope) -> list[TreeEntry]:
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        try:
            return archive_tree(root, scope)
        finally:
            os.close(root)
    finally:
        os.close(mount)


def _rebuild(record: MountNamespace, tape: Tape) -> None:
    """Write the entries that mount and unmount, after those of :func:`fresh`. Descriptors from 0 on must be free."""
    change_propagation(tape, b"/", record.propagation, recursive=True)
    if record.proc is not None:
        if record.proc.data:
            tape.mount(0, "/proc", 0, _MS_REMOUNT, record.proc.data + b"\0")
        tape.mount(0, "/proc", 0, _MS_REMOUNT | _MS_BIND | record.proc.flags, 0)
    # Sources of bind mounts are opened first: later mounts may hide them.
    binds = [mount for mount in record.mounts if mount.bind_from is not None and not mount.from_job]
    for mount in reversed(binds):  # the first to be used has the highest number, and 0 is free again at the end
        assert mount.bind_from is not None
        tape.open_tree(AT_FDCWD, mount.bind_from + b"\0", _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    held = len(binds)
    for path in record.removed:
        tape.umount2(path + b"\0", _MNT_DETACH, may_fail=True)  # this machine may not have it at all
    for mount in record.mounts:
        if mount in binds:
            held -= 1
        _mount(mount, tape, held)
    for option in record.options:
        tape.mount(0, option.mountpoint + b"\0", 0, _MS_REMOUNT | _MS_BIND | option.flags, 0)
    for peer in record.peers:
        change_propagation(tape, peer.mountpoint, peer.propagation)


def _mount(mount: JobMount, tape: Tape, held: int) -> None:
    target = mount.mountpoint + b"\0"
    if mount.bind_from is None:
        data: bytes | int = mount.data + b"\0" if mount.data else 0
        tape.mount(mount.source + b"\0", target, mount.fstype, mount.flags & ~MS_RDONLY, data)
        if mount.tree:
            rebuild_tree(mount.tree, mount.mountpoint, tape, held)
    elif mount.from_job:
        tape.mount(mount.bind_from + b"\0", target, 0, _MS_BIND, 0)
        tape.mount(0, target, 0, _MS_REMOUNT | _MS_BIND | mount.flags & ~MS_RDONLY, 0)
    else:
        tape.move_mount(held, b"\0", AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH)
        tape.close(held)
        tape.mount(0, target, 0, _MS_REMOUNT | _MS_BIND | mount.flags & ~MS_RDONLY, 0)
    change_propagation(tape, mount.mountpoint, mount.propagation)
    if not _is_filled_later(mount):
        _make_readonly(mount, tape)


def _is_filled_later(mount: JobMount) -> bool:
    return any(entry.content is not None for entry in mount.tree)


def _make_readonly(mount: JobMount, tape: Tape) -> None:
    target = mount.mountpoint + b"\0"
    if mount.bind_from is None and mount.super_readonly:
        data: bytes | int = mount.data + b"\0" if mount.data else 0
        tape.mount(0, target, 0, _MS_REMOUNT | MS_RDONLY | mount.flags, data)
    if mount.flags & MS_RDONLY:
        tape.mount(0, target, 0, _MS_REMOUNT | _MS_BIND | mount.flags, 0)


def _fill(record: MountNamespace, depot: Depot) -> None:
    for mount in record.mounts:
        if _is_filled_later(mount):
            fill_tree(mount.tree, mount.mountpoint, depot)
            _make_readonly(mount, depot.tape)


def _check(record: MountNamespace) -> None:
    made = {b"/"}
    for mount in record.mounts:
        for path in () if mount.from_job else (mount.bind_from,):
            if path is not None and not os.path.lexists(path):
                raise FileMissing(
                    f"mount {os.fsdecode(mount.mountpoint)}: its source {os.fsdecode(path)} is gone",
                    hint="bring it back, then restore again",
                )
        inside_made = any(mount.mountpoint.startswith(other.rstrip(b"/") + b"/") for other in made - {b"/"})
        if not inside_made and not os.path.lexists(mount.mountpoint):
            raise FileMissing(
                f"mountpoint {os.fsdecode(mount.mountpoint)} is gone", hint="make the directory, then restore again"
            )
        made.add(mount.mountpoint)


def is_remade(record: MountNamespace, path: str) -> bool:
    """Whether a path of the job leads into a mount that the restore makes, so that it tells nothing before that."""
    raw = os.fsencode(path)
    return any(raw == m.mountpoint or raw.startswith(m.mountpoint.rstrip(b"/") + b"/") for m in record.mounts)


def fresh(tape: Tape) -> None:
    """Write the entries for a new mount namespace beside a new PID namespace: nothing gets out, /proc is the new one's.

    What the machine mounts below /proc is put into the new one. Descriptors from 0 on must be free.
    """
    change_propagation(tape, b"/", "slave", recursive=True)
    below = [mount.mountpoint for mount in read_mountinfo() if _is_submount_of_proc(mount)]
    for path in below:
        tape.open_tree(AT_FDCWD, path, _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC, may_fail=True)
    tape.mount("proc", "/proc", "proc", _NOSUID_NODEV_NOEXEC, 0)
    for fd, path in enumerate(below):
        tape.move_mount(fd, b"\0", AT_FDCWD, path, _MOVE_MOUNT_F_EMPTY_PATH, may_fail=True)
        tape.close(fd, may_fail=True)


def _is_submount_of_proc(mount: Mount) -> bool:
    return mount.mountpoint.startswith("/proc/")


KIND = NamespaceKind("mnt", CLONE_NEWNS, MountNamespace, _capture, _rebuild, check=_check, fresh=fresh, fill=_fill)
