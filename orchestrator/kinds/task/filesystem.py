"""Where a process is in the file system: working directory, root, umask. See path_resolution(7)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from orchestrator.errors import FileMissing, ImageCorrupt
from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.record import Record, native_path, portable_path
from orchestrator.kinds.scope import Scope
from orchestrator.linux.procfs import read_link
from orchestrator.tape.build import Tape

_DELETED = " (deleted)"
_BY_NAME = ObjectId(-1)


class FilesystemContext(Record, frozen=True):
    """Shared by the tasks that refer to it (CLONE_FS)."""

    id: ObjectId
    working_directory: str
    root: str
    umask: int
    entered: ObjectId = _BY_NAME
    """The open file through which the working directory is entered if it was removed, -1 if it has its name."""

    @property
    def is_removed(self) -> bool:
        """Whether the working directory has no name any more."""
        return self.entered != _BY_NAME


def capture_filesystem(
    id_: ObjectId, pid: HostPid, umask: int, scope: Scope, open_directory: Callable[[HostPid, str], ObjectId]
) -> FilesystemContext:
    """Describe where a held process is. Paths are from the root of its mount namespace.

    ``open_directory`` records the directory that a link such as /proc/PID/cwd leads to, -1 if it cannot be saved.
    """
    paths = []
    entered = _BY_NAME
    for name in ("cwd", "root"):
        path = read_link(f"/proc/{pid}/{name}")
        if path.endswith(_DELETED) and not os.path.lexists(path):
            if name == "cwd":
                entered = open_directory(pid, name)
            else:
                scope.unsupported(pid, f"{name} {path}", "a deleted directory cannot be entered again")
        paths.append(portable_path(path))
    return FilesystemContext(id_, paths[0], paths[1], umask, entered)


def check_entered(contexts: Sequence[FilesystemContext], files: int) -> None:
    """Raise ImageCorrupt unless the directories that contexts enter are among the image's ``files``."""
    for context in contexts:
        if context.is_removed and not 0 <= context.entered < files:
            raise ImageCorrupt(f"a working directory of the image is open file {context.entered} of {files}")


def check_filesystem(context: FilesystemContext) -> None:
    """Raise FileMissing unless the directories are there."""
    for path in (context.root,) if context.is_removed else (context.working_directory, context.root):
        path = native_path(path)
        if not os.path.isdir(path):
            raise FileMissing(f"the job's directory {path} is gone", hint="make it again, or restore where it exists")


def tell_filesystem(tape: Tape, wanted: FilesystemContext, before: FilesystemContext) -> None:
    """Go there. The working directory is entered first: it may lie outside of the root.

    One that was removed has been entered already, by :func:`enter_removed`.
    """
    if wanted.working_directory != before.working_directory and not wanted.is_removed:
        tape.chdir(native_path(wanted.working_directory))
    if wanted.root != before.root:
        tape.chroot(native_path(wanted.root))
    if wanted.umask != before.umask:
        tape.umask(wanted.umask)


def enter_removed(tape: Tape, wanted: FilesystemContext, slot: Callable[[ObjectId], int]) -> None:
    """Enter a working directory that was removed, while the depot's descriptors are there."""
    if wanted.is_removed:
        tape.fchdir(slot(wanted.entered))
