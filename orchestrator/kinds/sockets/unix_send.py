"""Send again what waited in a Unix socket. See unix(7), cmsg(3)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.sockets.option_table import SOL_SOCKET
from orchestrator.kinds.sockets.options import SO_SNDBUFFORCE, set_int
from orchestrator.kinds.sockets.unix_creator import moving
from orchestrator.kinds.sockets.unix_queue import Message
from orchestrator.tape.build import Block, Tape

_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_MESSAGE_OVERHEAD = 4096  # more than the kernel's bookkeeping for one message
_SLACK = 1 << 20
# msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags
_msghdr = struct.Struct("=QI4xQQQQi4x")
_iovec = struct.Struct("=QQ")
_cmsghdr = struct.Struct("=Qii")
assert _msghdr.size == 56
assert _cmsghdr.size == 16


def widen(tape: Tape, fd: int, messages: Sequence[Message]) -> None:
    """Make the send buffer so large that sending all messages can neither wait nor be cut short."""
    size = sum(len(message.data) * 2 + _MESSAGE_OVERHEAD for message in messages) + _SLACK
    set_int(tape, fd, SOL_SOCKET, SO_SNDBUFFORCE, size)


def write_send(depot: Depot, fd: int, message: Message, to: bytes = b"") -> None:
    """Send one message, to the sockaddr ``to`` if given, in the name of its sender."""
    tape = depot.tape
    with moving(depot, fd, message.credentials) as may_fail:
        if message.files:
            tape.sendmsg(fd, _message_header(depot, message, to), _FLAGS, may_fail=may_fail)
        else:
            flags = _FLAGS | (socket.MSG_OOB if message.urgent else 0)
            tape.sendto(fd, message.data or 0, len(message.data), flags, to or 0, len(to), may_fail=may_fail)


def _message_header(depot: Depot, message: Message, to: bytes) -> Block:
    tape = depot.tape
    numbers = [depot.slot(file) for file in message.files]
    rights = struct.pack(f"={len(numbers)}i", *numbers)
    size = _cmsghdr.size + len(rights)
    control = _cmsghdr.pack(size, SOL_SOCKET, socket.SCM_RIGHTS) + rights
    vector = tape.block(_iovec.pack(0, len(message.data)))
    if message.data:
        tape.point(vector, 0, tape.block(message.data))
    header = tape.block(_msghdr.pack(0, len(to), 0, 1, 0, len(control) + (-len(control) % 8), 0))
    if to:
        tape.point(header, 0, tape.block(to))
    tape.point(header, 16, vector)
    tape.point(header, 32, tape.block(control))
    return header
