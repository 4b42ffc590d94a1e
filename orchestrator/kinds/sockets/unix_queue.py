"""What waits in a Unix socket, looked at without taking it. See MSG_PEEK in recv(2), SO_PEEK_OFF in socket(7)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.borrow import poll_now, unsent_bytes, waiting_bytes
from orchestrator.kinds.sockets.option_table import SOL_SOCKET
from orchestrator.kinds.sockets.refused import Refused

_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_TRUNC | socket.MSG_CMSG_CLOEXEC
_SO_PEEK_OFF = 42
_SO_SNDBUFFORCE = 32
_SCM_PIDFD = 4
_SIOCATMARK = 0x8905
_ucred = struct.Struct("=iII")
_FIRST_BUFFER = 1 << 18
_SMALL_BUFFER = 1 << 12
_CONTROL = 1 << 12
_NEVER_MAPPED = 4096  # the bytes from address 0 on that no process may map


class Credentials(Record, frozen=True, array_like=True):
    """Who sent or connected. ``pid`` is the job's own number, 0 for a process outside of it."""

    pid: int
    uid: int
    gid: int


class Message(Record, frozen=True, array_like=True):
    """A message; of a stream, a run of bytes from one sender."""

    data: bytes
    source: bytes = b""
    """The address of the sender."""
    credentials: Credentials | None = None
    """Only where the receiver asked for them (SO_PASSCRED)."""
    files: tuple[ObjectId, ...] = ()
    """Open files on their way to the receiver (SCM_RIGHTS)."""
    urgent: bool = False
    """It is the out-of-band byte."""


Adopt = Callable[[int], ObjectId]
"""Takes over one of our descriptors, and returns the open file of the image behind it, or raises Refused."""


def job_credentials(scope: Scope, credentials: tuple[int, int, int] | None) -> Credentials | None:
    """Translate a host pid into the job's own."""
    if credentials is None:
        return None
    pid, uid, gid = credentials
    return Credentials(scope.pids.get(HostPid(pid), 0), uid, gid)


def peek_queue(sock: socket.socket, style: int, scope: Scope, adopt: Adopt) -> list[Message]:
    """Return what waits to be received. Raises Refused for what cannot be sent again."""
    waiting = waiting_bytes(sock.fileno())
    if style == socket.SOCK_STREAM and waiting == 0:
        return []  # looking beyond the end would take a pending error away
    events = poll_now(sock.fileno(), select.POLLIN | select.POLLPRI)
    if style != socket.SOCK_STREAM and events & select.POLLERR:
        if waiting == 0 and style == socket.SOCK_SEQPACKET:
            return []
        raise Refused("an error waits in it to be reported")
    before = sock.getsockopt(SOL_SOCKET, _SO_PEEK_OFF)
    try:
        look = _Look(sock, style, scope, adopt, waiting)
        return look.all_with_urgent(waiting) if events & select.POLLPRI else look.all(waiting)
    finally:
        sock.setsockopt(SOL_SOCKET, _SO_PEEK_OFF, before)


def refuse_hidden(style: int, shown: Sequence[Message], sent: int) -> None:
    """Raise Refused if empty messages wait between those that a look shows.

    The kernel passes over an empty one that was looked at before (MSG_PEEK, or an earlier checkpoint). But it takes
    memory: ``sent`` is what all that wait take (SIOCOUTQ of the sender).
    """
    empty = _memory_of(style, 0)
    more = sent - sum(_memory_of(style, len(message.data)) for message in shown)
    if more > 0 and more % empty == 0:
        count = more // empty
        raise Refused(
            f"{count} empty messages wait in it that were looked at before, and the kernel does not show where",
            "try again when the job has read them; a checkpoint of a job that goes on looks at them, too",
        )


