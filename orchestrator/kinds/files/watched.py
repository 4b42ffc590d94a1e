"""What is watched, as fdinfo shows it: inodes by number, device and handle. See inotify(7), fanotify(7)."""

from __future__ import annotations

import os
from typing import Protocol

from orchestrator.ids import ObjectId
from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.record import portable_path
from orchestrator.linux.handles import open_by_handle_at
from orchestrator.linux.mountinfo import read_mountinfo

_MINOR_BITS = 20


class Watched(Protocol):
    """An inode."""

    @property
    def inode(self) -> int: ...
    @property
    def device(self) -> int: ...
    @property
    def handle_type(self) -> int: ...
    @property
    def handle(self) -> bytes: ...


def hex_fields(text: str) -> dict[str, str]:
    """Divide a line: "ino:20c03c sdev:fe00000 mask:fff", in hex."""
    return dict(word.split(":", 1) for word in text.split())


def device_of(text: str) -> int:
    """Return an st_dev from the kernel's own way to write it."""
    device = int(text, 16)
    return os.makedev(device >> _MINOR_BITS, device & (1 << _MINOR_BITS) - 1)


def open_file_of(view: FdView, line: Watched) -> ObjectId | None:
    """Return an open file of the job that leads to an inode; all must be known."""
    assert view.files is not None
    for held in view.files.of_inode(line.inode):
        if os.stat(f"/proc/{held.pid}/fd/{held.fd}").st_dev == line.device:
            return held.file
    return None


def path_of(view: FdView, line: Watched) -> str | None:
    """Find a path to an inode: by its handle, on each mount of its file system."""
    for mount in read_mountinfo(view.pid):
        if os.makedev(mount.major, mount.minor) != line.device or not line.handle:
            continue
        try:
            mount_fd = os.open(f"/proc/{view.pid}/root{mount.mountpoint}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fd = open_by_handle_at(mount_fd, line.handle_type, line.handle, os.O_PATH)
        except OSError:
            continue
        finally:
            os.close(mount_fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
        os.close(fd)
        if _leads_to(path, view, line):
            return portable_path(path)
    return None


def _leads_to(path: str, view: FdView, line: Watched) -> bool:
    for seen in (path, f"/proc/{view.pid}/root{path}"):
        try:
            status = os.lstat(seen)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == (line.device, line.inode):
            return True
    return False
