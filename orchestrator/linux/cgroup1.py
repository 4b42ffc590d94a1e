"""Hierarchies of cgroup v1: which there are, and their directories, mounted anywhere or not. See cgroups(7)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from orchestrator.linux.call import machine, syscall
from orchestrator.linux.mountinfo import read_mountinfo
from orchestrator.linux.proc_misc import cgroup_of
from orchestrator.linux.syscalls import numbers

_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_NAMED = "name="


def own_places() -> dict[str, str]:
    """Say in which cgroup of each hierarchy we are ourselves: "cpu,cpuacct" or "name=systemd" to path."""
    return {hierarchy: path for hierarchy, path in cgroup_of(os.getpid()).items() if hierarchy}


def places_of(pid: int, tid: int) -> dict[str, str]:
    """Say in which cgroup of each hierarchy a thread is."""
    return {hierarchy: path for hierarchy, path in cgroup_of(f"{pid}/task/{tid}").items() if hierarchy}


@contextlib.contextmanager
def hierarchy_root(hierarchy: str) -> Iterator[str]:
    """Lend the path of a hierarchy's top directory; one that is mounted nowhere is mounted for us alone.

    A named hierarchy that does not exist is made by this, and is gone again if no cgroup is made in it.
    """
    words = set(hierarchy.split(","))
    for mount in read_mountinfo():
        if mount.fstype == "cgroup" and mount.root == "/" and words <= set(mount.super_options.split(",")):
            yield mount.mountpoint
            return
    fd = _mount(hierarchy)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _mount(hierarchy: str) -> int:
    number = numbers(machine())
    kind = ctypes.create_string_buffer(b"cgroup")
    context = syscall(number["fsopen"], ctypes.addressof(kind), _FSOPEN_CLOEXEC)

    def flag(name: str) -> None:
        text = ctypes.create_string_buffer(name.encode())
        syscall(number["fsconfig"], context, _FSCONFIG_SET_FLAG, ctypes.addressof(text), 0, 0)

    try:
        for word in hierarchy.split(","):
            if word.startswith(_NAMED):
                key, value = (ctypes.create_string_buffer(part.encode()) for part in ("name", word[len(_NAMED) :]))
                syscall(
                    number["fsconfig"], context, _FSCONFIG_SET_STRING, ctypes.addressof(key), ctypes.addressof(value), 0
                )
                if hierarchy == word:
                    flag("none")
            else:
                flag(word)
        syscall(number["fsconfig"], context, _FSCONFIG_CMD_CREATE, 0, 0, 0)
        return syscall(number["fsmount"], context, _FSMOUNT_CLOEXEC, 0)
    except OSError as error:
        error.add_note(f"mount the cgroup hierarchy {hierarchy}")
        raise
    finally:
        os.close(context)
