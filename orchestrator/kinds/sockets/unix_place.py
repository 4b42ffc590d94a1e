"""Bind and connect by name in the depot, from wherever the name was meant.

Names whose files are gone, and names of connected pairs, are bound in rooms of a file system of their
own that is mounted nowhere: nothing of it can be seen or be in the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot
from orchestrator.kinds.sockets.unix_name import SUN_PATH, UnixName, sockaddr_un

AT_FDCWD = -100
_AT_REMOVEDIR = 0x200
_FSCONFIG_CMD_CREATE = 6
_ONE = ObjectId(0)  # there is one of each in a depot


def open_home(depot: Depot) -> tuple[DepotFd, DepotFd, DepotFd]:
    """Return standing descriptors of the depot's root, its working directory and the rooms.

    Needs the low numbers free when it is first called.
    """
    root, new = depot.extra("unix-root", _ONE)
    cwd, _ = depot.extra("unix-cwd", _ONE)
    rooms, _ = depot.extra("unix-rooms", _ONE)
    if new:
        tape = depot.tape
        for standing, path in ((root, "/"), (cwd, ".")):
            tape.openat(AT_FDCWD, path, os.O_PATH | os.O_DIRECTORY | O_CLOEXEC, 0)
            depot.keep(0, standing)
        tape.fsopen("tmpfs", 0)
        tape.fsconfig(0, _FSCONFIG_CMD_CREATE, 0, 0, 0)
        tape.fsmount(0, 0, 0)
        depot.keep(1, rooms)
        tape.close(0)
    return root, cwd, rooms


@contextmanager
def in_room(depot: Depot, room: str, address: bytes) -> Iterator[None]:
    """Let the depot stand where ``address`` can be bound or connected to, in a room of its own."""
    root, cwd, rooms = open_home(depot)
    tape = depot.tape
    tape.fchdir(rooms)
    tape.mkdirat(AT_FDCWD, room, 0o755, may_fail=True)
    tape.chroot(room)
    tape.chdir("/")
    *directories, _ = [part for part in os.fsdecode(address).split("/") if part not in ("", ".")]
    relative = not address.startswith(b"/")
    for _ in range(directories.count("..") if relative else 0):
        tape.mkdirat(AT_FDCWD, "d", 0o755, may_fail=True)
        tape.chdir("d")
    for depth in range(len(directories)):
        path = "/".join(directories[: depth + 1])
        if directories[depth] != "..":
            tape.mkdirat(AT_FDCWD, path, 0o755, may_fail=True)
    yield
    tape.fchdir(root)
    tape.chroot(".")
    tape.fchdir(cwd)


@contextmanager
def _at_base(depot: Depot, name: UnixName) -> Iterator[None]:
    root, cwd, _ = open_home(depot)
    if name.base is None:
        yield
    elif name.address.startswith(b"/"):
        depot.tape.chroot(name.base)
        yield
        depot.tape.fchdir(root)
        depot.tape.chroot(".")
        depot.tape.fchdir(cwd)
    else:
        depot.tape.chdir(name.base)
        yield
        depot.tape.fchdir(cwd)


def write_bind(depot: Depot, fd: int, name: UnixName, room: str) -> None:
    """Bind a socket to its name, and leave its file as it was. What lies there by now is only a dead socket's file."""
    tape = depot.tape
    struct = sockaddr_un(name.address)
    if name.address.startswith(b"\0"):
        tape.bind(fd, struct, len(struct))
        return
    if name.where is None:
        with in_room(depot, room, name.address):
            tape.bind(fd, struct, len(struct))
            tape.fchmodat(AT_FDCWD, os.fsdecode(name.address), 0o777)  # whoever we act as may connect
        return
    if name.stray:
        _bind_stray(depot, fd, name, name.where)
        return
    path = os.fsdecode(name.address)
    with _at_base(depot, name):
        tape.unlinkat(AT_FDCWD, path, 0, may_fail=True)
        tape.bind(fd, struct, len(struct))
        tape.fchownat(AT_FDCWD, path, name.uid, name.gid, 0)
        tape.fchmodat(AT_FDCWD, path, name.mode)
    if name.renamed:
        made = (name.base or "") + path
        tape.unlinkat(AT_FDCWD, name.where, 0, may_fail=True)
        tape.linkat(AT_FDCWD, made, AT_FDCWD, name.where, 0)
        tape.unlinkat(AT_FDCWD, made, 0)


def _bind_stray(depot: Depot, fd: int, name: UnixName, where: str) -> None:
    """Bind in a directory beside the place where the file is now, and move it there."""
    root, cwd, _ = open_home(depot)
    tape = depot.tape
    scratch = f"{os.path.dirname(where).rstrip('/')}/.orch-{os.path.basename(where)}"
    path = os.fsdecode(name.address)
    steps = [part for part in path.split("/")[:-1] if part not in ("", ".")]
    below = "d/" * steps.count("..")  # so that the way up does not lead out
    made = [scratch]
    tape.mkdirat(AT_FDCWD, scratch, 0o700)
    for depth in range(steps.count("..")):
        made.append(f"{scratch}/{below[: 2 * depth + 1]}")
        tape.mkdirat(AT_FDCWD, made[-1], 0o700)
    here = f"{scratch}/{below}".rstrip("/")
    for depth in range(len(steps)):
        directory = os.path.normpath(f"{here}/{'/'.join(steps[: depth + 1])}")
        if directory not in made:
            made.append(directory)
            tape.mkdirat(AT_FDCWD, directory, 0o700)
    tape.unlinkat(AT_FDCWD, where, 0, may_fail=True)
    struct = sockaddr_un(name.address)
    if path.startswith("/"):
        tape.chroot(scratch)
        tape.bind(fd, struct, len(struct))
        tape.fchdir(root)
        tape.chroot(".")
    else:
        tape.chdir(here)
        tape.bind(fd, struct, len(struct))
    tape.fchdir(cwd)
    bound = os.path.normpath(f"{scratch if path.startswith('/') else here}/{path.lstrip('/')}")
    tape.fchownat(AT_FDCWD, bound, name.uid, name.gid, 0)
    tape.fchmodat(AT_FDCWD, bound, name.mode)
    tape.linkat(AT_FDCWD, bound, AT_FDCWD, where, 0)
    tape.unlinkat(AT_FDCWD, bound, 0)
    for directory in reversed(made):
        tape.unlinkat(AT_FDCWD, directory, _AT_REMOVEDIR)


@contextmanager
def reaching(depot: Depot, name: UnixName, room: str) -> Iterator[bytes]:
    """Let the depot stand where a bound socket can be reached; yield the sockaddr that reaches it."""
    if name.address.startswith(b"\0"):
        yield sockaddr_un(name.address)
    elif name.where is None:
        with in_room(depot, room, name.address):
            yield sockaddr_un(name.address)
    elif len(os.fsencode(name.where)) < SUN_PATH:
        yield sockaddr_un(os.fsencode(name.where))
    else:
        _, cwd, _ = open_home(depot)
        directory, _, file = name.where.rpartition("/")
        depot.tape.chdir(directory)
        yield sockaddr_un(os.fsencode(file))
        depot.tape.fchdir(cwd)
