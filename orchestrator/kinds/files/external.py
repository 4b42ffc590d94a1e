"""Files that belong to somebody outside of the job, and that a restore is given again.

These are the standard streams that ``orch run`` handed down, and what --external names.
"""

from __future__ import annotations

import os
import stat

from orchestrator.errors import CannotHonour
from orchestrator.kinds.files.device import is_stateless
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux import tty

_FIONBIO = 0x5421
_CONSOLES = frozenset((4, 5))


class External(Record, frozen=True, tag="external"):
    """A file that is not in the image, by the key it is given under."""

    key: str
    """As "stdio[1]", "pipe[123]", "tty[136:0]", "dev[10:200]", "socket[123]" or "file[PATH]"."""
    settings: bytes = b""
    """Of a terminal: struct termios2."""
    size: bytes = b""
    """Of a terminal: struct winsize."""


def external_key(view: FdView) -> str:
    """Return how --external names the file behind a descriptor."""
    kind, colon, inode = view.link.partition(":[")
    if colon and kind in ("pipe", "socket"):
        return f"{kind}[{inode}"
    if stat.S_ISCHR(view.stat.st_mode) and not view.link.startswith("/dev/zero"):
        rdev = terminal_behind(view)
        return terminal_key(rdev) if is_terminal(view) else device_key(rdev)
    if stat.S_ISBLK(view.stat.st_mode):
        return device_key(view.stat.st_rdev)
    return f"file[{view.link}]"


def is_terminal(view: FdView) -> bool:
    """Whether a character device is a terminal, a console or a serial line."""
    return os.major(view.stat.st_rdev) in _CONSOLES or (view.fd >= 0 and os.isatty(view.local))


def terminal_key(rdev: int) -> str:
    """Return how --external names a terminal."""
    return f"tty[{os.major(rdev)}:{os.minor(rdev)}]"


def device_key(rdev: int) -> str:
    """Return how --external names any other device."""
    return f"dev[{os.major(rdev)}:{os.minor(rdev)}]"


def terminal_behind(view: FdView) -> int:
    """Return the number of a character device; of /dev/tty that of the terminal it leads to."""
    rdev = view.stat.st_rdev
    if rdev != tty.CURRENT or view.info.flags & os.O_PATH:
        return rdev
    try:
        return tty.device(view.local)
    except OSError:  # hung up
        return rdev


def declared(scope: Scope, rdev: int) -> str | None:
    """Return the key of a terminal that the job was given, or that the user has declared; None if it is neither."""
    key = terminal_key(rdev)
    if scope.is_external(key):
        return key
    return next((f"stdio[{number}]" for (_, _, of), number in scope.stdio.items() if of == rdev), None)


def capture_external(view: FdView, scope: Scope) -> External | None:
    """Return the record of a file that is declared external, else None."""
    if not scope.externals and not scope.stdio:
        return None
    if not scope.externals and view.link.startswith("anon_inode:"):
        return None
    status = view.stat
    # One opening of these devices is as good as another: they are the job's own wherever they came from.
    if not (stat.S_ISCHR(status.st_mode) and is_stateless(status.st_rdev)):
        stream = scope.stdio.get((status.st_dev, status.st_ino, status.st_rdev))
        if stream is not None:
            return _external(f"stdio[{stream}]", view)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == tty.CURRENT:
        key = declared(scope, terminal_behind(view))
        return _external(key, view) if key is not None else None
    for key in (external_key(view), f"file[{view.link}]"):
        if scope.is_external(key):
            return _external(key, view)
    return None


def _external(key: str, view: FdView) -> External:
    if not stat.S_ISCHR(view.stat.st_mode) or view.info.flags & os.O_PATH or not os.isatty(view.local):
        return External(key)
    return External(key, tty.settings(view.local), tty.window_size(view.local))


def _rebuild(file: OpenFile, depot: Depot) -> None:
    key = file.body.key
    if key not in depot.inherited:
        raise CannotHonour(
            f"the job had {key} open, which is not in the image", hint=f"give it a new one with --inherit {key}"
        )
    depot.tape.dup3(depot.inherited[key], depot.slot(file.id), O_CLOEXEC)
    # Whoever polls counts on not being blocked. The other flags are the giver's own (as ">>" sets O_APPEND).
    blocking = 0 if file.flags & os.O_NONBLOCK else 1
    # A device need not know of that.
    depot.tape.ioctl(
        depot.slot(file.id), _FIONBIO, (1 - blocking).to_bytes(4, "little"), may_fail=key.startswith("dev[")
    )


def _never(_view: FdView) -> bool:
    return False  # the collector asks capture_external() before all kinds


KIND = FileKind("external file", External, _never, capture_external, _rebuild)
