"""Fork with namespaces and a cgroup chosen at birth. See clone3(2)."""

from __future__ import annotations

import ctypes
import os

from orchestrator.linux.nsfs import CLONE_INTO_CGROUP

# Not a CDLL: that would hand the interpreter's lock back around the call, and in the child there is
# no other thread to take it.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t]
_NR_clone3 = 435


class clone_args(ctypes.Structure):
    """See <linux/sched.h>."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("pidfd", ctypes.c_uint64),
        ("child_tid", ctypes.c_uint64),
        ("parent_tid", ctypes.c_uint64),
        ("exit_signal", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64),
        ("tls", ctypes.c_uint64),
        ("set_tid", ctypes.c_uint64),
        ("set_tid_size", ctypes.c_uint64),
        ("cgroup", ctypes.c_uint64),
    )


assert ctypes.sizeof(clone_args) == 88


def fork(flags: int = 0, cgroup: int | None = None, exit_signal: int = 17, set_tid: tuple[int, ...] = ()) -> int:
    """Fork this single-threaded process; 0 is returned in the child, which must exec or _exit soon.

    ``flags`` are CLONE_NEW*; ``cgroup`` is a descriptor of a v2 cgroup's directory to be born in;
    ``set_tid`` are the child's process ids, from its own PID namespace outwards.
    """
    tids = (ctypes.c_int * len(set_tid))(*set_tid)
    args = clone_args(
        flags=flags | (0 if cgroup is None else CLONE_INTO_CGROUP),
        exit_signal=exit_signal,
        cgroup=0 if cgroup is None else cgroup,
        set_tid=ctypes.addressof(tids) if set_tid else 0,
        set_tid_size=len(set_tid),
    )
    pid = int(_syscall(_NR_clone3, ctypes.addressof(args), ctypes.sizeof(args)))
    if pid < 0:
        number = ctypes.get_errno()
        error = OSError(number, os.strerror(number))
        error.add_note(f"clone3(flags={args.flags:#x}, set_tid={list(set_tid)})")
        raise error
    return pid
