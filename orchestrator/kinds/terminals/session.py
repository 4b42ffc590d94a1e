"""Controlling terminals of sessions, and their foreground process groups. See setsid(2), tty_ioctl(4), credentials(7).

Only the leader of a session can acquire a terminal, and only by fork do others get it. So the leader does so between
its setsid and its forks; whoever had given the terminal up does it again when all are there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import msgspec

from orchestrator.ids import HostPid, ObjectId, Pid
from orchestrator.kinds.files.external import declared
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task.process import Process
from orchestrator.kinds.terminals.census import Controlled, Terminals
from orchestrator.kinds.terminals.records import OutsideTerminal
from orchestrator.linux import tty
from orchestrator.linux.proc_stat import Stat
from orchestrator.tape.build import Tape

SlaveOf = Callable[[ObjectId], int | None]
"""Where the depot has a terminal open that may control a session; None if the restored job does without."""


def resolve_terminals(
    scope: Scope, stats: Mapping[Pid, Stat], groups: Mapping[int, Pid], processes: list[Process]
) -> None:
    """Put into the records which terminal controls each process; note those that are outside.

    ``stats`` are those of the processes with a controlling terminal; ``groups`` translates host numbers.
    """
    sessions = Terminals.of(scope).sessions
    leaders = {process.pid for process in processes if process.pid in stats and process.pid == process.session}
    for place, process in enumerate(processes):
        stat = stats.get(process.pid)
        if stat is None or process.state is None:
            continue
        found = sessions.get((stat.session, os.minor(stat.tty_nr)))
        if found is None or os.major(stat.tty_nr) not in tty.SLAVE_MAJORS:
            terminal = _outside(scope, stat)
            # A session whose leader is outside too is one of the restore's: nobody could acquire a terminal for it.
            if terminal is None or process.session not in leaders:
                continue
            found = Controlled(terminal, stat.tpgid)
        foreground = groups.get(found.foreground, Pid(0)) if process.pid == process.session else Pid(0)
        state = msgspec.structs.replace(process.state, terminal=found.terminal, foreground=foreground)
        processes[place] = msgspec.structs.replace(process, state=state)


def _outside(scope: Scope, stat: Stat) -> ObjectId | None:
    """Take in a terminal that the user has declared, or note that it is in the way."""
    rdev = stat.tty_nr
    major, minor = os.major(rdev), os.minor(rdev)
    key = declared(scope, rdev)
    if key is not None:
        return scope.object("outside terminal", key, lambda _: _describe_outside(key, rdev))
    scope.outside(
        HostPid(stat.pid),
        "controlling terminal",
        f"terminal {major}:{minor} does not belong to the job",
        f"--external 'tty[{major}:{minor}]' lets that of the restore take its place",
    )
    return None


def _describe_outside(key: str, rdev: int) -> OutsideTerminal:
    if os.major(rdev) not in tty.SLAVE_MAJORS:
        return OutsideTerminal(key, b"", b"")
    try:
        fd = os.open(f"/dev/pts/{os.minor(rdev)}", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # locked, or in a devpts that orch does not see
        return OutsideTerminal(key, b"", b"")
    try:
        return OutsideTerminal(key, tty.settings(fd), tty.window_size(fd))
    finally:
        os.close(fd)


def tell_controlling(tape: Tape, process: Process, slave: SlaveOf) -> None:
    """Let the leader of a fresh session acquire its terminal."""
    if process.state is not None and process.state.terminal is not None:
        fd = slave(process.state.terminal)
        if fd is not None:
            tape.ioctl(fd, tty.TIOCSCTTY, 0)


def tell_foreground(processes: Sequence[Process], slave: SlaveOf) -> dict[Pid, Tape]:
    """Write what is left to do when all processes are in their groups: foreground groups, terminals given up."""
    leaders = {
        process.session: process.state
        for process in processes
        if process.pid == process.session and process.state and process.state.terminal is not None
    }
    tapes: dict[Pid, Tape] = {}
    for process in processes:
        leader = leaders.get(process.session)
        if leader is None or leader.terminal is None or process.state is None:
            continue
        fd = slave(leader.terminal)
        if fd is None:
            continue
        tape = Tape(f"{process.pid}: controlling terminal")
        if process.state is leader and leader.foreground:
            tape.ioctl(fd, tty.TIOCSPGRP, leader.foreground.to_bytes(4, "little"))
        elif process.state.terminal is None:
            tape.ioctl(fd, tty.TIOCNOTTY, 0)
        if len(tape):
            tapes[process.pid] = tape
    return tapes
