"""Sets of files that are waited for. See epoll(7).

A registration is of a file and a number: the descriptor's number when it was added. Neither belongs
to a process, so the depot makes registrations, giving each file its number for a moment. A signalfd
is added by its owner, because it shows the signals of whoever adds it; and so is what the owner opens.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from orchestrator.ids import ObjectId
from orchestrator.kinds.files.kind import (
    O_CLOEXEC,
    Depot,
    FdView,
    FileKind,
    Held,
    OpenFile,
    OpenFiles,
    Settling,
    anybody,
)
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.kcmp import kcmp_epoll_tfd
from orchestrator.tape.build import Tape

_EPOLL_CTL_ADD, _EPOLL_CTL_MOD = 1, 3
_EPOLLEXCLUSIVE, _EPOLLWAKEUP, _EPOLLONESHOT, _EPOLLET = 1 << 28, 1 << 29, 1 << 30, 1 << 31
_EVERYTHING = 0x27DF
"""EPOLLIN to EPOLLRDHUP."""
_PRIVATE = _EPOLLEXCLUSIVE | _EPOLLWAKEUP | _EPOLLONESHOT | _EPOLLET
_event = struct.Struct("=IQ" if os.uname().machine == "x86_64" else "=I4xQ")
_EPIOCSPARAMS, _EPIOCGPARAMS = 0x40088A01, 0x80088A02
_PARAMETERS_BYTES = 8
_ONE_TO_ONE = ("socket:[",)
_LATE = ("anon_inode:[signalfd]", "anon_inode:[pidfd]", "pidfd:[")


class Registration(Record, frozen=True, array_like=True):
    """One file that is waited for."""

    file: ObjectId
    fd: int
    """The number it was added with; it need not be open any more."""
    events: int
    data: int
    late: bool = False
    """Whether only a process that has ``file`` at ``fd`` can add it."""


class EventPoll(Record, frozen=True, tag="epoll"):
    """An epoll instance."""

    registrations: list[Registration]
    parameters: bytes = b""
    """struct epoll_params (Linux 6.9) if it was set."""


class Target(NamedTuple):
    """One "tfd:" line of fdinfo."""

    fd: int
    events: int
    data: int
    inode: int


def parse_target(text: str) -> Target:
    """Parse the value of such a line: "4 events: c0000019 data: 4  pos:0 ino:5c872 sdev:f"."""
    words = text.replace(":", " ").split()
    return Target(int(words[0]), int(words[2], 16), int(words[4], 16), int(words[words.index("ino") + 1], 16))


def _recognise(view: FdView) -> bool:
    return view.link == "anon_inode:[eventpoll]"


def _capture(view: FdView, scope: Scope) -> EventPoll:
    record = EventPoll([], _parameters(view.local))
    # Which files these are can be told when all are known.
    scope.finishers.append(partial(_resolve, record, view, scope))
    return record


def _parameters(fd: int) -> bytes:
    try:
        raw: bytes = fcntl.ioctl(fd, _EPIOCGPARAMS, bytes(_PARAMETERS_BYTES))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):  # before Linux 6.9
            return b""
        raise
    return raw if any(raw) else b""


def _resolve(record: EventPoll, view: FdView, scope: Scope) -> None:
    files = view.files
    assert files is not None
    seen: dict[int, int] = {}
    for text in view.info.all("tfd"):
        target = parse_target(text)
        nth = seen.get(target.fd, 0)
        seen[target.fd] = nth + 1
        held = _find(view, files, target, nth)
        if held is None:
            scope.unsupported(
                view.pid,
                view.what,
                f"it waits for a file, added as fd {target.fd}, that no process of the job has open any more",
            )
            continue
        late = held.link.startswith(_LATE)
        if late and held.fd != target.fd:
            scope.unsupported(
                view.pid, view.what, f"it waits for {held.link}, added as fd {target.fd}, that has moved to {held.fd}"
            )
            continue
        record.registrations.append(Registration(held.file, target.fd, target.events, target.data, late))


def _find(view: FdView, files: OpenFiles, target: Target, nth: int) -> Held | None:
    """Find the open file of a registration; ``nth`` of those with the same number."""
    here = files.at(view.pid, target.fd)
    candidates: list[Held] = [here] if here is not None else []
    for held in candidates:
        if held.link.startswith(_ONE_TO_ONE) and held.link == f"socket:[{target.inode}]":
            return held
    return _compare(view, candidates, target, nth) or _compare(view, files.of_inode(target.inode), target, nth)


def _compare(view: FdView, candidates: Iterable[Held], target: Target, nth: int) -> Held | None:
    for held in candidates:
        if kcmp_epoll_tfd(held.pid, held.fd, view.pid, view.fd, target.fd, nth) == 0:
            return held
    return None


def _rebuild(file: OpenFile, depot: Depot) -> None:
    depot.tape.epoll_create1(O_CLOEXEC)
    set_status(depot.tape, 0, file.flags)
    if file.body.parameters:
        depot.tape.ioctl(0, _EPIOCSPARAMS, file.body.parameters)
    depot.keep(0, depot.slot(file.id))


def _connect(file: OpenFile, depot: Depot) -> None:
    body: EventPoll = file.body
    poll = depot.slot(file.id)
    # Those that are disarmed come first, so that waiting returns nothing else.
    for entry in sorted((entry for entry in body.registrations if not entry.late), key=_is_armed):
        standing = depot.slot(entry.file)
        if standing != entry.fd:
            depot.tape.dup3(standing, entry.fd, O_CLOEXEC)
        if _is_armed(entry):
            _add(depot.tape, poll, entry)
        elif entry.fd:
            _add_disarmed(depot.tape, poll, entry)
        else:
            _add_almost_disarmed(depot.tape, poll, entry)
        if standing != entry.fd:
            depot.tape.close(entry.fd)


def _is_armed(entry: Registration) -> bool:
    """Whether it is not one with EPOLLONESHOT that has fired."""
    return not entry.events & _EPOLLONESHOT or bool(entry.events & ~_PRIVATE)


def _add(tape: Tape, poll: int, entry: Registration, events: int = 0) -> None:
    tape.epoll_ctl(poll, _EPOLL_CTL_ADD, entry.fd, _event.pack(entry.events | events, entry.data))


def _add_almost_disarmed(tape: Tape, poll: int, entry: Registration) -> None:
    """Add what shall not fire. The kernel asks for EPOLLERR and EPOLLHUP nevertheless: let those fire that hold."""
    _add(tape, poll, entry)
    tape.epoll_wait(poll, tape.space(_event.size), 1, 0)


def _add_disarmed(tape: Tape, poll: int, entry: Registration) -> None:
    """Add what has fired, by letting it fire: nearly every file is ready for something.

    If it does not, epoll_wait returns 0, where the epoll stands as a descriptor for this moment, and what is
    asked for is reduced to EPOLLERR and EPOLLHUP. If it fires, 1 is no epoll with such an entry.
    """
    _add(tape, poll, entry, _EVERYTHING)
    tape.dup3(poll, 0, O_CLOEXEC)
    fired = tape.epoll_wait(poll, tape.space(_event.size), 1, 0)
    tape.epoll_ctl(fired, _EPOLL_CTL_MOD, entry.fd, _event.pack(entry.events, entry.data), may_fail=True)
    tape.close(0)


def _settle(file: OpenFile, settling: Settling) -> None:
    body: EventPoll = file.body
    if settling.first:
        for entry in body.registrations:
            if entry.late:
                (_add if _is_armed(entry) else _add_almost_disarmed)(settling.tape, settling.fd, entry)


def _others(file: OpenFile, _objects: Sequence[Any]) -> list[ObjectId]:
    return [entry.file for entry in file.body.registrations]


KIND = FileKind(
    "epoll", EventPoll, _recognise, _capture, _rebuild, _settle, connect=_connect, order=10, others=_others,
    may_open=anybody,
    links="anon_inode:",
)  # fmt: skip
