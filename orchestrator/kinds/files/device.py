"""Character devices without state: null, zero, full, random, urandom. See null(4), random(4)."""

from __future__ import annotations

import os
import stat

from orchestrator.errors import FileChanged
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile, anybody
from orchestrator.kinds.files.regular import check_named, named
from orchestrator.kinds.files.reopening import AT_FDCWD, open_flags
from orchestrator.kinds.record import Record, native_path, portable_path, shown_path
from orchestrator.kinds.scope import Scope

_MEMORY_MAJOR = 1
_STATELESS = {os.makedev(_MEMORY_MAJOR, minor) for minor in (3, 5, 7, 8, 9)}
_CONSOLES = frozenset((4, 5))


class Device(Record, frozen=True, tag="device"):
    """A device that is opened again by its path."""

    path: str
    file_type: int
    """S_IFCHR or S_IFBLK."""
    rdev: int


def is_stateless(rdev: int) -> bool:
    """Whether one opening of the device is as good as another."""
    return rdev in _STATELESS


def _recognise(view: FdView) -> bool:
    return stat.S_ISCHR(view.stat.st_mode) or stat.S_ISBLK(view.stat.st_mode)


def _capture(view: FdView, scope: Scope) -> Device | None:
    status = view.stat
    if status.st_rdev in _STATELESS or view.info.flags & os.O_PATH:
        if not named(view, scope):
            return None
        return Device(portable_path(view.link), stat.S_IFMT(status.st_mode), status.st_rdev)
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if stat.S_ISCHR(status.st_mode) and (major in _CONSOLES or os.isatty(view.local)):
        scope.outside(
            view.pid,
            view.what,
            "a console or serial line, which belongs to the machine",
            f"--external 'tty[{major}:{minor}]' leaves it out of the image, to be handed over at the restore",
        )
    else:
        what = "character" if stat.S_ISCHR(status.st_mode) else "block"
        scope.unsupported(
            view.pid,
            view.what,
            f"{what} device {major}:{minor} has state that cannot be saved",
            f"--external 'dev[{major}:{minor}]' leaves it out of the image, to be handed over at the restore",
        )
    return None


def _rebuild(file: OpenFile, depot: Depot) -> None:
    depot.tape.openat(AT_FDCWD, native_path(file.body.path), open_flags(file.flags), 0)
    depot.keep(0, depot.slot(file.id))


def _check(file: OpenFile) -> None:
    body: Device = file.body
    found = check_named(body.path, body.file_type).st_rdev
    if found != body.rdev:
        raise FileChanged(
            f"{shown_path(body.path)} was device {os.major(body.rdev)}:{os.minor(body.rdev)}"
            f" and is {os.major(found)}:{os.minor(found)} now",
            hint="make the device node as it was",
        )


KIND = FileKind("device", Device, _recognise, _capture, _rebuild, check=_check, may_open=anybody, links="/")
