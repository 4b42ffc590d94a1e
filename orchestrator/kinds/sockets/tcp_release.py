"""Let kept connections with the outside speak again, when the job is whole.

Until then their sockets are in repair mode: should the restore fail, they end without a word, and it can be tried
again. orch does this itself through descriptors of its own, for it is the last thing before the job runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable

from orchestrator.errors import RebuildFailed
from orchestrator.ids import DepotFd, HostPid, ObjectId
from orchestrator.kinds.files.kind import OpenFile
from orchestrator.kinds.sockets.borrow import borrow
from orchestrator.kinds.sockets.option_table import SOL_SOCKET, SOL_TCP
from orchestrator.kinds.sockets.options import SO_BUF_LOCK, SO_RCVBUFFORCE, SO_SNDBUFFORCE
from orchestrator.kinds.sockets.tcp import tcp_state
from orchestrator.kinds.sockets.tcp_connection import LATE, TcpConnection
from orchestrator.kinds.sockets.tcp_forge import end_of_stream
from orchestrator.kinds.sockets.tcp_hold import let_through
from orchestrator.kinds.sockets.tcp_repair import TCP_REPAIR, TCP_REPAIR_OFF
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open
from orchestrator.linux.sockdiag import TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2


def filters_of(files: Iterable[OpenFile]) -> set[str]:
    """Return the names of the packet filters that hold the connections of an image."""
    return {file.body.filter for file in files if isinstance(file.body, TcpConnection) and file.body.filter}


class KeptConnections:
    """Our own descriptors of the connections with the outside of one restore."""

    def __init__(self) -> None:
        self._held: list[tuple[TcpConnection, int]] = []
        self._filters: set[str] = set()

    def take(self, files: Iterable[OpenFile], depot: HostPid, slot: Callable[[ObjectId], DepotFd]) -> None:
        """Take them from the process that has opened everything."""
        kept = [file for file in files if isinstance(file.body, TcpConnection) and file.body.filter]
        if not kept:
            return
        self._filters = filters_of(kept)
        pidfd = pidfd_open(depot)
        try:
            for file in kept:
                self._held.append((file.body, pidfd_getfd(pidfd, slot(file.id))))
        finally:
            os.close(pidfd)

    def release(self) -> None:
        """Remove the filters and let the connections speak."""
        if self._held:
            let_through(self._filters)
            for body, fd in self._held:
                with borrow(fd) as sock:
                    _speak(body, sock)
        self.close()

    def close(self) -> None:
        """Give the descriptors back."""
        for _, fd in self._held:
            os.close(fd)
        self._held.clear()


def _speak(body: TcpConnection, sock: socket.socket) -> None:
    state = body.state
    sock.setsockopt(SOL_TCP, TCP_REPAIR, TCP_REPAIR_OFF)
    if state.unsent:
        rest = memoryview(state.send_queue)[-state.unsent :]
        while rest:
            rest = rest[sock.send(rest, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
    if body.fin_received:
        end_of_stream(body.local, body.remote, state)
        if tcp_state(sock) in (TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2):
            raise RebuildFailed(f"the TCP connection {body.local} to {body.remote} did not take its end once more")
    if body.fin_sent:
        sock.shutdown(socket.SHUT_WR)
    options = body.options
    sock.setsockopt(SOL_SOCKET, SO_SNDBUFFORCE, options.send_buffer // 2)
    sock.setsockopt(SOL_SOCKET, SO_RCVBUFFORCE, options.receive_buffer // 2)
    if options.buffer_locks >= 0:
        sock.setsockopt(SOL_SOCKET, SO_BUF_LOCK, options.buffer_locks)
    for option in options.others:
        if option.at in LATE:
            sock.setsockopt(option.level, option.number, option.value)
