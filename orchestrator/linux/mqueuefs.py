"""POSIX message queues, seen through a mount of their file system that nobody else sees. See mq_overview(7)."""

from __future__ import annotations

import ctypes
import os

from orchestrator.linux.call import machine, syscall
from orchestrator.linux.syscalls import numbers

_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6


def list_queues() -> list[str]:
    """List the queues of our own IPC namespace."""
    number = numbers(machine())
    name = ctypes.create_string_buffer(b"mqueue")
    context = syscall(number["fsopen"], ctypes.addressof(name), _FSOPEN_CLOEXEC)
    try:
        syscall(number["fsconfig"], context, _FSCONFIG_CMD_CREATE)
        mount = syscall(number["fsmount"], context, _FSMOUNT_CLOEXEC)
    except OSError as error:
        error.add_note("mount a file system of type mqueue")
        raise
    finally:
        os.close(context)
    try:
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)
    try:
        return os.listdir(directory)
    finally:
        os.close(directory)
