"""Why an image could not be written, and what to do about it."""

from __future__ import annotations

import errno
import os

from orchestrator.errors import ImageWriteFailed
from orchestrator.image.spool import STANDARD, directory


def write_failed(path: str, error: OSError, needed_bytes: int, *, spooled: bool = False) -> ImageWriteFailed:
    """Return the error to raise when writing an image failed with ``error``. ``spooled`` says that $TMPDIR is used."""
    reason = error.strerror or str(error)
    if error.errno == errno.ELOOP:
        reason = "it is a symbolic link"
    elif error.errno == errno.EEXIST:
        reason = "it exists and is not a regular file"
    name = "to standard output" if path == STANDARD else path
    return ImageWriteFailed(
        f"cannot write image {name}: {reason}", hint=_hint(path, error.errno, needed_bytes, spooled)
    )


def _hint(path: str, number: int | None, needed_bytes: int, spooled: bool) -> str | None:
    parent = os.path.dirname(path) or os.curdir
    needed = f"{-(-needed_bytes // (1 << 20))} MiB"
    match number:
        case errno.ENOSPC if spooled:
            return (
                f"what must be written while the job stands still is kept in {directory()}, up to {needed}:"
                " free them there, or set TMPDIR"
            )
        case errno.ENOSPC:
            return f"free {needed} on the file system of {parent}, or write elsewhere"
        case errno.EPIPE:
            return "whatever reads it has ended; the job is as it was"
        case errno.EDQUOT:
            return f"the disk quota leaves no room for {needed} in {parent}"
        case errno.EFBIG:
            return f"the image takes {needed}: more than the file size limit (ulimit -f) or the file system allows"
        case errno.EROFS:
            return f"{parent} is mounted read-only; write the image elsewhere"
        case errno.EACCES | errno.EPERM:
            return f"make {parent} writable for orch, or write the image elsewhere"
        case errno.ENOENT | errno.ENOTDIR:
            return f"create the directory {parent} first"
        case errno.EISDIR | errno.ELOOP | errno.EEXIST:
            return "name a new file, or an image to be replaced"
        case _:
            return None
