"""Where a process is in the file system: working directory, root, umask. See path_resolution(7)."""

from __future__ import annotations

import os

from orchestrator.errors import FileMissing
from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.tape.build import Tape

_DELETED = " (deleted)"


class FilesystemContext(Record, frozen=True):
    """Shared by the tasks that refer to it (CLONE_FS)."""

    id: ObjectId
    working_directory: str
    root: str
    umask: int


def capture_filesystem(id_: ObjectId, pid: HostPid, umask: int, scope: Scope) -> FilesystemContext:
    """Describe where a held process is. Paths are from the root of its mount namespace."""
    paths = []
    for name in ("cwd", "root"):
        path = os.readlink(f"/proc/{pid}/{name}")
        if path.endswith(_DELETED) and os.stat(f"/proc/{pid}/{name}").st_nlink == 0:
            scope.unsupported(pid, f"{name} {path}", "a deleted directory cannot be entered again")
        paths.append(path)
    return FilesystemContext(id_, paths[0], paths[1], umask)


def check_filesystem(context: FilesystemContext) -> None:
    """Raise FileMissing unless the directories are there."""
    for path in (context.working_directory, context.root):
        if not os.path.isdir(path):
            raise FileMissing(f"the job's directory {path} is gone", hint="make it again, or restore where it exists")


def tell_filesystem(tape: Tape, wanted: FilesystemContext, before: FilesystemContext) -> None:
    """Go there. The working directory is entered first: it may lie outside of the root."""
    if wanted.working_directory != before.working_directory:
        tape.chdir(wanted.working_directory)
    if wanted.root != before.root:
        tape.chroot(wanted.root)
    if wanted.umask != before.umask:
        tape.umask(wanted.umask)
