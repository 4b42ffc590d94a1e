"""Open files of pseudo-terminals: masters, slaves, and slaves that are hung up. See pty(7), tty(4).

A pseudo-terminal is made anew with its first end, which is its master: the number of its slave is the lowest that is
free. Where the job shares the machine's devpts, orch has taken the right one before (``claim.py``) and hands it
over; in a devpts of the job's own, masters are opened in the order of their numbers. What waits in it is put in from
outside (``finish``).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from typing import Any

from orchestrator.errors import ImageCorrupt
from orchestrator.ids import DepotFd, HostPid, ObjectId
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import AT_FDCWD, open_flags
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.terminals.census import Terminals, devpts_seen_by
from orchestrator.kinds.terminals.queues import not_blocking, opened_peer, put_back
from orchestrator.kinds.terminals.records import HungUp, MasterEnd, OutsideTerminal, SlaveEnd, Terminal
from orchestrator.linux import tty
from orchestrator.tape.build import Tape

CURRENT = "/dev/tty"
_DELETED = " (deleted)"


def _is_slave(view: FdView) -> bool:
    rdev = view.stat.st_rdev
    return (
        stat.S_ISCHR(view.stat.st_mode)
        and (os.major(rdev) in tty.SLAVE_MAJORS or rdev == tty.CURRENT)
        and not view.info.flags & os.O_PATH
    )


def _recognise_master(view: FdView) -> bool:
    return (
        stat.S_ISCHR(view.stat.st_mode) and view.stat.st_rdev == tty.PTMX and not view.info.flags & os.O_PATH
    )  # fmt: skip


def device_of(view: FdView) -> int:
    """Return the device number of the terminal that a slave's descriptor leads to; 0 if it is hung up."""
    try:
        return tty.device(view.local)
    except OSError as error:
        if error.errno == errno.EIO:
            return 0
        raise


def _recognise_slave(view: FdView) -> bool:
    if not _is_slave(view):
        return False
    if view.stat.st_rdev != tty.CURRENT:
        return not view.link.endswith(_DELETED)
    return os.major(device_of(view)) in tty.SLAVE_MAJORS


def _recognise_hung_up(view: FdView) -> bool:
    return _is_slave(view) and (view.link.endswith(_DELETED) or device_of(view) == 0)


def _capture_master(view: FdView, scope: Scope) -> MasterEnd:
    return MasterEnd(Terminals.of(scope).add_master(view), view.link)


def _capture_slave(view: FdView, scope: Scope) -> SlaveEnd:
    terminals, device = Terminals.of(scope), device_of(view)
    if view.stat.st_rdev == tty.CURRENT:
        return SlaveEnd(terminals.add_slave(view, devpts_seen_by(view.pid), os.minor(device)), CURRENT)
    number = os.minor(view.stat.st_rdev)
    if device:
        return SlaveEnd(terminals.add_slave(view, view.stat.st_dev, number), view.link)
    return SlaveEnd(terminals.add_hung_up(view, view.stat.st_dev, number), view.link, hung_up=True)


def _capture_hung_up(view: FdView, scope: Scope) -> HungUp:
    device = devpts_seen_by(view.pid) if view.stat.st_rdev == tty.CURRENT else view.stat.st_dev
    place = Terminals.of(scope).place(device, view.pid)
    return HungUp(f"{place.mountpoint}/ptmx" if place is not None else "/dev/ptmx")


def claim_key(terminal: Terminal) -> str:
    """Return the key under which orch hands a master over."""
    return f"pty[{terminal.number}]"


def _rebuild_master(file: OpenFile, depot: Depot) -> None:
    terminal: Terminal = depot.objects[file.body.object]
    if terminal.own:
        _open_numbered(file, terminal, depot)
    else:
        depot.tape.dup3(depot.inherited[claim_key(terminal)], depot.slot(file.id), O_CLOEXEC)
        _open_slaves(file, depot)


def _open_numbered(file: OpenFile, terminal: Terminal, depot: Depot) -> None:
    """With the first of them, open all masters of a devpts of the job's own."""
    wanted: dict[int, OpenFile] = {}
    for other in depot.files.values():
        if isinstance(other.body, MasterEnd):
            of: Terminal = depot.objects[other.body.object]
            if (of.own, of.devpts) == (True, terminal.devpts):
                wanted[of.number] = other
    if min(other.id for other in wanted.values()) != file.id:
        return
    tape, scratch = depot.tape, 0
    for number in range(max(wanted) + 1):
        one = wanted.get(number)
        path = f"{terminal.devpts}/ptmx" if one is None else one.body.path
        flags = os.O_RDWR if one is None else one.flags
        tape.openat(AT_FDCWD, path, open_flags(flags), 0)
        if one is None:
            scratch += 1
        else:
            tape.dup3(scratch, depot.slot(one.id), O_CLOEXEC)
            tape.close(scratch)
    for number in range(scratch):
        tape.close(number)
    for one in wanted.values():
        _open_slaves(one, depot)


