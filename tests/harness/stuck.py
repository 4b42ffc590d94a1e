"""A task that no freezer can stop."""

from __future__ import annotations

import ctypes
import os

import pytest

# Reads from a pipe into a page that nobody will ever fill: the fault waits inside the system call,
# where only death reaches it.
STUCK = """
import ctypes, fcntl, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
uffd = libc.syscall(323, os.O_CLOEXEC)
if uffd < 0:
    sys.exit("no userfaultfd")
fcntl.ioctl(uffd, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))
page = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
fcntl.ioctl(uffd, 0xC020AA00, struct.pack("QQQQ", address, 4096, 1, 0))
r, w = os.pipe()
os.write(w, b"x")
print("ready", flush=True)
libc.read(r, ctypes.c_void_p(address), ctypes.c_size_t(1))
"""


def require_userfaultfd() -> None:
    """Skip the test where the program could not get stuck."""
    uffd = ctypes.CDLL(None, use_errno=True).syscall(323, os.O_CLOEXEC)
    if uffd < 0:
        pytest.skip("no userfaultfd here")
    os.close(uffd)
