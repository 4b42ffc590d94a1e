"""Who made a Unix socket, by the number that the job itself has for it.

Our own PID namespace shows the makers that live. Those of an earlier restore, and others that have
ended, still have their numbers inside of the job's namespace: a process of ours goes there to ask.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Sequence

from orchestrator.ids import HostPid
from orchestrator.kinds.sockets.borrow import borrow, peer_credentials
from orchestrator.linux.nsfs import CLONE_NEWPID, setns

_pid = struct.Struct("=i")


def is_private(pid: HostPid) -> bool:
    """Whether a process has another PID namespace than ours."""
    ours, theirs = os.stat("/proc/self/ns/pid"), os.stat(f"/proc/{pid}/ns/pid")
    return (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino)


def peers_inside(pid: HostPid, fds: Sequence[int]) -> list[int]:
    """Return the pid in SO_PEERCRED of each socket as the namespace of ``pid`` has it, 0 for one not inside."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        with warnings.catch_warnings():
            # Python warns of threads; what runs in the child takes no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            middle = os.fork()
            if middle == 0:
                _go_and_ask(pid, fds, write_end)
        os.close(write_end)
        write_end = -1
        answer = b""
        while piece := os.read(read_end, 1 << 16):
            answer += piece
        os.waitpid(middle, 0)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    if len(answer) != len(fds) * _pid.size:
        return [0] * len(fds)
    return [number for (number,) in _pid.iter_unpack(answer)]


def _go_and_ask(pid: HostPid, fds: Sequence[int], write_end: int) -> None:
    """Ask from a child of this process, for a process itself never changes its PID namespace. Does not return."""
    try:
        setns(os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC), CLONE_NEWPID)
        inner = os.fork()
        if inner:
            os.waitpid(inner, 0)
        else:
            os.write(write_end, b"".join(_pid.pack(_peer(fd)) for fd in fds))
    finally:
        os._exit(0)


def _peer(fd: int) -> int:
    with borrow(fd) as sock:
        found = peer_credentials(sock)
    return found[0] if found else 0
