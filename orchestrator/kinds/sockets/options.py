"""Capture the options and buffer sizes of sockets, and set them again."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from orchestrator.kinds.record import Record
from orchestrator.kinds.sockets.option_table import OPTIONS, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_TCP, Row
from orchestrator.kinds.sockets.refused import Refused
from orchestrator.tape.build import Block, Played, Result, Tape
from orchestrator.tape.here import Repeated

SO_BUF_LOCK = 72
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
_SO_GET_FILTER = 26
_SO_ATTACH_FILTER = 26
TCP_CONGESTION = 13
TCP_ULP = 31
_SO_PRIORITY = (SOL_SOCKET, socket.SO_PRIORITY)
_IP_TOS = (SOL_IP, socket.IP_TOS)
SO_TIMESTAMPING = ((SOL_SOCKET, 37), (SOL_SOCKET, 65))
"""With 32-bit times, and with 64-bit ones."""
FILTERING = ((SOL_SOCKET, 44), (SOL_SOCKET, 83))
"""SO_LOCK_FILTER and SO_PASSRIGHTS: with the filter, what decides about messages that come in."""
_FILTER_BYTES = 8
_PYTHON_MOST = 1024  # bytes that Python's own getsockopt takes
_sock_fprog = struct.Struct("=H6xQ")
assert _sock_fprog.size == 16
_DEVICE = Row(SOL_SOCKET, socket.SO_BINDTODEVICE, b"", "SO_BINDTODEVICE", 16)
_SIZES = (
    Row(SOL_SOCKET, socket.SO_SNDBUF, b"", "SO_SNDBUF", 4),
    Row(SOL_SOCKET, socket.SO_RCVBUF, b"", "SO_RCVBUF", 4),
    Row(SOL_SOCKET, SO_BUF_LOCK, b"", "SO_BUF_LOCK", 4),
)
_FILTER = Row(SOL_SOCKET, _SO_GET_FILTER, b"", "SO_GET_FILTER", 0)
_MOST_KNOWN = 64
_ABSENT = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)
_getsockopt = ctypes.CDLL(None, use_errno=True).getsockopt


class Option(Record, frozen=True, array_like=True):
    """One call of setsockopt(2)."""

    level: int
    number: int
    value: bytes

    @property
    def at(self) -> tuple[int, int]:
        """Which option it is."""
        return self.level, self.number


class SocketOptions(Record, frozen=True):
    """What distinguishes a socket from a fresh one. Buffer sizes are those of getsockopt(2), with the bookkeeping."""

    send_buffer: int
    receive_buffer: int
    buffer_locks: int
    """SO_BUF_LOCK: which of the two were chosen and must not be tuned by the kernel; -1 where it cannot tell."""
    others: list[Option]
    filter: bytes = b""
    """The classic BPF program (struct sock_filter) that filters what it receives."""


def capture_options(
    sock: socket.socket, *levels: int, fresh: Mapping[tuple[int, int], bytes] | None = None
) -> SocketOptions:
    """Read every option of SOL_SOCKET and these levels that differs from a fresh socket's. May raise Refused.

    ``fresh``: what a fresh socket of this kind has other than the table says.
    """
    known, filtered = _panel(levels).ask(sock.fileno(), fresh or {})
    # What is known is that of other sockets, too; callers add to theirs.
    sizes = known.send_buffer, known.receive_buffer, known.buffer_locks
    return SocketOptions(*sizes, [*known.others], read_filter(sock) if filtered else b"")


class _Question(NamedTuple):
    """An option in the tape that asks for all."""

    row: Row
    result: Result
    length: Block
    value: Block

    def answer(self, played: Played) -> bytes | None:
        """Return its value, None where a socket has no such."""
        result = played.result(self.result)
        if result < 0:
            _must_be_absent(OSError(-result, os.strerror(-result)), self.row.level, self.row.number)
            return None
        return played.data(self.value)[: int.from_bytes(played.data(self.length)[:4], "little")]


class _Panel:
    """The questions to a socket of one kind, asked all at once: there are some forty, and sockets may be many."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        self._tape = Tape("socket options")
        self._rows = [self._add(row) for row in _rows(levels)]
        self._sizes = [self._add(row) for row in _SIZES]
        self._filter = self._add(_FILTER)
        self._repeated = Repeated(self._tape)
        self._known: dict[tuple[bytes, bytes], tuple[SocketOptions, bool]] = {}

    def _add(self, row: Row) -> _Question:
        length, value = self._tape.block(row.size.to_bytes(8, "little")), self._tape.space(row.size)
        return _Question(row, self._tape.getsockopt(0, row.level, row.number, value, length), length, value)

    def ask(self, fd: int, fresh: Mapping[tuple[int, int], bytes]) -> tuple[SocketOptions, bool]:
        """Return all but the filter, and whether there is one."""
        memory = self._repeated.play(fd)
        outcome = self._repeated.outcome(memory)
        if not fresh and (known := self._known.get(outcome)):
            return known
        answer = self._read(Played(self._tape, memory), fresh)
        if not fresh:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[outcome] = answer
        return answer

    def _read(self, played: Played, fresh: Mapping[tuple[int, int], bytes]) -> tuple[SocketOptions, bool]:
        others = []
        for question in self._rows:
            row, value = question.row, question.answer(played)
            if value is not None and value != fresh.get((row.level, row.number), row.fresh):
                others.append(Option(row.level, row.number, value))
        if {one.at for one in others} & {_IP_TOS, _SO_PRIORITY} == {_IP_TOS}:
            others.append(Option(*_SO_PRIORITY, bytes(4)))  # to set the former changes the latter
        send, receive, locks = (question.answer(played) for question in self._sizes)
        assert send is not None
        assert receive is not None
        options = SocketOptions(
            int.from_bytes(send, "little"),
            int.from_bytes(receive, "little"),
            -1 if locks is None else int.from_bytes(locks, "little"),
            others,
        )
        # This option counts in instructions, and tells how many there are; or that it is none of the classic kind.
        return options, played.result(self._filter.result) < 0 or any(played.data(self._filter.length))


