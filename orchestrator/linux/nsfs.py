"""Namespaces by descriptor. See ioctl_nsfs(2), setns(2), unshare(2), clone(2)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

CLONE_NEWTIME = 0x00000080
CLONE_VM = 0x00000100
CLONE_FS = 0x00000200
CLONE_FILES = 0x00000400
CLONE_SIGHAND = 0x00000800
CLONE_PIDFD = 0x00001000
CLONE_PTRACE = 0x00002000
CLONE_VFORK = 0x00004000
CLONE_PARENT = 0x00008000
CLONE_THREAD = 0x00010000
CLONE_NEWNS = 0x00020000
CLONE_SYSVSEM = 0x00040000
CLONE_SETTLS = 0x00080000
CLONE_PARENT_SETTID = 0x00100000
CLONE_CHILD_CLEARTID = 0x00200000
CLONE_DETACHED = 0x00400000
CLONE_UNTRACED = 0x00800000
CLONE_CHILD_SETTID = 0x01000000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_IO = 0x80000000
# The next two are for clone3 alone.
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

NS_GET_USERNS = 0xB701
NS_GET_PARENT = 0xB702
NS_GET_NSTYPE = 0xB703
NS_GET_OWNER_UID = 0xB704

TYPES: dict[str, int] = {
    "cgroup": CLONE_NEWCGROUP,
    "ipc": CLONE_NEWIPC,
    "mnt": CLONE_NEWNS,
    "net": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "time": CLONE_NEWTIME,
    "user": CLONE_NEWUSER,
    "uts": CLONE_NEWUTS,
}
"""From the name in /proc/PID/ns to the CLONE_NEW* flag."""

_libc = ctypes.CDLL(None, use_errno=True)
_setns = _libc.setns
_setns.argtypes = [ctypes.c_int, ctypes.c_int]
_unshare = _libc.unshare
_unshare.argtypes = [ctypes.c_int]


def _ioctl(fd: int, request: int, name: str) -> int:
    try:
        return fcntl.ioctl(fd, request)
    except OSError as error:
        error.add_note(f"ioctl({fd}, {name})")
        raise


def ns_type(fd: int) -> int:
    """Return the CLONE_NEW* flag of a namespace."""
    return _ioctl(fd, NS_GET_NSTYPE, "NS_GET_NSTYPE")


def ns_userns(fd: int) -> int:
    """Open the user namespace that owns a namespace. PermissionError where it is beyond our own."""
    return _ioctl(fd, NS_GET_USERNS, "NS_GET_USERNS")


def ns_parent(fd: int) -> int:
    """Open the parent of a PID or user namespace. PermissionError where it is beyond our own."""
    return _ioctl(fd, NS_GET_PARENT, "NS_GET_PARENT")


def ns_owner_uid(fd: int) -> int:
    """Return the uid, as our user namespace sees it, of who made a user namespace."""
    try:
        answer = fcntl.ioctl(fd, NS_GET_OWNER_UID, b"\0\0\0\0")
    except OSError as error:
        error.add_note(f"ioctl({fd}, NS_GET_OWNER_UID)")
        raise
    uid: int = struct.unpack("=I", answer)[0]
    return uid


def setns(fd: int, nstype: int = 0) -> None:
    """Move the calling thread into a namespace; or, given a pidfd, into those that ``nstype`` names."""
    if _setns(fd, nstype) != 0:
        _fail(f"setns({fd}, {nstype:#x})")


def unshare(flags: int) -> None:
    """Give the calling thread namespaces (or other objects) of its own."""
    # The flags fill all 32 bits, and the argument is an int.
    if _unshare(ctypes.c_int32(flags & 0xFFFFFFFF).value) != 0:
        _fail(f"unshare({flags:#x})")


def _fail(call: str) -> None:
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number))
    error.add_note(call)
    raise error
