"""Processes by descriptor. See pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct

from orchestrator.linux.call import syscall

# The same numbers on every architecture.
_NR_pidfd_send_signal = 424
_NR_pidfd_open = 434
_NR_pidfd_getfd = 438

_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 8
_INFO_BYTES, _EXIT_CODE_AT = 64, 60

PIDFD_NONBLOCK = 0o4000
PIDFD_THREAD = 0o200
"""Since Linux 6.9: the descriptor stands for one thread."""


def pidfd_open(pid: int, flags: int = 0) -> int:
    """Open a descriptor of a process (close-on-exec). It is readable once the process has ended."""
    try:
        return syscall(_NR_pidfd_open, pid, flags)
    except OSError as error:
        error.add_note(f"pidfd_open({pid}, {flags:#x})")
        raise


def open_task(pid: int) -> int:
    """Open a descriptor of a process, or of a single thread if the number is that of one."""
    try:
        return syscall(_NR_pidfd_open, pid, 0)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            error.add_note(f"pidfd_open({pid})")
            raise
    return pidfd_open(pid, PIDFD_THREAD)


# A door of its own: a job may have a hundred thousand descriptors.
_getfd = ctypes.CDLL(None, use_errno=True)["syscall"]
_getfd.restype = ctypes.c_long
_getfd.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_uint]


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Duplicate a descriptor of another process into ours (close-on-exec)."""
    ours: int = _getfd(_NR_pidfd_getfd, pidfd, fd, 0)
    if ours < 0:
        number = ctypes.get_errno()
        error = OSError(number, os.strerror(number))
        error.add_note(f"pidfd_getfd({pidfd}, {fd})")
        raise error
    return ours


def exit_status(pidfd: int) -> int | None:
    """Return the wait status of a process that was waited for; None if the kernel does not tell (before 6.15)."""
    info = bytearray(_INFO_BYTES)
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    if not struct.unpack_from("=Q", info, 0)[0] & _PIDFD_INFO_EXIT:
        return None
    return int(struct.unpack_from("=i", info, _EXIT_CODE_AT)[0])


def pidfd_send_signal(pidfd: int, signo: int) -> None:
    """Send a signal, as kill(2) would."""
    try:
        syscall(_NR_pidfd_send_signal, pidfd, signo, 0, 0)
    except OSError as error:
        error.add_note(f"pidfd_send_signal({pidfd}, {signo})")
        raise


def kill_and_reap(pid: int, seconds: float) -> bool:
    """Kill a child and wait for its end; say whether it came within so many seconds."""
    pidfd = pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        os.waitpid(pid, 0)
        return True
    finally:
        os.close(pidfd)