@cache
def _panel(levels: tuple[int, ...]) -> _Panel:
    return _Panel(levels)


@cache
def _rows(levels: tuple[int, ...]) -> tuple[Row, ...]:
    """Return the options to ask for."""
    rows = [row for row in OPTIONS if row.level == SOL_SOCKET or row.level in levels]
    if SOL_TCP in levels:
        # Accepted sockets show other values of these, and streams cannot set them.
        rows = [row for row in rows if "MULTICAST" not in row.name]
    elif SOL_IPV6 in levels:
        # It is off in fresh ones.
        rows = [row._replace(fresh=bytes(4)) if row.name == "IP_MULTICAST_ALL" else row for row in rows]
    return (*rows, _DEVICE) if SOL_IP in levels else tuple(rows)


def read_option(sock: socket.socket, level: int, number: int, size: int) -> bytes | None:
    """Return the value of an option, None where a socket has no such."""
    try:
        value = sock.getsockopt(level, number, min(size, _PYTHON_MOST))
        return value if len(value) < _PYTHON_MOST else _read_long(sock, level, number, size)
    except OSError as error:
        _must_be_absent(error, level, number)
        return None


def _must_be_absent(error: OSError, level: int, number: int) -> None:
    """Raise an error of getsockopt(2) again, unless it is that there is no such option."""
    if error.errno not in _ABSENT:
        error.add_note(f"getsockopt(level {level}, option {number})")
        raise error


def _read_long(sock: socket.socket, level: int, number: int, size: int) -> bytes:
    length = ctypes.c_uint32(size)
    value = ctypes.create_string_buffer(size)
    if _getsockopt(sock.fileno(), level, number, value, ctypes.byref(length)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value.raw[: length.value]


def set_int(tape: Tape, fd: int, level: int, number: int, value: int, *, may_fail: bool = False) -> None:
    """Set an option that is an int."""
    tape.setsockopt(fd, level, number, struct.pack("=i", value), 4, may_fail=may_fail)


def write_options(
    tape: Tape, fd: int, options: SocketOptions, skip: Sequence[tuple[int, int]] = (), *, filtering: bool = True
) -> None:
    """Set all options but the buffers' sizes and those in ``skip``; without ``filtering``, what lets messages in."""
    if options.filter and filtering:
        write_filter(tape, fd, options.filter)  # before it may be locked
    for option in options.others:
        if option.at not in skip and (filtering or option.at not in FILTERING):
            tape.setsockopt(fd, option.level, option.number, option.value, len(option.value))


def write_filtering(tape: Tape, fd: int, options: SocketOptions) -> None:
    """Set what decides about messages that come in, when those that came in before are there."""
    if options.filter:
        write_filter(tape, fd, options.filter)
    for option in options.others:
        if option.at in FILTERING:
            tape.setsockopt(fd, option.level, option.number, option.value, len(option.value))


def write_buffers(tape: Tape, fd: int, options: SocketOptions) -> None:
    """Set the sizes of the buffers as they were, and let the kernel tune them where it could."""
    # The kernel doubles what it is given, and FORCE is not bound by the sysctl limits.
    set_int(tape, fd, SOL_SOCKET, SO_SNDBUFFORCE, options.send_buffer // 2)
    set_int(tape, fd, SOL_SOCKET, SO_RCVBUFFORCE, options.receive_buffer // 2)
    if options.buffer_locks >= 0:
        set_int(tape, fd, SOL_SOCKET, SO_BUF_LOCK, options.buffer_locks)


def write_dress(tape: Tape, fd: int, options: SocketOptions, owner: tuple[int, int], *, filtering: bool = True) -> None:
    """Set buffers, options and the uid and gid of the socket itself."""
    write_buffers(tape, fd, options)
    write_options(tape, fd, options, filtering=filtering)
    if owner != (0, 0):
        tape.fchown(fd, *owner)


def read_filter(sock: socket.socket) -> bytes:
    """Return the classic BPF program that filters what a socket receives. Raises Refused for an eBPF one."""
    # Python's own getsockopt cannot ask: this option counts in instructions, not in bytes.
    length = ctypes.c_uint32(0)
    if _getsockopt(sock.fileno(), SOL_SOCKET, _SO_GET_FILTER, None, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        if number in (errno.EACCES, errno.EPERM):
            raise Refused("an eBPF program filters what it receives, which cannot be read back")
        raise OSError(number, os.strerror(number))
    if not length.value:
        return b""
    program = ctypes.create_string_buffer(length.value * _FILTER_BYTES)
    if _getsockopt(sock.fileno(), SOL_SOCKET, _SO_GET_FILTER, program, ctypes.byref(length)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return program.raw


def write_filter(tape: Tape, fd: int, program: bytes, option: int = _SO_ATTACH_FILTER) -> None:
    """Attach a classic BPF program."""
    header = tape.block(_sock_fprog.pack(len(program) // _FILTER_BYTES, 0))
    tape.point(header, 8, tape.block(program))
    tape.setsockopt(fd, SOL_SOCKET, option, header, _sock_fprog.size)
