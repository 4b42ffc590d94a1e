"""All pseudo-terminals of one capture: which of them belong to the job, and what state they are in."""

from __future__ import annotations

import os
import select
from typing import NamedTuple

import msgspec

from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.files.leak import master_identity
from orchestrator.kinds.scope import Scope, Shared
from orchestrator.kinds.terminals.look import look_into_all
from orchestrator.kinds.terminals.queues import opened_peer
from orchestrator.kinds.terminals.records import Queues, Terminal
from orchestrator.linux import tty
from orchestrator.linux.mountinfo import read_mountinfo
from orchestrator.linux.statfs import filesystem_magic

_DEVPTS_MAGIC = 0x1CD1
_NOBODY = HostPid(0)


class Place(NamedTuple):
    """A devpts file system."""

    mountpoint: str
    own: bool
    """Whether only the job has it mounted."""


class _Found(msgspec.Struct):
    """A pseudo-terminal of which the job has an end."""

    object: ObjectId
    device: int
    number: int
    master: int = -1
    """Our own descriptor for the master, if the job has it."""
    holder: HostPid = _NOBODY
    what: str = ""
    slaves: list[tuple[HostPid, str]] = msgspec.field(default_factory=list)
    hung_up: list[tuple[HostPid, str]] = msgspec.field(default_factory=list)


class Controlled(NamedTuple):
    """What a session has of its terminal."""

    terminal: ObjectId
    foreground: int
    """The process group, as the host counts."""


class Terminals(msgspec.Struct):
    """The pseudo-terminals of one capture. It is one of the scope's finishers."""

    scope: Scope
    sessions: dict[tuple[int, int], Controlled] = msgspec.field(default_factory=dict)
    """By the session's number on the host and the terminal's; complete when this finisher has run."""
    _found: dict[tuple[int, int], _Found] = msgspec.field(default_factory=dict)
    _places: dict[int, Place | None] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, scope: Scope) -> Terminals:
        """Return those of this capture."""
        return scope.sole(cls, lambda: cls(scope))

    def place(self, device: int, pid: HostPid) -> Place | None:
        """Find where a devpts file system is mounted."""
        if device not in self._places:
            self._places[device] = _mounted(device, None) or _mounted(device, pid)
        return self._places[device]

    def _terminal(self, device: int, number: int) -> _Found:
        known = self._found.get((device, number))
        if known is None:
            known = _Found(self.scope.object("terminal", (device, number), lambda _: _TO_COME), device, number)
            self._found[device, number] = known
        return known

    def add_master(self, view: FdView) -> ObjectId:
        """Note that the job has this master."""
        number = tty.number(view.local)
        found = self._terminal(devpts_of_master(view), number)
        found.master, found.holder, found.what = view.take_local(self.scope), view.pid, view.what
        identity = master_identity(view.stat, number)
        self.scope.shared.setdefault(identity, Shared(view.pid, view.what, None))
        return found.object

    def add_slave(self, view: FdView, device: int, number: int) -> ObjectId:
        """Note that the job has this slave open."""
        found = self._terminal(device, number)
        found.slaves.append((view.pid, view.what))
        return found.object

    def add_hung_up(self, view: FdView, device: int, number: int) -> ObjectId:
        """Note that the job has a dead descriptor of a slave whose master lives."""
        found = self._terminal(device, number)
        found.hung_up.append((view.pid, view.what))
        return found.object

    def __call__(self) -> None:
        """Look into those that belong to the job; the others are outside."""
        described: list[tuple[_Found, Terminal]] = []
        for found in self._found.values():
            if found.master < 0:
                for pid, what in found.slaves + found.hung_up:
                    self.scope.outside(
                        pid, what, "a terminal that does not belong to the job", external_hint(found.number)
                    )
                continue
            session = tty.session(found.master)
            if session:
                self.sessions[session, found.number] = Controlled(found.object, tty.foreground(found.master))
            record = self._describe(found)
            if record is not None:
                described.append((found, record))
        if self.scope.blockers.unsupported or self.scope.blockers.outside:
            return  # what waits in them is nobody's business then
        records = [record for _, record in described]
        looked = look_into_all([found.master for found, _ in described], records, self.scope)
        for (found, _), record in zip(described, looked, strict=True):
            self.scope.objects[found.object] = record

    def _describe(self, found: _Found) -> Terminal | None:
        """Describe all but what can only be learned from the slave."""
        scope, master = self.scope, found.master
        place = self.place(found.device, found.holder)
        if place is None:
            scope.unsupported(found.holder, found.what, "its devpts is mounted nowhere any more")
            return None
        where = f"{place.mountpoint}/{found.number}"
        owner = os.stat(f"/proc/{found.holder}/root{where}" if place.own else where)
        if tty.line_discipline(master) or (found.slaves and _discipline_of_slave(master)):
            scope.unsupported(found.holder, found.what, "a line discipline other than N_TTY cannot be saved")
            return None
        if found.slaves:
            self.scope.shared.setdefault((owner.st_dev, owner.st_ino), Shared(*found.slaves[0], None))
        alive = found.slaves or found.hung_up
        closed = not alive and bool(tty.ready(master) & select.POLLHUP)
        if not alive and not closed and tty.ready(master) & select.POLLIN:
            scope.unsupported(
                found.holder, found.what, "data waits in it, while its slave was never opened and must not be"
            )
            return None
        locked_settings = tty.locked_settings(master)
        return Terminal(
            found.number,
            place.mountpoint,
            place.own,
            "open" if alive else "closed" if closed else "never opened",
            tty.settings(master),
            locked_settings if any(locked_settings) else b"",
            tty.window_size(master),
            tty.is_locked(master),
            tty.is_packet(master),
            tty.is_exclusive(master),
            False,
            owner.st_uid,
            owner.st_gid,
            owner.st_mode & 0o7777,
            Queues(),
        )


_TO_COME = Terminal(
    0, "", False, "open", b"", b"", b"", False, False, False, False, 0, 0, 0, Queues()
)  # fmt: skip
"""Stands for one that is described when all of the job's ends are known."""


def external_hint(number: int) -> str:
    """Say how --external names a terminal."""
    rdev = os.makedev(tty.SLAVE_MAJORS[0], number)
    key = f"tty[{os.major(rdev)}:{os.minor(rdev)}]"
    return f"--external '{key}' leaves it out of the image, to be handed over at the restore"


def _discipline_of_slave(master: int) -> int:
    with opened_peer(master) as slave:
        return tty.line_discipline(slave)


def _mounted(device: int, pid: HostPid | None) -> Place | None:
    mounts = read_mountinfo() if pid is None else read_mountinfo(pid)
    for mount in reversed(mounts):
        if os.makedev(mount.major, mount.minor) == device and mount.root == "/":
            return Place(mount.mountpoint.rstrip("/"), pid is not None)
    return None


def devpts_of_master(view: FdView) -> int:
    """Return the device of the file system that a master's slave is in: its own, or that in pts beside it."""
    if filesystem_magic(view.path) == _DEVPTS_MAGIC:
        return view.stat.st_dev
    beside = os.path.join(os.path.dirname(view.link), "pts")
    return _device_at(view.pid, beside)


def devpts_seen_by(pid: HostPid) -> int:
    """Return the device of what a process has at /dev/pts."""
    return _device_at(pid, "/dev/pts")


def _device_at(pid: HostPid, path: str) -> int:
    for candidate in (f"/proc/{pid}/root{path}", path):
        try:
            return os.stat(candidate).st_dev
        except OSError:
            continue
    return 0
