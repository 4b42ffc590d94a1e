"""Find tasks that wait for a child of vfork(2).

They count as frozen, but wait so deep in the kernel that no tracer can stop them until the child has called
exec or has ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from orchestrator.ids import HostPid
from orchestrator.linux.call import machine
from orchestrator.linux.nsfs import CLONE_VFORK
from orchestrator.linux.proc_stat import read_stat
from orchestrator.linux.procfs import read_record
from orchestrator.linux.syscalls import numbers

_NR_clone = numbers(machine())["clone"]
_NR_clone3 = numbers(machine())["clone3"]
_NR_vfork = {"x86_64": 58}.get(machine())


def vfork_parents(pids: Iterable[HostPid]) -> list[str]:
    """Name the threads of frozen processes that wait for a vfork child, as "TID (comm)"."""
    found = []
    for pid in pids:
        try:
            leader = read_stat(pid)
            tids = [pid] if leader.num_threads == 1 else map(int, os.listdir(f"/proc/{pid}/task"))
            for tid in tids:
                stat = leader if tid == pid else read_stat(pid, tid)
                if stat.state == "D" and _is_in_vfork(pid, tid):
                    found.append(f"{tid} ({stat.comm.decode(errors='replace')})")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _is_in_vfork(pid: int, tid: int) -> bool:
    words = read_record(f"/proc/{pid}/task/{tid}/syscall").split()
    if len(words) < 2 or not words[0].isdigit():
        return False
    number, first = int(words[0]), int(words[1], 16)
    if number == _NR_clone3:
        # Its flags are the first field of the struct that the argument points to.
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            first = int.from_bytes(os.pread(fd, 8, first), "little")
        except OSError:
            return False
        finally:
            os.close(fd)
    elif number != _NR_clone:
        return number == _NR_vfork
    return bool(first & CLONE_VFORK)