def _open_slaves(file: OpenFile, depot: Depot) -> None:
    tape, master = depot.tape, depot.slot(file.id)
    terminal: Terminal = depot.objects[file.body.object]
    tape.ioctl(master, tty.TIOCSPTLCK, bytes(4))
    ends = [end for end in depot.users(file.body.object) if end.id != file.id]
    dead = [end for end in ends if end.body.hung_up]
    for end in dead:
        _open_peer(tape, master, end)
        depot.keep(0, depot.slot(end.id))
    if dead:
        tape.ioctl(depot.slot(dead[-1].id), tty.TIOCVHANGUP, 0)
    if terminal.slave == "closed":  # it may control a session nevertheless
        tape.ioctl(master, tty.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | O_CLOEXEC)
        depot.keep(0, depot.extra("terminal", file.body.object)[0])
    for end in ends:
        if end.body.hung_up:
            continue
        if end.body.path == CURRENT:
            _open_current(master, end, depot)
            continue
        if end.body.path == f"{terminal.devpts}/{terminal.number}":
            tape.openat(AT_FDCWD, end.body.path, open_flags(end.flags), 0)
        else:
            _open_peer(tape, master, end)
        depot.keep(0, depot.slot(end.id))


def slave_in_depot(terminal: ObjectId, depot: Depot, controlling: Collection[str]) -> int | None:
    """Return the standing number of a slave that is open; of one from outside if its key is in ``controlling``."""
    record = depot.objects[terminal] if 0 <= terminal < len(depot.objects) else None
    if isinstance(record, OutsideTerminal):
        return depot.inherited[record.key] if record.key in controlling else None
    if not isinstance(record, Terminal):
        raise ImageCorrupt(f"a controlling terminal of the image refers to object {terminal}, which is none")
    for end in depot.users(terminal):
        if isinstance(end.body, SlaveEnd) and not end.body.hung_up:
            return depot.slot(end.id)
    return depot.extra("terminal", terminal)[0]


def _open_peer(tape: Tape, master: DepotFd, end: OpenFile) -> None:
    tape.ioctl(master, tty.TIOCGPTPEER, open_flags(end.flags))


def _open_current(master: DepotFd, end: OpenFile, depot: Depot) -> None:
    """Open /dev/tty in a short-lived process that has the terminal as its controlling one.

    It gives the terminal up before it ends, which would hang it up otherwise.
    """
    child = Tape("a session for /dev/tty")
    child.setsid()
    child.ioctl(master, tty.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | O_CLOEXEC)
    child.ioctl(0, tty.TIOCSCTTY, 0)
    child.openat(AT_FDCWD, CURRENT, open_flags(end.flags), 0)
    child.dup3(1, depot.slot(end.id), O_CLOEXEC)
    child.close(1)
    child.ioctl(0, tty.TIOCNOTTY, 0)
    child.close(0)
    child.exit_group(0)
    child.ends_task = True
    depot.let_child_play(child)


def _rebuild_slave(file: OpenFile, depot: Depot) -> None:
    """Leave it to the master."""


def _rebuild_hung_up(file: OpenFile, depot: Depot) -> None:
    tape = depot.tape
    tape.openat(AT_FDCWD, file.body.ptmx, os.O_RDWR | os.O_NOCTTY | O_CLOEXEC, 0)
    tape.ioctl(0, tty.TIOCSPTLCK, bytes(4))
    tape.ioctl(0, tty.TIOCGPTPEER, open_flags(file.flags))
    tape.dup3(1, depot.slot(file.id), O_CLOEXEC)
    tape.close(1)
    tape.close(0)  # hangs up


def _finish(file: OpenFile, fd: int, objects: list[Any], first: HostPid) -> None:
    """Give a pseudo-terminal its settings and what was on its way, through a descriptor of ours for the master."""
    terminal: Terminal = objects[file.body.object]
    tty.set_window_size(fd, terminal.size)
    where = f"/proc/{first}/root{terminal.devpts}/{terminal.number}"
    os.chown(where, terminal.uid, terminal.gid)
    os.chmod(where, terminal.mode)
    if terminal.slave == "never opened":
        tty.set_settings(fd, terminal.settings)
        tty.set_packet(fd, terminal.packet)
        if terminal.locked_settings:
            tty.lock_settings(fd, terminal.locked_settings)
    else:
        _fill(fd, terminal)
    if terminal.locked:
        tty.set_lock(fd, True)
    if terminal.master_exclusive:
        tty.set_exclusive(fd)


def _fill(master: int, terminal: Terminal) -> None:
    with opened_peer(master) as slave:
        with not_blocking(master):
            put_back(master, slave, terminal.settings, terminal.queues, packet=terminal.packet)
        if terminal.locked_settings:
            tty.lock_settings(slave, terminal.locked_settings)
        if terminal.slave_exclusive:
            tty.set_exclusive(slave)


MASTER = FileKind(
    "master of a pseudo-terminal",
    MasterEnd,
    _recognise_master,
    _capture_master,
    _rebuild_master,
    objects=(Terminal,),
    finish=_finish,
    links="/",
)
SLAVE = FileKind(
    "slave of a pseudo-terminal",
    SlaveEnd,
    _recognise_slave,
    _capture_slave,
    _rebuild_slave,
    objects=(Terminal,),
    links="/",
)
HUNG_UP = FileKind(
    "terminal that is hung up",
    HungUp,
    _recognise_hung_up,
    _capture_hung_up,
    _rebuild_hung_up,
    objects=(Terminal,),
    order=-1,
    links="/",
)
"""The first to be made: what they are made from gives its number back at once."""
