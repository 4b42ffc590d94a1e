"""What waits at a TCP listener: connections that nobody has accepted, and what came over them.

Who waits is known from the kernel's list of all sockets. What such a connection has received can be read only by
accepting it, and nothing puts it back: so that is done at the very last, and only if the job ends.
"""

from __future__ import annotations

import os
import select
import socket

from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.record import Content, Extent
from orchestrator.kinds.scope import FileCopy, Scope
from orchestrator.kinds.sockets.borrow import borrow, poll_now, waiting_bytes
from orchestrator.kinds.sockets.inet_address import InetAddress, parse_address
from orchestrator.kinds.sockets.refused import Refused
from orchestrator.kinds.sockets.tcp_client import Waiting
from orchestrator.kinds.sockets.tcp_ended import CUT
from orchestrator.kinds.sockets.tcp_peers import TcpPeers
from orchestrator.linux.sockdiag import TCP_CLOSE_WAIT, InetDiag


def capture_queue(view: FdView, scope: Scope, count: int) -> tuple[Waiting, ...]:
    """Record the ``count`` connections that wait at a listener."""
    peers = TcpPeers.of(scope, view.pid)
    reader: _Reader | None = None
    found = []
    for diag in peers.waiting_at(view.stat.st_ino, count):
        client = peers.client_of(diag)
        if client < 0 or (client and client not in peers.of_job):
            if CUT not in scope.externals:
                _refuse_outsider(view, scope, InetAddress(diag.dst, diag.dport))
            continue
        ended = diag.state == TCP_CLOSE_WAIT
        size = diag.rqueue - ended
        content = Content(0, [])
        if size > 0:
            if not scope.ends:
                raise Refused(
                    "data has come over a connection to it that is not accepted yet, where nobody can look at it",
                    "--kill lets it be read, as the job ends; or try again",
                )
            if reader is None:
                reader = _Reader(view.take_local(scope), scope)
                scope.last_acts.append(reader)
            content = reader.expect(diag, size)
        found.append(Waiting(_local(diag), InetAddress(diag.dst, diag.dport, 0, _local(diag).scope_id), ended, content))
    return tuple(found)


def _local(diag: InetDiag) -> InetAddress:
    scope_id = diag.interface if diag.src.startswith("fe80:") else 0
    return InetAddress(diag.src, diag.sport, 0, scope_id)


def _refuse_outsider(view: FdView, scope: Scope, client: InetAddress) -> None:
    scope.outside(
        view.pid,
        view.what,
        f"a connection to it from {client}, outside of the job, is not accepted yet",
        f"try again, or let a restored job do without it by --external {CUT}",
    )


class _Reader:
    """Reads what came over the connections that wait at one listener, by accepting them."""

    def __init__(self, listener: int, scope: Scope) -> None:
        self._listener = listener
        self._scope = scope
        self._buffers: dict[tuple[str, int], tuple[int, int]] = {}

    def expect(self, diag: InetDiag, size: int) -> Content:
        """Plan to read ``size`` bytes."""
        fd = os.memfd_create("tcp-queue")
        self._scope.closers.append(fd)
        os.ftruncate(fd, size)
        self._buffers[InetAddress(diag.dst, diag.dport).plain, diag.dport] = fd, size
        content = Content(size, [Extent(0, size, self._scope.layout.place(size))])
        self._scope.copies.append(FileCopy(fd, content.extents, late=True))
        return content

    def __call__(self) -> None:
        with borrow(self._listener) as sock:
            while self._buffers and poll_now(sock.fileno(), select.POLLIN) & select.POLLIN:
                accepted, _ = sock._accept()  # type: ignore[attr-defined]
                self._scope.closers.append(accepted)
                self._read(accepted)
        if self._buffers:
            raise OSError(f"{len(self._buffers)} connections were not there to be accepted")

    def _read(self, accepted: int) -> None:
        with borrow(accepted) as sock:
            client = parse_address(sock.getpeername())
            fd, size = self._buffers.pop((client.plain, client.port), (-1, 0))
            if size:
                data = sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                if len(data) != size or waiting_bytes(accepted) != size:
                    raise OSError(f"a connection has received {waiting_bytes(accepted)} bytes, and {size} before")
                os.pwrite(fd, data, 0)
