"""Signals that are read. The queued ones belong to the task, not to the descriptor. See signalfd(2)."""

from __future__ import annotations

from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile, anybody
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope


class SignalFd(Record, frozen=True, tag="signalfd"):
    """A set of signals, bit N-1 for signal N."""

    mask: int


def _recognise(view: FdView) -> bool:
    return view.link == "anon_inode:[signalfd]"


def _capture(view: FdView, scope: Scope) -> SignalFd:  # noqa: ARG001 - the signature of all kinds
    return SignalFd(int(view.info.get("sigmask") or "", 16))


def _rebuild(file: OpenFile, depot: Depot) -> None:
    depot.tape.signalfd4(-1, file.body.mask.to_bytes(8, "little"), 8, O_CLOEXEC)
    set_status(depot.tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


KIND = FileKind("signalfd", SignalFd, _recognise, _capture, _rebuild, may_open=anybody, links="anon_inode:")
