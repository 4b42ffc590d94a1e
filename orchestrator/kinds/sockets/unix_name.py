"""The name of a Unix socket: its address, and the file it is bound to. See unix(7).

The address is what the socket was bound with; where that leads depends on the root and the working
directory of the process that bound it, and the file may since have been renamed or unlinked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from orchestrator.ids import HostPid
from orchestrator.kinds.record import Record

SIOCUNIXFILE = 0x89E0
_DELETED = " (deleted)"
SUN_PATH = 108


class UnixName(Record, frozen=True):
    """What a Unix socket is bound to."""

    address: bytes
    """As in sun_path, without a closing NUL; abstract ones begin with one."""
    where: str | None = None
    """The path of the socket file now; None for an abstract name and for an unlinked file."""
    base: str | None = None
    """The root (of an absolute address) or working directory (of a relative one) that it was bound in; None: "/"."""
    renamed: bool = False
    """The file was bound elsewhere and moved to ``where``."""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    dev: int = 0
    ino: int = 0
    stray: bool = False
    """Nothing tells any more where it was bound: a directory that is made for this will do."""

    @property
    def shown(self) -> str:
        """How messages call it."""
        return shown_address(self.address)


def shown_address(address: bytes) -> str:
    """Write an address as people do: a path, or "@name"."""
    if address.startswith(b"\0"):
        return "@" + address[1:].decode(errors="backslashreplace")
    return os.fsdecode(address)


def own_address(sock: socket.socket) -> bytes:
    """Return the address that a socket is bound to, empty for none."""
    return _raw(sock.getsockname())


def peer_address(sock: socket.socket) -> bytes:
    """Return the address of the socket at the other end, empty for none."""
    return _raw(sock.getpeername())


def _raw(address: str | bytes) -> bytes:
    return os.fsencode(address) if isinstance(address, str) else address


def sockaddr_un(address: bytes) -> bytes:
    """Encode an address as the struct that bind and connect take."""
    return struct.pack("=H", socket.AF_UNIX) + address


def capture_name(sock: socket.socket, pid: HostPid) -> UnixName | None:
    """Describe what a socket of process ``pid`` is bound to."""
    address = own_address(sock)
    if not address or address.startswith(b"\0"):
        return UnixName(address) if address else None
    try:
        fd = fcntl.ioctl(sock.fileno(), SIOCUNIXFILE)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return UnixName(address)
        error.add_note("ioctl(SIOCUNIXFILE)")
        raise
    try:
        status = os.fstat(fd)
        where = os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    if status.st_nlink == 0 or where.endswith(_DELETED):
        return UnixName(address)
    base, renamed, stray = _find_base(os.fsdecode(address), where, status, pid)
    return UnixName(
        address,
        where,
        base,
        renamed,
        status.st_mode & 0o7777,
        status.st_uid,
        status.st_gid,
        status.st_dev,
        status.st_ino,
        stray,
    )


def _find_base(address: str, where: str, status: os.stat_result, pid: HostPid) -> tuple[str | None, bool, bool]:
    """Return the root or directory from which ``address`` leads to ``where``.

    Tells also whether the file was moved since, and whether then there is no saying where it was bound.
    """
    absolute = address.startswith("/")
    if absolute and os.path.normpath(address) == where:
        return None, False, False
    tail = "/" + os.path.normpath(address).lstrip("/")
    start = os.readlink(f"/proc/{pid}/root" if absolute else f"/proc/{pid}/cwd")
    base = None if absolute and start == "/" else start
    if _leads(f"/proc/{pid}/{'root' if absolute else 'cwd'}/{address.lstrip('/') if absolute else address}", status):
        return base, False, False
    if where.endswith(tail) and not tail.startswith("/.."):
        return where[: -len(tail)] or "/", False, False
    bound_in = f"/proc/{pid}/root{os.path.dirname(address)}"
    return base, True, not absolute or not os.path.isdir(bound_in)


def _leads(path: str, status: os.stat_result) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)
