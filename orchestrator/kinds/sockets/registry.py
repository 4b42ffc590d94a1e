"""The kinds of sockets. The first that recognises a descriptor takes it."""

from __future__ import annotations

from orchestrator.kinds.files.kind import FileKind
from orchestrator.kinds.sockets.tcp import TCP, TcpSocket
from orchestrator.kinds.sockets.udp import UDP, UdpSocket
from orchestrator.kinds.sockets.unix import UNIX
from orchestrator.kinds.sockets.unix_records import UnixFile, UnixPair, UnixSocket
from orchestrator.kinds.sockets.unknown import UNKNOWN

SOCKET_KINDS: tuple[FileKind, ...] = (UNIX, TCP, UDP, UNKNOWN)

SocketBody = UnixFile | TcpSocket | UdpSocket
"""What OpenFile.body may be."""

SocketObject = UnixPair | UnixSocket
"""What an image's shared objects may be."""
