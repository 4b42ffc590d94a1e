"""Memory that tasks share: MAP_SHARED|MAP_ANONYMOUS mappings and memfds. See mmap(2), memfd_create(2).

An object is what the mappings and the descriptors of one inode have in common. Its contents lie in the
image once. The depot makes it again and holds it open for reading and writing until all have mapped it.
"""

from __future__ import annotations

import fcntl
import os
import stat

from orchestrator.ids import DepotFd, HostPid, ObjectId
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot
from orchestrator.kinds.memory.huge import fill_huge, huge_bits, map_flags, memfd_flags, scratch_for, store_huge
from orchestrator.kinds.record import Content, Record
from orchestrator.kinds.scope import Scope, Shared
from orchestrator.linux.proc_maps import MapLine
from orchestrator.tape.build import Tape

_AT_FDCWD = -100
_PROT_READ_WRITE = 3
_MAP_SHARED, _MAP_FIXED_NOREPLACE, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x01, 0x100000, 0x20, 0x4000
_MFD_CLOEXEC, _MFD_ALLOW_SEALING = 1, 2
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_F_SEAL_SEAL, _F_SEAL_FUTURE_WRITE = 0x01, 0x10
_MEMFD, _DELETED = "/memfd:", " (deleted)"
_PAGE = 4096


class SharedMemory(Record, frozen=True, tag="shared-memory"):
    """A piece of memory without a name in any file system."""

    name: str | None
    """That of a memfd; None for MAP_ANONYMOUS: maps shows "/dev/zero (deleted)" or "/anon_hugepage (deleted)"."""
    content: Content
    seals: int = 0
    """F_SEAL_* bits of a memfd."""
    mode: int = 0o777
    uid: int = 0
    gid: int = 0
    huge_bits: int = 0
    """The page size of memory from hugetlbfs, as a power of two; else 0."""


def shared_object(scope: Scope, pid: HostPid, line: MapLine) -> ObjectId:
    """Return the object behind a MAP_SHARED mapping of anonymous memory or a memfd; -1 if it cannot be saved."""
    path = f"/proc/{pid}/map_files/{line.start:x}-{line.end:x}"
    what = f"memory {line.start:#x}-{line.end:#x} ({os.fsdecode(line.path)})"
    return memory_object(scope, pid, path, what, os.makedev(*line.dev), line.inode)


def memory_object(scope: Scope, pid: HostPid, path: str, what: str, dev: int, ino: int) -> ObjectId:
    """Return the object of an inode that ``path`` opens, saving its contents on first sight."""
    bits = huge_bits(path)

    def make(_: ObjectId) -> SharedMemory:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        scope.closers.append(fd)
        status = os.fstat(fd)
        link = os.readlink(path)
        name = link.removeprefix(_MEMFD).removesuffix(_DELETED) if link.startswith(_MEMFD) else None
        seals = 0 if name is None else fcntl.fcntl(fd, _F_GET_SEALS)
        size = status.st_size
        content = store_huge(scope, fd, size, bits) if bits else scope.store(fd, size)
        return SharedMemory(name, content, seals, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, bits)

    scope.shared.setdefault((dev, ino), Shared(pid, what, None))
    return scope.object("memory", (dev, ino), make)


def open_shared(of: ObjectId, depot: Depot) -> DepotFd:
    """Make an object again, once, and return the standing descriptor that reads and writes it."""
    standing, new = depot.extra("memory", of)
    if not new:
        return standing
    memory: SharedMemory = depot.objects[of]
    tape = depot.tape
    if memory.name is None:
        _make_anonymous(depot, memory.content.size, memory.huge_bits)
    else:
        sealable = memory.seals != _F_SEAL_SEAL
        flags = _MFD_CLOEXEC | memfd_flags(memory.huge_bits) | (_MFD_ALLOW_SEALING if sealable else 0)
        tape.memfd_create(os.fsencode(memory.name) + b"\0", flags)
    depot.keep(0, standing)
    if memory.huge_bits:
        fill_huge(depot, standing, memory.content, memory.huge_bits)
    else:
        depot.fill(standing, memory.content)
    if memory.name is not None:
        tape.fchown(standing, memory.uid, memory.gid)
        tape.fchmod(standing, memory.mode)
        early = memory.seals & ~(_F_SEAL_SEAL | _F_SEAL_FUTURE_WRITE)
        if early:
            tape.fcntl(standing, _F_ADD_SEALS, early)
    return standing


def _make_anonymous(depot: Depot, size: int, bits: int) -> None:
    """Leave a descriptor of new anonymous shared memory at 0.

    The kernel gives a descriptor of it only by way of a mapping, and only to a task with capabilities in
    the first user namespace; without, a memfd does the same under another name.
    """
    tape, at = depot.tape, scratch_for(depot, bits)
    length = size + _PAGE - 1 & -_PAGE
    flags = _MAP_SHARED | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED_NOREPLACE | map_flags(bits)
    tape.mmap(at, length, _PROT_READ_WRITE, flags, -1, 0)
    path = f"{depot.proc}/self/map_files/{at:x}-{at + length:x}"
    tape.openat(_AT_FDCWD, path, os.O_RDWR | O_CLOEXEC, 0, may_fail=True)
    tape.memfd_create(
        "orch-shared", _MFD_CLOEXEC | memfd_flags(bits)
    )  # descriptor 0 if the other failed, else not used
    tape.munmap(at, length)
    tape.close(1, may_fail=True)


def seal_shared(depot: Depot, tape: Tape) -> None:
    """Add the seals that would be in the way of mappings; after all tasks have mapped, before the depot is closed."""
    for of, memory in enumerate(depot.objects):
        if isinstance(memory, SharedMemory) and memory.name is not None:
            late = memory.seals & (_F_SEAL_SEAL | _F_SEAL_FUTURE_WRITE)
            standing, new = depot.extra("memory", ObjectId(of))
            if late and not new and memory.seals != _F_SEAL_SEAL:
                tape.fcntl(standing, _F_ADD_SEALS, late)
