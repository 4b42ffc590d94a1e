"""Terminals by descriptor. See ioctl_tty(2), termios(3), pty(7)."""

from __future__ import annotations

import fcntl
import os
import select
import struct

PTMX = os.makedev(5, 2)
CURRENT = os.makedev(5, 0)
"""/dev/tty."""
SLAVE_MAJORS = range(136, 144)

TCXONC, TCFLSH = 0x540A, 0x540B
TIOCEXCL, TIOCSCTTY, TIOCSPGRP, TIOCNOTTY = 0x540C, 0x540E, 0x5410, 0x5422
TIOCVHANGUP, TIOCGPTPEER, TIOCSPTLCK = 0x5437, 0x5441, 0x40045431
_TIOCGPGRP, _TIOCGSID = 0x540F, 0x5429
_TIOCGWINSZ, TIOCSWINSZ = 0x5413, 0x5414
_TIOCINQ, _TIOCPKT, _TIOCGETD = 0x541B, 0x5420, 0x5424
_TIOCGPTN, _TIOCGDEV = 0x80045430, 0x80045432
_TIOCGPKT, _TIOCGPTLCK, _TIOCGEXCL = 0x80045438, 0x80045439, 0x80045440
_TCGETS2, _TCSETS2 = 0x802C542A, 0x402C542B
_TIOCGLCKTRMIOS, _TIOCSLCKTRMIOS = 0x5456, 0x5457
_TERMIOS2_BYTES, _TERMIOS_BYTES = 44, 36
TCIFLUSH, TCOFLUSH = 0, 1
TCOOFF, TCOON = 0, 1

_int = struct.Struct("=i")


def _ask(fd: int, request: int) -> int:
    (value,) = _int.unpack(fcntl.ioctl(fd, request, bytes(4)))
    return int(value)


def number(master: int) -> int:
    """Return the number of a master's slave in its devpts."""
    return _ask(master, _TIOCGPTN)


def device(fd: int) -> int:
    """Return the device number of the terminal behind a descriptor, of /dev/tty too. EIO if it is hung up."""
    value = _ask(fd, _TIOCGDEV) & 0xFFFF_FFFF
    return os.makedev(value >> 8 & 0xFFF, value & 0xFF | value >> 12 & 0xFFF00)


def line_discipline(fd: int) -> int:
    """Return its number; 0 is N_TTY."""
    return _ask(fd, _TIOCGETD)


def is_locked(master: int) -> bool:
    """Whether the slave cannot be opened. See unlockpt(3)."""
    return bool(_ask(master, _TIOCGPTLCK))


def set_lock(master: int, locked: bool) -> None:
    """Allow or forbid that the slave is opened."""
    fcntl.ioctl(master, TIOCSPTLCK, _int.pack(locked))


def is_exclusive(fd: int) -> bool:
    """Whether nobody but root may open this side once more."""
    return bool(_ask(fd, _TIOCGEXCL))


def set_exclusive(fd: int) -> None:
    """Let nobody but root open this side once more."""
    fcntl.ioctl(fd, TIOCEXCL)


def is_packet(master: int) -> bool:
    """Whether reads return packets with a status byte in front."""
    return bool(_ask(master, _TIOCGPKT))


def set_packet(master: int, on: bool) -> None:
    """Switch packet mode. Switching it on forgets what the status was."""
    fcntl.ioctl(master, _TIOCPKT, _int.pack(on))


def waiting(fd: int) -> int:
    """Return how many bytes can be read; in canonical mode those of whole lines."""
    return _ask(fd, _TIOCINQ)


def session(master: int) -> int:
    """Return the session that the slave controls, 0 without one."""
    try:
        return _ask(master, _TIOCGSID)
    except OSError:
        return 0


def foreground(master: int) -> int:
    """Return the foreground process group of the slave, 0 without one."""
    return _ask(master, _TIOCGPGRP)


def window_size(fd: int) -> bytes:
    """Return struct winsize."""
    return fcntl.ioctl(fd, _TIOCGWINSZ, bytes(8))


def set_window_size(fd: int, size: bytes) -> None:
    """Set struct winsize; a foreground process group that sees a change gets SIGWINCH."""
    fcntl.ioctl(fd, TIOCSWINSZ, size)


def settings(fd: int) -> bytes:
    """Return struct termios2. A master's are its slave's."""
    return fcntl.ioctl(fd, _TCGETS2, bytes(_TERMIOS2_BYTES))


def set_settings(fd: int, new: bytes) -> None:
    """Set struct termios2 at once."""
    fcntl.ioctl(fd, _TCSETS2, new)


def locked_settings(fd: int) -> bytes:
    """Return struct termios with those bits set that nobody may change."""
    return fcntl.ioctl(fd, _TIOCGLCKTRMIOS, bytes(_TERMIOS_BYTES))


def lock_settings(fd: int, locked: bytes) -> None:
    """Say which settings nobody may change."""
    fcntl.ioctl(fd, _TIOCSLCKTRMIOS, locked)


def open_peer(master: int, flags: int) -> int:
    """Open the slave of a master, whatever the mount namespace."""
    return int(fcntl.ioctl(master, TIOCGPTPEER, flags | os.O_CLOEXEC))


def ready(fd: int) -> int:
    """Return what poll(2) says now; without input, what is on its way reaches the line discipline first."""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLOUT | select.POLLPRI)
    events = poller.poll(0)
    return events[0][1] if events else 0
