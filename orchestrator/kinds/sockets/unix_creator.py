"""Make Unix sockets in the name of the process that once made them.

A Unix socket keeps the pid, uid and gid of whoever called listen, connect or socketpair, and a message
those of its sender. Nobody can choose the pid, so the depot begets, for one call, a process that has
it. That child goes on in the same tape, with the same descriptors, and is killed by its last entry;
then the depot plays the same entries once more, to no effect: what they work on was moved away or is
done already. The processes of the job that will have these pids are not there yet.
"""

from __future__ import annotations

import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot
from orchestrator.kinds.sockets.unix_queue import Credentials
from orchestrator.linux.nsfs import CLONE_FILES, CLONE_UNTRACED, CLONE_VFORK
from orchestrator.tape.build import Result, Tape

_WALL = 0x40000000
# flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
_clone_args = struct.Struct("=11Q")
_SET_TID_AT = 64
assert _clone_args.size == 88


@contextmanager
def in_the_name_of(depot: Depot, who: Credentials | None) -> Iterator[Result | None]:
    """Let calls be made by ``who``.

    Yield the result of the clone, 0 in the child; or None if the depot itself plays the entries, once.
    """
    tape = depot.tape
    if who is None or who.pid in (0, depot.pid):
        with acting_as(tape, who):
            yield None
        return
    flags = CLONE_FILES | CLONE_VFORK | CLONE_UNTRACED
    arguments = tape.block(_clone_args.pack(flags, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0))
    tape.point(arguments, _SET_TID_AT, tape.block(struct.pack("=i", who.pid)))
    child = tape.clone3(arguments, _clone_args.size)
    with acting_as(tape, who):
        yield child
    tape.kill(who.pid, int(signal.SIGKILL))
    tape.wait4(who.pid, 0, _WALL, 0)


@contextmanager
def acting_as(tape: Tape, who: Credentials | None) -> Iterator[None]:
    """Let the calls carry somebody's uid and gid."""
    if who is None or (who.uid, who.gid) == (0, 0):
        yield
        return
    tape.setresgid(who.gid, who.gid, 0)
    tape.setresuid(who.uid, who.uid, 0)
    yield
    tape.setresuid(0, 0, 0)
    tape.setresgid(0, 0, 0)


@contextmanager
def moving(depot: Depot, fd: int, who: Credentials | None) -> Iterator[bool]:
    """Let what is done with ``fd`` be done once, in the name of ``who``; the calls may fail if this yields True."""
    tape = depot.tape
    with in_the_name_of(depot, who) as child:
        yield child is not None
        if child is not None:
            tape.dup3(fd, _aside(depot), O_CLOEXEC, may_fail=True)
            tape.close(fd, may_fail=True)
    if child is not None:
        tape.dup3(_aside(depot), fd, O_CLOEXEC)
        tape.close(_aside(depot))


def _aside(depot: Depot) -> DepotFd:
    return depot.extra("unix-aside", ObjectId(0))[0]


def write_socketpair(depot: Depot, style: int, who: Credentials | None) -> None:
    """Make a pair as descriptors 0 and 1."""
    with in_the_name_of(depot, who) as child:
        # The protocol is 0, which is what the clone returns to the child; the depot's pid of it is none.
        protocol = 0 if child is None else child
        style |= socket.SOCK_CLOEXEC
        depot.tape.socketpair(socket.AF_UNIX, style, protocol, depot.tape.space(8), may_fail=child is not None)


def write_listen(depot: Depot, fd: int, backlog: int, who: Credentials | None) -> None:
    """Let a bound socket listen."""
    with moving(depot, fd, who) as may_fail:
        depot.tape.listen(fd, backlog, may_fail=may_fail)


def write_connect(depot: Depot, fd: int, to: bytes, who: Credentials | None) -> None:
    """Connect a stream or packet socket to a sockaddr; tried twice, it would wait at a queue that is full by then."""
    with moving(depot, fd, who) as may_fail:
        depot.tape.connect(fd, to, len(to), may_fail=may_fail)
