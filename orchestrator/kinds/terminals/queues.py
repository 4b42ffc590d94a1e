"""Read out what is on its way through a pseudo-terminal, and put it back. See pty(7), termios(3).

Nobody can look into a terminal without taking out what waits there. Capture does so while the job is held, and puts
everything back at once, by the same function that a restore uses. Lines stay lines.

The line discipline holds what was typed, edited and echoed already, and gives it out line by line in canonical
mode. It is taken out line by line, then without its settings for what is not yet a line. To put it back, it is
typed again under settings that neither echo nor interpret anything.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from orchestrator.kinds.terminals.records import Queues
from orchestrator.kinds.terminals.termios import IXON, VSTOP, Settings
from orchestrator.linux import tty

_MOST_READY = 4095
"""What a line discipline holds, in bytes; the ends of lines that are not in them count."""
_CROWDED = 2048
_PIECE = 1024
_LONGEST = 8192
_PATIENCE = 5.0
_NEWLINE = 10
_FLUSHED_INPUT, _FLUSHED_OUTPUT, _STOPPED, _STARTED, _FLOW, _SETTINGS = 1, 2, 4, 8, 0x30, 0x40


class _Taken(msgspec.Struct):
    lines: list[bytes] = msgspec.field(default_factory=list)
    typed: bytes = b""
    behind: bytes = b""
    printed: bytes = b""
    status: int = 0
    stopped: Literal["", "call", "character"] = ""
    master_stopped: bool = False

    def record(self) -> Queues:
        return Queues(
            self.lines, self.typed, self.behind, self.printed, self.status, self.stopped, self.master_stopped
        )  # fmt: skip


@contextlib.contextmanager
def opened_peer(master: int) -> Iterator[int]:
    """Open the slave for ourselves, whether it is locked or not."""
    locked = tty.is_locked(master)
    if locked:
        tty.set_lock(master, False)
    try:
        slave = tty.open_peer(master, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    finally:
        if locked:
            tty.set_lock(master, True)
    try:
        yield slave
    finally:
        os.close(slave)


@contextlib.contextmanager
def not_blocking(fd: int) -> Iterator[None]:
    """Let no call block; the flag belongs to the open file description, which is the job's, and the job is held."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def look_into(master: int, slave: int, settings: bytes, *, packet: bool) -> Queues:
    """Return what is on its way, and leave it there. ``slave`` is a descriptor of ours that does not block."""
    taken = _Taken()
    with not_blocking(master):
        try:
            _take(master, slave, Settings.of(settings), packet, taken)
        finally:
            put_back(master, slave, settings, taken.record(), packet=packet)
    return taken.record()


def is_idle(master: int, slave: int, settings: bytes, *, packet: bool) -> bool:
    """Whether there is nothing, as far as that can be told by looking: the beginning of a line cannot be seen."""
    ours, theirs = tty.ready(master), tty.ready(slave)
    idle = bool(ours & theirs & select.POLLOUT) and not (ours | theirs) & select.POLLIN
    return idle and not (packet and ours & select.POLLPRI) and not Settings.of(settings).is_canonical


def _take(master: int, slave: int, settings: Settings, packet: bool, taken: _Taken) -> None:
    if packet:
        if tty.ready(master) & select.POLLPRI:
            taken.status = os.read(master, 1)[0]
        tty.set_packet(master, False)
    taken.printed = _drain(master)
    if not tty.ready(slave) & select.POLLOUT:
        fcntl.ioctl(slave, tty.TCXONC, tty.TCOON)
        taken.stopped = "call" if tty.ready(slave) & select.POLLOUT else "character"
    canonical = settings.is_canonical
    crowded = tty.waiting(slave) > _CROWDED
    if crowded:  # what waits behind must not be interpreted before its time
        tty.set_settings(slave, settings.inert(canonical=canonical))
    while canonical and tty.ready(slave) & select.POLLIN:
        taken.lines.append(os.read(slave, _LONGEST))
    tty.set_settings(slave, settings.inert(canonical=False))
    rest = _drain(slave)
    taken.lines, taken.typed, taken.behind = split(taken.lines, rest)
    taken.printed += _drain(master)  # echoes
    if not tty.ready(master) & select.POLLOUT:
        taken.master_stopped = True
        fcntl.ioctl(master, tty.TCXONC, tty.TCOON)


def _drain(fd: int) -> bytes:
    pieces = []
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        return b""
    while tty.ready(fd) & select.POLLIN:
        pieces.append(os.read(fd, 1 << 16))
    return b"".join(pieces)


def split(lines: list[bytes], rest: bytes) -> tuple[list[bytes], bytes, bytes]:
    """Divide what was typed by what the line discipline held: (lines, the beginning of a line, what was behind)."""
    room = _MOST_READY
    for count, line in enumerate(lines):
        cost = len(line) + (not line.endswith(b"\n"))
        if cost > room:
            return lines[:count], line[:room], b"".join((line[room:], *lines[count + 1 :], rest))
        room -= cost
    return lines, rest[:room], rest[room:]


