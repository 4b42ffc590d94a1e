"""A network and an IPC namespace for each trial: tests use fixed ports and keys, and some leave things behind.

orch runs in them, too, so for it they are the machine's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWIPC, CLONE_NEWNET = 0x08000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 1
_IFREQ = struct.Struct("16sH22x")  # struct ifreq

_libc = ctypes.CDLL(None, use_errno=True)


def have_own_network_and_ipc() -> None:
    """Move this process into new namespaces, with lo up as on any machine."""
    if _libc.unshare(CLONE_NEWNET | CLONE_NEWIPC) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        asked = fcntl.ioctl(device, SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        name, flags = _IFREQ.unpack(asked)
        fcntl.ioctl(device, SIOCSIFFLAGS, _IFREQ.pack(name, flags | IFF_UP))
