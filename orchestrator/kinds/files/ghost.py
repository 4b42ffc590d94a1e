"""Regular files without a name: unlinked while open, or made with O_TMPFILE. Their contents go into the image."""

from __future__ import annotations

import os
import stat

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import AT_FDCWD, reopen
from orchestrator.kinds.record import Content, Record, native_path, portable_path
from orchestrator.kinds.scope import Scope, Shared
from orchestrator.linux.statfs import HUGETLBFS_MAGIC, filesystem_magic

_DELETED = " (deleted)"
_MFD_CLOEXEC = 1
_XATTRS = ("user.", "trusted.", "system.posix_acl_access", "security.capability")


class Ghost(Record, frozen=True, tag="ghost"):
    """The file itself; every open file description of it refers to this."""

    path: str
    """The name it had."""
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    content: Content
    xattrs: list[tuple[str, bytes]] = []  # noqa: RUF012 - msgspec copies it


class GhostFile(Record, frozen=True, tag="ghost-file"):
    """An open file description of an unlinked file."""

    object: ObjectId


def _recognise(view: FdView) -> bool:
    return stat.S_ISREG(view.stat.st_mode) and view.stat.st_nlink == 0 and not view.link.startswith("/memfd:")


def ghost_object(view: FdView, scope: Scope) -> ObjectId | None:
    """Return the shared object of an unlinked file, saving its contents on first sight."""
    status = view.stat
    if status.st_size > scope.ghost_limit and status.st_blocks * 512 > scope.ghost_limit:
        scope.unsupported(
            view.pid,
            view.what,
            f"an unlinked file of {status.st_size} bytes, above the limit of {scope.ghost_limit}",
            "raise --ghost-limit",
        )
        return None

    if filesystem_magic(view.path) == HUGETLBFS_MAGIC:
        scope.unsupported(view.pid, view.what, "huge pages of hugetlbfs cannot be saved")
        return None

    def make(_: ObjectId) -> Ghost:
        fd = view.take_reader(scope)
        names = [name for name in os.listxattr(fd) if name.startswith(_XATTRS)]
        return Ghost(
            portable_path(view.link.removesuffix(_DELETED)),
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_atime_ns,
            status.st_mtime_ns,
            scope.store(fd, status.st_size),
            [(name, os.getxattr(fd, name)) for name in names],
        )

    identity = (status.st_dev, status.st_ino)
    if view.info.flags & os.O_ACCMODE:  # those who only read, as a library, share nothing that changes
        scope.shared.setdefault(identity, Shared(view.pid, view.what, None))
    return scope.object("file", identity, make)


def _capture(view: FdView, scope: Scope) -> GhostFile | None:
    of = ghost_object(view, scope)
    return None if of is None else GhostFile(of)


def open_ghost(of: ObjectId, depot: Depot) -> DepotFd:
    """Make an unlinked file again, once, and return a descriptor that reads and writes it.

    In the directory where it was if that is possible, else in /tmp, else in memory.
    """
    standing, new = depot.extra("file", of)
    if not new:
        return standing
    ghost: Ghost = depot.objects[of]
    path = native_path(ghost.path)
    tape = depot.tape
    # What succeeds first is descriptor 0; the others stay unused.
    flags = os.O_RDWR | os.O_TMPFILE | O_CLOEXEC
    tape.openat(AT_FDCWD, os.path.dirname(path) or "/", flags, 0o600, may_fail=True)
    tape.openat(AT_FDCWD, "/tmp", flags, 0o600, may_fail=True)
    tape.memfd_create(os.path.basename(path)[:200], _MFD_CLOEXEC)
    depot.keep(0, standing)
    tape.close(1, may_fail=True)
    tape.close(2, may_fail=True)
    depot.fill(standing, ghost.content)
    for name, value in ghost.xattrs:
        tape.fsetxattr(standing, name, value, len(value), 0, may_fail=True)  # not every file system has them
    tape.fchown(standing, ghost.uid, ghost.gid)
    tape.fchmod(standing, ghost.mode)
    times = b"".join((ns // 10**9).to_bytes(8, "little", signed=True) + (ns % 10**9).to_bytes(8, "little")
                     for ns in (ghost.atime_ns, ghost.mtime_ns))  # fmt: skip
    tape.utimensat(standing, 0, times, 0)
    return standing


def _rebuild(file: OpenFile, depot: Depot) -> None:
    reopen(depot, open_ghost(file.body.object, depot), file)


KIND = FileKind("unlinked file", GhostFile, _recognise, _capture, _rebuild, objects=(Ghost,), links="/")
