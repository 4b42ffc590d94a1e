"""Files whose name is gone while they have others (hard links): found again by their handle.

A handle names the file itself, for as long as any name leads to it, on the file system where it is. Nothing has to be
written there, and none of the other names has to be known. See name_to_handle_at(2).
"""

from __future__ import annotations

import os
import stat

from orchestrator.errors import FileMissing
from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.files.reopening import AT_FDCWD
from orchestrator.kinds.record import Record, native_path, portable_path
from orchestrator.linux.handles import name_to_handle, open_by_handle_at, pack_handle
from orchestrator.linux.mountinfo import read_mountinfo
from orchestrator.tape.build import Tape


class Handle(Record, frozen=True):
    """A file of a file system."""

    mountpoint: str
    """Where that is mounted."""
    type: int
    content: bytes


def find_handle(view: FdView) -> Handle | None:
    """Return a handle by which the file of a descriptor can be opened again; None if there is none."""
    status = view.stat
    if not stat.S_ISREG(status.st_mode) or status.st_nlink == 0:
        return None
    try:
        fd = os.open(view.path, os.O_PATH | os.O_CLOEXEC)
        try:
            handle_type, content = name_to_handle(fd)
        finally:
            os.close(fd)
    except OSError:
        return None
    for mount in read_mountinfo(view.pid):
        if os.makedev(mount.major, mount.minor) != status.st_dev:
            continue
        path = f"/proc/{view.pid}/root{mount.mountpoint}"
        if _leads_to(path, handle_type, content) == (status.st_dev, status.st_ino):
            return Handle(portable_path(mount.mountpoint), handle_type, content)
    return None


def _leads_to(mountpoint: str, handle_type: int, content: bytes) -> tuple[int, int] | None:
    try:
        mount_fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = open_by_handle_at(mount_fd, handle_type, content, os.O_PATH)
        finally:
            os.close(mount_fd)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_handle(path: str, handle: Handle) -> os.stat_result:
    """Return the status of a file; raise FileMissing unless its handle leads to it."""
    try:
        mount_fd = os.open(native_path(handle.mountpoint), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = open_by_handle_at(mount_fd, handle.type, handle.content, os.O_PATH)
        finally:
            os.close(mount_fd)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise FileMissing(
            f"the file that was {path} once, which the job has open, is gone: {error.strerror}",
            hint="it had no name that orch could write down; restore where it still exists",
        ) from error


def open_handle(tape: Tape, handle: Handle, flags: int) -> None:
    """Leave the file open as descriptor 0."""
    tape.openat(AT_FDCWD, native_path(handle.mountpoint), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0)
    tape.open_by_handle_at(0, pack_handle(handle.type, handle.content), flags)
    tape.dup3(1, 0, os.O_CLOEXEC)
    tape.close(1)
