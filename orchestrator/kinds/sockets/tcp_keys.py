"""The keys with which a TCP socket signs its packets. See TCP_MD5SIG in tcp(7), RFC 2385, RFC 5925.

No option tells the keys of MD5 signatures, but the kernel's list of sockets does, to root.
"""

from __future__ import annotations

import socket
import struct

from orchestrator.kinds.sockets.option_table import SOL_TCP
from orchestrator.kinds.sockets.options import Option
from orchestrator.kinds.sockets.refused import Refused
from orchestrator.kinds.sockets.tcp_peers import TcpPeers

_TCP_MD5SIG_EXT = 32
_TCP_AO_INFO = 40
_AO_BYTES = 48
_FLAG_PREFIX = 1
_listed = struct.Struct("=BBH16s80s")
_tcp_md5sig = struct.Struct("=128sBBHi80s")
assert _listed.size == 100
assert _tcp_md5sig.size == 216


def signing_keys(peers: TcpPeers, ino: int, sock: socket.socket) -> list[Option]:
    """Return the options that give a socket its keys again. Raises Refused for those of TCP-AO."""
    try:
        sock.getsockopt(SOL_TCP, _TCP_AO_INFO, _AO_BYTES)
    except OSError:
        pass  # it has none, or the kernel knows none
    else:
        raise Refused("its packets are signed (TCP-AO), and what was counted of them cannot be set again")
    diag = peers.state_of(ino)
    found = []
    for family, prefix, length, address, key in _listed.iter_unpack(diag.md5_keys if diag is not None else b""):
        if family == socket.AF_INET:
            storage = struct.pack("=HH4s", family, 0, address[:4])
        else:
            storage = struct.pack("=HHI16sI", family, 0, 0, address, 0)
        value = _tcp_md5sig.pack(storage, _FLAG_PREFIX, prefix, length, 0, key)
        found.append(Option(SOL_TCP, _TCP_MD5SIG_EXT, value))
    return found
