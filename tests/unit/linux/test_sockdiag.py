from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from orchestrator.linux.sockdiag import (
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    inet_sockets,
    unix_sockets,
)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _ino(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def test_pair(closing: ExitStack) -> None:
    one, other = socket.socketpair()
    closing.enter_context(one)
    closing.enter_context(other)
    one.send(b"12345")
    other.shutdown(socket.SHUT_WR)
    found = unix_sockets()
    here, there = found[_ino(one)], found[_ino(other)]
    assert (here.type, here.state, here.ino, here.peer) == (
        socket.SOCK_STREAM,
        TCP_ESTABLISHED,
        _ino(one),
        _ino(other),
    )
    assert (there.peer, there.rqueue) == (_ino(one), 5)
    assert (here.name, here.vfs, here.icons, here.uid) == (None, None, (), os.getuid())
    assert (here.shutdown, there.shutdown) == (RCV_SHUTDOWN, SEND_SHUTDOWN)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_listener_with_waiting_connections(closing: ExitStack, tmp_path: Path, kind: socket.SocketKind) -> None:
    path = tmp_path / "s"
    listener = closing.enter_context(socket.socket(socket.AF_UNIX, kind))
    listener.bind(str(path))
    listener.listen(7)
    clients = [closing.enter_context(socket.socket(socket.AF_UNIX, kind)) for _ in range(2)]
    for client in clients:
        client.connect(str(path))
    found = unix_sockets()
    diag = found[_ino(listener)]
    status = path.stat()
    assert (diag.state, diag.type) == (TCP_LISTEN, kind)
    assert diag.name is not None
    assert diag.name.rstrip(b"\0") == os.fsencode(path)
    assert diag.vfs == (status.st_dev, status.st_ino & 0xFFFFFFFF)
    assert set(diag.icons) == {_ino(client) for client in clients}
    assert (diag.rqueue, diag.wqueue) == (2, 7)
    accepted, _ = listener.accept()
    closing.enter_context(accepted)
    found = unix_sockets()
    assert found[_ino(clients[0])].peer == _ino(accepted)
    assert found[_ino(listener)].icons == (_ino(clients[1]),)


def test_abstract_datagram_socket(closing: ExitStack) -> None:
    name = f"\0orch test {os.getpid()}\0x".encode()
    sock = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    sock.bind(name)
    other = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    other.connect(name)
    other.send(b"xyz")
    found = unix_sockets()
    diag = found[_ino(sock)]
    assert (diag.type, diag.name, diag.vfs, diag.peer) == (socket.SOCK_DGRAM, name, None, None)
    assert diag.rqueue == 3
    assert found[_ino(other)].peer == _ino(sock)


def test_many_sockets_take_more_than_one_datagram(closing: ExitStack) -> None:
    pairs = [socket.socketpair() for _ in range(1000)]
    for pair in pairs:
        for sock in pair:
            closing.enter_context(sock)
    found = unix_sockets()
    for one, other in pairs:
        assert found[_ino(one)].peer == _ino(other)
        assert found[_ino(other)].peer == _ino(one)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_tcp(closing: ExitStack, family: socket.AddressFamily, host: str) -> None:
    try:
        listener = closing.enter_context(socket.create_server((host, 0), family=family, backlog=9))
    except OSError as error:
        pytest.skip(f"no {host}: {error}")
    port = listener.getsockname()[1]
    client = closing.enter_context(socket.create_connection((host, port)))
    server, _ = listener.accept()
    closing.enter_context(server)
    client.send(b"123")
    assert server.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL) == b"123"
    found = {diag.ino: diag for diag in inet_sockets(family, socket.IPPROTO_TCP)}
    listening, near, far = (found[_ino(sock)] for sock in (listener, server, client))
    assert (listening.state, listening.src, listening.sport, listening.dport) == (TCP_LISTEN, host, port, 0)
    assert listening.wqueue == 9
    client_port = client.getsockname()[1]
    assert (near.state, near.sport, near.dst, near.dport) == (TCP_ESTABLISHED, port, host, client_port)
    assert (far.src, far.sport, far.dport, far.uid) == (host, client_port, port, os.getuid())
    assert (near.rqueue, far.rqueue) == (3, 0)


def test_tcp_agrees_with_psutil(closing: ExitStack) -> None:
    listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
    ours = {
        (diag.src, diag.sport) for diag in inet_sockets(socket.AF_INET, socket.IPPROTO_TCP) if diag.state == TCP_LISTEN
    }
    theirs = {tuple(entry.laddr) for entry in psutil.net_connections("tcp4") if entry.status == "LISTEN"}
    assert listener.getsockname() in ours
    assert theirs == ours


def test_udp(closing: ExitStack) -> None:
    sock = closing.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    other = closing.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    other.connect(("127.0.0.1", port))
    other.send(b"x" * 100)
    try:
        found = {diag.ino: diag for diag in inet_sockets(socket.AF_INET, socket.IPPROTO_UDP)}
    except FileNotFoundError:
        pytest.skip("the kernel has no UDP diag")
    assert found[_ino(sock)].sport == port
    assert found[_ino(sock)].state == TCP_CLOSE
    assert found[_ino(sock)].rqueue >= 100
    assert (found[_ino(other)].dst, found[_ino(other)].dport) == ("127.0.0.1", port)
    assert found[_ino(other)].state == TCP_ESTABLISHED


def test_a_protocol_without_diag() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        inet_sockets(socket.AF_INET, 253)
    assert "sock_diag" in caught.value.__notes__[0]