def put_back(master: int, slave: int, settings: bytes, queues: Queues, *, packet: bool) -> None:
    """Fill an empty pseudo-terminal; it has its settings, packet mode and stops in the end. Neither may block."""
    wanted = Settings.of(settings)
    early = packet and bool(queues.status & (_FLUSHED_INPUT | _FLUSHED_OUTPUT | _STOPPED))
    if early:  # what the status tells of must happen again, before there is anything to flush
        tty.set_packet(master, True)
        for bit, queue in ((_FLUSHED_INPUT, tty.TCIFLUSH), (_FLUSHED_OUTPUT, tty.TCOFLUSH)):
            if queues.status & bit:
                fcntl.ioctl(slave, tty.TCFLSH, queue)
    if queues.printed:
        tty.set_settings(slave, wanted.inert(canonical=False))
        _write(slave, queues.printed, master)
    by_character = queues.stopped == "character" and bool(wanted.iflag & IXON) and wanted.character(VSTOP) != 0
    if by_character:
        stop = wanted.character(VSTOP)
        tty.set_settings(slave, wanted.inert(canonical=False, stoppable=True, stop=stop))
        _write(master, bytes([stop]), slave)
        _wait(lambda: not tty.ready(slave) & select.POLLOUT)
    if wanted.is_canonical:
        _type_lines(master, slave, wanted, queues, stoppable=by_character)
    elif queues.typed:
        tty.set_settings(slave, wanted.inert(canonical=False, stoppable=by_character))
        _write(master, queues.typed, slave)
        _wait(lambda: tty.waiting(slave) == len(queues.typed))
    tty.set_settings(slave, settings)
    _write(master, queues.behind, slave)
    if packet and not early:
        tty.set_packet(master, True)
    if packet:
        _tell_status(slave, wanted, queues)
    if queues.stopped == "call":
        fcntl.ioctl(slave, tty.TCXONC, tty.TCOOFF)
    if queues.master_stopped:
        fcntl.ioctl(master, tty.TCXONC, tty.TCOOFF)


def _tell_status(slave: int, wanted: Settings, queues: Queues) -> None:
    """Let those changes happen again that the master has not heard of yet."""
    if queues.status & _FLOW and queues.stopped != "character":
        tty.set_settings(slave, wanted._replace(iflag=wanted.iflag ^ IXON).pack())
        tty.set_settings(slave, wanted.pack())
    if queues.status & _SETTINGS:
        tty.set_settings(slave, wanted.pack())
    if queues.status & _STARTED and not queues.stopped:
        fcntl.ioctl(slave, tty.TCXONC, tty.TCOOFF)
        fcntl.ioctl(slave, tty.TCXONC, tty.TCOON)


def spare_characters(queues: Queues) -> tuple[int, int]:
    """Choose an end of line and a quoting character that were not typed; 0 where there is no need for one."""
    used = {0, _NEWLINE, *queues.typed}.union(*queues.lines)
    spare = [byte for byte in range(255, 0, -1) if byte not in used]
    ends = any(not line.endswith(b"\n") for line in queues.lines)
    quotes = b"\n" in queues.typed or any(b"\n" in line[:-1] for line in queues.lines)
    if len(spare) < ends + quotes:
        raise OSError(errno.ENOBUFS, "a terminal's input uses every byte there is")
    return spare.pop(0) if ends else 0, spare.pop(0) if quotes else 0


def _type_lines(master: int, slave: int, wanted: Settings, queues: Queues, *, stoppable: bool) -> None:
    if not queues.lines and not queues.typed:
        return
    end, quote = spare_characters(queues)
    tty.set_settings(slave, wanted.inert(canonical=True, stoppable=stoppable, end=end, quote=quote))
    quoted = bytes([quote, _NEWLINE])
    text = bytearray()
    for line in queues.lines:
        ended = line.endswith(b"\n")
        text += (line[:-1] if ended else line).replace(b"\n", quoted)
        text.append(_NEWLINE if ended else end)
    # The last line's end and what follows it come in one piece: whoever sees the one can count on the other.
    last = bytes(text[-1:]) + queues.typed.replace(b"\n", quoted)
    _write(master, bytes(text[:-1]), slave)
    _write(master, last, slave, len(last))
    whole = sum(map(len, queues.lines))
    if queues.lines:
        _wait(lambda: tty.waiting(slave) == whole and bool(tty.ready(slave) & select.POLLIN))
    tty.ready(slave)  # without a whole line, this waits for what is on its way


def _write(fd: int, content: bytes, other: int, piece: int = _PIECE) -> None:
    """Write all of it; what is on its way makes room as it reaches the other side's line discipline."""
    left = memoryview(content)
    until = time.monotonic() + _PATIENCE
    while left:
        try:
            left = left[os.write(fd, left[:piece]) :]
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            tty.ready(other)
            time.sleep(0.0005)


def _wait(is_so: Callable[[], bool]) -> None:
    """Wait for the kernel's worker that carries bytes from one side to the other."""
    until = time.monotonic() + _PATIENCE
    while not is_so():
        if time.monotonic() > until:
            raise OSError(errno.ETIMEDOUT, "a terminal did not take what was put back")
        time.sleep(0.0001)
