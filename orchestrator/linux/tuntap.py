"""/dev/net/tun: its requests and flags. See <linux/if_tun.h>."""

from __future__ import annotations

import fcntl
import os
import struct

PATH = "/dev/net/tun"
DEVICE = os.makedev(10, 200)
TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP = 0x400454CB, 0x400454CC, 0x400454CE
TUNSETIFF, TUNGETIFF, TUNSETIFINDEX = 0x400454CA, 0x800454D2, 0x400454DA
TUNGETSNDBUF, TUNSETSNDBUF, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ = 0x800454D3, 0x400454D4, 0x800454D7, 0x400454D8
TUNSETQUEUE, TUNGETDEVNETNS = 0x400454D9, 0x54E3
IFF_TUN, IFF_TAP, IFF_MULTI_QUEUE, IFF_DETACH_QUEUE = 0x1, 0x2, 0x100, 0x400
IFF_PERSIST, IFF_NO_PI, IFF_VNET_HDR = 0x800, 0x1000, 0x4000
KEPT_FLAGS = IFF_TUN | IFF_TAP | IFF_MULTI_QUEUE | IFF_NO_PI | IFF_VNET_HDR
_ifreq = struct.Struct("=16sH22x")
assert _ifreq.size == 40


def ifreq(name: str, flags: int) -> bytes:
    """Return a struct ifreq."""
    return _ifreq.pack(os.fsencode(name), flags)


def interface(fd: int) -> tuple[str, int] | None:
    """Return name and flags of the interface that a file belongs to; None if there is none yet."""
    try:
        name, flags = _ifreq.unpack(fcntl.ioctl(fd, TUNGETIFF, bytes(_ifreq.size)))
    except OSError:  # EBADFD
        return None
    return os.fsdecode(name.rstrip(b"\0")), flags


def number(fd: int, request: int) -> int:
    """Ask for a number."""
    return int.from_bytes(fcntl.ioctl(fd, request, bytes(4)), "little", signed=True)


def namespace(fd: int) -> tuple[int, int]:
    """Return device and inode number of the network namespace that the interface of a file is in."""
    found: int = fcntl.ioctl(fd, TUNGETDEVNETNS, 0)
    try:
        status = os.fstat(found)
    finally:
        os.close(found)
    return status.st_dev, status.st_ino
