"""Files of procfs about one process of the job, as /proc/self/status. See proc(5)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence

from orchestrator.ids import DepotFd, ObjectId, Pid
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, FileTable, OpenFile, Settling
from orchestrator.kinds.files.late import hand_round, hold_place, open_in_place, shared_late
from orchestrator.kinds.files.regular import leads_there
from orchestrator.kinds.files.reopening import AT_FDCWD, open_flags, seek
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.statfs import PROC_SUPER_MAGIC, filesystem_magic
from orchestrator.tape.build import Tape

_OF_PROCESS = re.compile(r"(/.*?|)/(\d+)(/.*)?")
_ROOT_INODE = 1
_INIT = 1


class ProcFile(Record, frozen=True, tag="proc-file"):
    """A file that is opened again when the process it is about is there."""

    path: str
    ended: bool = False
    """Whether that process has ended already."""


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
    if not leads_there(view) and not _below(view.link).startswith("/task/"):
        return ProcFile(view.link, ended=True)
    # Every PID namespace has a process 1: that of the machine, or whoever it is, becomes that of the restored job.
    if _process_of(view) not in {_INIT, *scope.pids.values()}:
        scope.unsupported(view.pid, view.what, "it is about a process that has ended or is outside of the job")
        return None
    return ProcFile(view.link)


def _below(path: str) -> str:
    """Return what follows the number of the process."""
    found = _OF_PROCESS.fullmatch(path)
    return found[3] or "" if found else ""


def _rebuild(file: OpenFile, depot: Depot) -> None:
    """Let a child open its own, and end, where the process has. Any other is opened when all processes are there."""
    if not file.body.ended:
        hold_place(file, depot)
        return
    child = Tape("open a file of procfs, and end")
    child.ends_task = True
    child.openat(AT_FDCWD, f"{depot.proc}/self{_below(file.body.path)}", open_flags(file.flags), 0)
    if not file.flags & os.O_PATH:
        seek(child, 0, file)
    child.exit_group(0)
    depot.let_child_play(child)
    depot.keep(0, depot.slot(file.id))


def _settle(file: OpenFile, settling: Settling) -> None:
    if file.body.ended or file.id in settling.handed_round:
        return

    open_in_place(file, settling, lambda tape: _open(tape, file, settling.free))


def _open(tape: Tape, file: OpenFile, free: int) -> None:
    tape.openat(AT_FDCWD, file.body.path, open_flags(file.flags), 0)
    if not file.flags & os.O_PATH:
        seek(tape, free, file)


def shared_files(files: Iterable[OpenFile], tables: Iterable[FileTable]) -> dict[ObjectId, list[ObjectId]]:
    """Return the files of living processes that several tables have, each with those."""
    return shared_late((file for file in files if isinstance(file.body, ProcFile) and not file.body.ended), tables)


def share(
    shared: Mapping[ObjectId, Sequence[ObjectId]],
    placers: Mapping[ObjectId, Pid],
    files: Mapping[ObjectId, OpenFile],
    slot: Callable[[ObjectId], DepotFd],
) -> list[dict[Pid, Tape]]:
    """Write how those come to all who have them. See :func:`hand_round`."""
    return hand_round(shared, placers, slot, lambda of, tape: _open(tape, files[of], 0))


KIND = FileKind("procfs file", ProcFile, _recognise, _capture, _rebuild, _settle, links="/")
