"""Controlling terminals of sessions, and their foreground process groups. See setsid(2), tty_ioctl(4), credentials(7).

Only the leader of a session can acquire a terminal, and only by fork do others get it. So the leader does so between
its setsid and its forks; whoever had given the terminal up does it again when all are there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import msgspec

from orchestrator.ids import HostPid, ObjectId, Pid
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task.process import Process
from orchestrator.kinds.terminals.census import Terminals
from orchestrator.linux import tty
from orchestrator.linux.proc_stat import Stat
from orchestrator.tape.build import Tape


def resolve_terminals(
    scope: Scope, stats: Mapping[Pid, Stat], groups: Mapping[int, Pid], processes: list[Process]
) -> None:
    """Put into the records which terminal controls each process; note those that are outside.

    ``stats`` are those of the processes with a controlling terminal; ``groups`` translates host numbers.
    """
    sessions = Terminals.of(scope).sessions
    for place, process in enumerate(processes):
        stat = stats.get(process.pid)
        if stat is None or process.state is None:
            continue
        found = sessions.get((stat.session, os.minor(stat.tty_nr)))
        if found is None or os.major(stat.tty_nr) not in tty.SLAVE_MAJORS:
            _note_outside(scope, stat)
            continue
        foreground = groups.get(found.foreground, Pid(0)) if process.pid == process.session else Pid(0)
        state = msgspec.structs.replace(process.state, terminal=found.terminal, foreground=foreground)
        processes[place] = msgspec.structs.replace(process, state=state)


def _note_outside(scope: Scope, stat: Stat) -> None:
    major, minor = os.major(stat.tty_nr), os.minor(stat.tty_nr)
    key = f"tty[{major}:{minor}]"
    if key not in scope.externals:
        scope.outside(
            HostPid(stat.pid),
            "controlling terminal",
            f"terminal {major}:{minor} does not belong to the job",
            f"--external '{key}' lets the restored job do without one",
        )


def tell_controlling(tape: Tape, process: Process, slave: Callable[[ObjectId], int]) -> None:
    """Let the leader of a fresh session acquire its terminal."""
    if process.state is not None and process.state.terminal is not None:
        tape.ioctl(slave(process.state.terminal), tty.TIOCSCTTY, 0)


def tell_foreground(processes: Sequence[Process], slave: Callable[[ObjectId], int]) -> dict[Pid, Tape]:
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
        tape = Tape(f"{process.pid}: controlling terminal")
        if process.state is leader and leader.foreground:
            tape.ioctl(slave(leader.terminal), tty.TIOCSPGRP, leader.foreground.to_bytes(4, "little"))
        elif process.state.terminal is None:
            tape.ioctl(slave(leader.terminal), tty.TIOCNOTTY, 0)
        if len(tape):
            tapes[process.pid] = tape
    return tapes
