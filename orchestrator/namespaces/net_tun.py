"""Network interfaces whose other side is a program with /dev/net/tun open. See tuntap.rst of the kernel.

An interface is made to last here, so that addresses and routes can be set. The files that belong to it come later
(``kinds/files/tun.py``), and with them it becomes again what it was.
"""

from __future__ import annotations

import fcntl
import os

from orchestrator.kinds.record import Record
from orchestrator.linux import tuntap

_OWNER, _GROUP, _TYPE, _PI, _VNET_HDR, _MULTI_QUEUE = 1, 2, 3, 4, 5, 7


class Tun(Record, frozen=True):
    """What such an interface has beside what all have."""

    flags: int
    """IFF_TUN or IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE."""
    owner: int
    """-1 if anybody with the capability may attach."""
    group: int


def read_tun(attributes: dict[int, bytes]) -> Tun:
    """Interpret the attributes of IFLA_INFO_DATA."""

    def number(type_: int, missing: int) -> int:
        return int.from_bytes(attributes[type_], "little") if type_ in attributes else missing

    flags = number(_TYPE, tuntap.IFF_TUN)
    flags |= tuntap.IFF_NO_PI if not number(_PI, 0) else 0
    flags |= tuntap.IFF_VNET_HDR if number(_VNET_HDR, 0) else 0
    flags |= tuntap.IFF_MULTI_QUEUE if number(_MULTI_QUEUE, 0) else 0
    return Tun(flags, number(_OWNER, -1), number(_GROUP, -1))


def make_tun(name: str, index: int, tun: Tun) -> None:
    """Make an interface in our own network namespace."""
    fd = os.open(tuntap.PATH, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, tuntap.TUNSETIFINDEX, index.to_bytes(4, "little"))
        fcntl.ioctl(fd, tuntap.TUNSETIFF, tuntap.ifreq(name, tun.flags))
        if tun.owner >= 0:
            fcntl.ioctl(fd, tuntap.TUNSETOWNER, tun.owner)
        if tun.group >= 0:
            fcntl.ioctl(fd, tuntap.TUNSETGROUP, tun.group)
        fcntl.ioctl(fd, tuntap.TUNSETPERSIST, 1)
    finally:
        os.close(fd)
