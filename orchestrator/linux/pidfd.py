"""Processes by descriptor. See pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2)."""

from __future__ import annotations

import errno

from orchestrator.linux.call import syscall

# The same numbers on every architecture.
_NR_pidfd_send_signal = 424
_NR_pidfd_open = 434
_NR_pidfd_getfd = 438

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


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Duplicate a descriptor of another process into ours (close-on-exec)."""
    try:
        return syscall(_NR_pidfd_getfd, pidfd, fd, 0)
    except OSError as error:
        error.add_note(f"pidfd_getfd({pidfd}, {fd})")
        raise


def pidfd_send_signal(pidfd: int, signo: int) -> None:
    """Send a signal, as kill(2) would."""
    try:
        syscall(_NR_pidfd_send_signal, pidfd, signo, 0, 0)
    except OSError as error:
        error.add_note(f"pidfd_send_signal({pidfd}, {signo})")
        raise
