"""Files of procfs about one process of the job, as /proc/self/status. See proc(5)."""

from __future__ import annotations

import os
import re
import stat

from orchestrator.kinds.files.kind import FdView, FileKind, OpenFile, Settling
from orchestrator.kinds.files.late import hold_place, open_in_place, refuse_sharing
from orchestrator.kinds.files.reopening import AT_FDCWD, open_flags, seek
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.statfs import PROC_SUPER_MAGIC, filesystem_magic
from orchestrator.tape.build import Tape

_OF_PROCESS = re.compile(r"(/.*?|)/(\d+)(?:/.*)?")
_ROOT_INODE = 1


class ProcFile(Record, frozen=True, tag="proc-file"):
    """A file that is opened again when the process it is about is there."""

    path: str


def _process_of(view: FdView) -> int:
    """Return the number of the process that a file of procfs is about, as that procfs counts; 0 for others."""
    found = _OF_PROCESS.fullmatch(view.link)
    if found is None or filesystem_magic(view.path) != PROC_SUPER_MAGIC:
        return 0
    for top in (found[1] or "/", f"/proc/{view.pid}/root{found[1]}"):
        try:
            status = os.stat(top)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == (view.stat.st_dev, _ROOT_INODE):
            return int(found[2])
    return 0


def _recognise(view: FdView) -> bool:
    return (
        view.link.startswith("/")
        and stat.S_IFMT(view.stat.st_mode) in (stat.S_IFREG, stat.S_IFDIR)
        and bool(_process_of(view))
    )


def _capture(view: FdView, scope: Scope) -> ProcFile | None:
    if _process_of(view) not in scope.pids.values():
        scope.unsupported(view.pid, view.what, "it is about a process that has ended or is outside of the job")
        return None
    refuse_sharing(view, scope)
    return ProcFile(view.link)


def _settle(file: OpenFile, settling: Settling) -> None:
    def write_open(tape: Tape) -> None:
        tape.openat(AT_FDCWD, file.body.path, open_flags(file.flags), 0)
        if not file.flags & os.O_PATH:
            seek(tape, settling.free, file)

    open_in_place(file, settling, write_open)


KIND = FileKind("procfs file", ProcFile, _recognise, _capture, hold_place, _settle)
