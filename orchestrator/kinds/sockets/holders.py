"""Who holds a socket, for messages; and questions asked in another network namespace."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import TypeVar

from orchestrator.linux.nsfs import CLONE_NEWNET, setns

T = TypeVar("T")


def in_net_namespace(pid: int, ask: Callable[[], T]) -> T:
    """Call ``ask`` with this thread in the network namespace of a process."""
    ours, theirs = os.stat("/proc/thread-self/ns/net"), os.stat(f"/proc/{pid}/ns/net")
    if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
        return ask()
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            return ask()
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


def socket_holders(inodes: Collection[int]) -> dict[int, tuple[int, str]]:
    """Find, for each socket, one process that has it open, as (pid, name). Sees only what /proc shows us."""
    wanted = {f"socket:[{ino}]": ino for ino in inodes if ino}
    found: dict[int, tuple[int, str]] = {}
    for entry in os.listdir("/proc") if wanted else ():
        if not entry.isdigit():
            continue
        try:
            with os.scandir(f"/proc/{entry}/fd") as descriptors:
                for descriptor in descriptors:
                    ino = wanted.get(_link(descriptor.path))
                    if ino is not None and ino not in found:
                        found[ino] = (int(entry), _comm(entry))
        except OSError:
            continue  # it ended meanwhile, or is not ours to look at
        if len(found) == len(wanted):
            break
    return found


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _comm(pid: str) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
        return comm.read().rstrip("\n")