@lru_cache(maxsize=256)
def _memory_of(style: int, length: int) -> int:
    """Return the bytes of kernel memory that a message takes."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, style)
    with sender, receiver:
        sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * length + _CONTROL)
        sender.send(bytes(length), socket.MSG_DONTWAIT)
        return unsent_bytes(sender.fileno())


class _Look:
    """One walk along a queue."""

    def __init__(self, sock: socket.socket, style: int, scope: Scope, adopt: Adopt, room: int) -> None:
        self._sock = sock
        self._style = style
        self._scope = scope
        self._adopt = adopt
        self._buffer = bytearray(_FIRST_BUFFER if room > _SMALL_BUFFER else _SMALL_BUFFER)

    def all(self, waiting: int) -> list[Message]:
        messages: list[Message] = []
        at = 0
        while self._style != socket.SOCK_STREAM or at < waiting:
            found = self._next(at)
            if found is None:
                break
            message, descriptors = found
            if descriptors:
                plain = self._bytes_before_descriptors(at, len(message.data))
                if plain:
                    messages.append(Message(message.data[:plain], message.source, message.credentials))
                files = tuple(self._adopt(fd) for fd in descriptors)
                message = Message(message.data[plain:], message.source, message.credentials, files)
                at += plain
            messages.append(message)
            at += len(message.data)
        return messages

    def all_with_urgent(self, waiting: int) -> list[Message]:
        """Find the out-of-band byte. Looking from the start ends before it; beyond, it looks like any other."""
        messages = self.all(waiting)
        if any(message.files or message.credentials for message in messages):
            raise Refused("out-of-band data waits in it, with descriptors or credentials")
        data = b"".join(message.data for message in messages)
        at = 0 if _is_at_mark(self._sock) else len(messages[0].data)
        if at >= _FIRST_BUFFER:
            raise Refused("out-of-band data waits in it, behind too much else")
        if len(data) < waiting:  # at the very start it is left out
            byte, rest = self._sock.recv(1, socket.MSG_OOB | socket.MSG_PEEK | socket.MSG_DONTWAIT), data[at:]
        else:
            byte, rest = data[at : at + 1], data[at + 1 :]
        found = [Message(data[:at]), Message(byte, urgent=True), Message(rest)]
        return [message for message in found if message.data]

    def _next(self, at: int) -> tuple[Message, list[int]] | None:
        """Look at what begins ``at`` bytes into the queue."""
        while True:
            self._sock.setsockopt(SOL_SOCKET, _SO_PEEK_OFF, at)
            try:
                size, ancillary, flags, source = self._sock.recvmsg_into([self._buffer], _CONTROL, _PEEK)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return None
                raise
            descriptors = _received(ancillary)
            if size <= len(self._buffer):
                break
            _close_all(descriptors)
            self._buffer = bytearray(size)
        if flags & socket.MSG_CTRUNC:
            _close_all(descriptors)
            raise Refused("a message in it carries more control data than can be looked at")
        if size == 0 and self._style != socket.SOCK_DGRAM and self._ended():
            return None
        name = source if isinstance(source, bytes) else os.fsencode(source or "")
        return Message(bytes(self._buffer[:size]), name, _credentials(ancillary, self._scope)), descriptors

    def _ended(self) -> bool:
        return bool(poll_now(self._sock.fileno(), select.POLLRDHUP) & select.POLLRDHUP)

    def _bytes_before_descriptors(self, at: int, size: int) -> int:
        """Find with which byte of a stream the descriptors come: what was sent before is received along with it."""
        if self._style != socket.SOCK_STREAM or size == 0:
            return 0
        # The kernel copies piece by piece as they were sent, and ends before a piece that it cannot copy
        # wholly. Let that be the last one: it has the descriptors.
        self._sock.setsockopt(SOL_SOCKET, _SO_PEEK_OFF, at)
        nowhere = (ctypes.c_char * (_NEVER_MAPPED - 1)).from_address(1)
        try:
            before, ancillary, _, _ = self._sock.recvmsg_into([bytearray(size - 1), nowhere], _CONTROL, _PEEK)
        except OSError as error:
            if error.errno == errno.EFAULT:
                return 0
            raise
        _close_all(_received(ancillary))
        return before


def _is_at_mark(sock: socket.socket) -> bool:
    return fcntl.ioctl(sock.fileno(), _SIOCATMARK, bytes(4)) != bytes(4)


def _received(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a look, having closed those that the kernel made of itself."""
    descriptors = []
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors += [fd for (fd,) in struct.iter_unpack("=i", data[: len(data) & ~3])]
        elif level == SOL_SOCKET and kind == _SCM_PIDFD:
            _close_all([fd for (fd,) in struct.iter_unpack("=i", data) if fd >= 0])
    return descriptors


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _credentials(ancillary: Sequence[tuple[int, int, bytes]], scope: Scope) -> Credentials | None:
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return job_credentials(scope, _ucred.unpack_from(data))
    return None
