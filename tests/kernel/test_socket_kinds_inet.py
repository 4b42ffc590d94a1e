"""TCP and UDP sockets, carried from one process to another."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

import msgspec
import pytest

from harness.socket_transplant import Holders, blockers, capture, check, only_file, rebuilt
from orchestrator.errors import ResourceTaken
from orchestrator.kinds.sockets.inet_address import InetAddress

TCP_NODELAY, TCP_CORK, TCP_KEEPIDLE, TCP_INFO = 1, 3, 4, 11
SOL_SOCKET, SOL_TCP = socket.SOL_SOCKET, socket.SOL_TCP
FAMILIES = [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def holders() -> Iterator[Holders]:
    made = Holders()
    yield made
    made.end()


def close(*sockets: socket.socket) -> None:
    for sock in sockets:
        sock.close()


def connected(host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket, socket.socket]:
    """Return a listener, a client and the accepted end."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, 0), family=family)
    client = socket.create_connection(server.getsockname()[:2])
    accepted, _ = server.accept()
    return server, client, accepted


def receive(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = sock.recv(size - len(got))
        if not piece:
            break
        got += piece
    return got


def state(sock: socket.socket) -> int:
    return sock.getsockopt(SOL_TCP, TCP_INFO, 8)[0]


@pytest.mark.parametrize(("host", "family"), FAMILIES)
def test_listener(holders: Holders, host: str, family: socket.AddressFamily) -> None:
    server = socket.socket(family)
    server.setsockopt(SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    server.setsockopt(SOL_TCP, TCP_NODELAY, 1)
    server.setsockopt(SOL_TCP, TCP_KEEPIDLE, 123)
    server.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 50000)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((host, 0))
    server.listen(17)
    server.setblocking(False)
    name = server.getsockname()
    image, _ = capture([holders.start({100: server})])
    with pytest.raises(ResourceTaken, match=rf"TCP port .*:{name[1]} is in use by process"):
        check(image)
    server.close()
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        again = table[100]
        assert again.getsockname() == name
        assert not os.get_blocking(again.fileno())
        assert struct.unpack_from("=24x2I", again.getsockopt(SOL_TCP, TCP_INFO, 32)) == (0, 17)
        for level, option, value in (
            (SOL_SOCKET, socket.SO_REUSEADDR, 1),
            (SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (SOL_TCP, TCP_NODELAY, 1),
            (SOL_TCP, TCP_KEEPIDLE, 123),
            (SOL_SOCKET, socket.SO_RCVBUF, 100000),
        ):
            assert again.getsockopt(level, option) == value
        with socket.create_connection(name[:2]):
            again.setblocking(True)
            again.accept()[0].close()


def test_port_shared_by_v4_and_v6(holders: Holders) -> None:
    both = socket.socket(socket.AF_INET6)
    both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    both.bind(("::", 0))
    v4 = socket.socket()
    v4.bind(("0.0.0.0", both.getsockname()[1]))
    close_all = (both, v4)
    for sock in close_all:
        sock.listen()
    group = [socket.socket() for _ in range(2)]
    for sock in group:
        sock.setsockopt(SOL_SOCKET, socket.SO_REUSEPORT, 1)
    group[0].bind(("127.0.0.1", 0))
    group[1].bind(group[0].getsockname())
    for sock in group:
        sock.listen()
    image, _ = capture([holders.start(dict(enumerate([both, v4, *group], start=100)))])
    names = [sock.getsockname() for sock in [both, v4, *group]]
    close(both, v4, *group)
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        assert [table[number].getsockname() for number in range(100, 104)] == names


def test_fresh_and_bound_sockets(holders: Holders) -> None:
    fresh, bound, fresh6 = socket.socket(), socket.socket(), socket.socket(socket.AF_INET6)
    bound.bind(("127.0.0.1", 0))
    fresh.setsockopt(SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    name = bound.getsockname()
    image, _ = capture([holders.start({100: fresh, 101: bound, 102: fresh6})])
    close(fresh, bound, fresh6)
    holders.end()
    with rebuilt(image) as (table,), socket.create_server(("127.0.0.1", 0)) as server:
        assert table[100].getsockname() == ("0.0.0.0", 0)
        assert table[100].getsockopt(SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("=ii", 1, 0)
        assert table[101].getsockname() == name
        table[101].connect(server.getsockname())
        assert table[102].family == socket.AF_INET6


def test_data_over_a_connection_not_accepted_yet_is_refused(holders: Holders) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.send(b"x")
        (reason,) = blockers([holders.start({100: server, 101: client})])
        assert "data has come over a connection to it that is not accepted yet" in reason


def test_connection_of_an_outsider_not_accepted_yet(holders: Holders) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        pid = holders.start({100: server})
        (reason,) = blockers([pid])
        port = client.getsockname()[1]
        assert f"a connection to it from 127.0.0.1:{port}, outside of the job, is not accepted yet" in reason
        image, scope = capture([pid], externals=["tcp"])
        assert not scope.blockers.outside
        holders.end()
        server.close()
        with rebuilt(image) as (table,):
            table[100].setblocking(False)
            with pytest.raises(BlockingIOError):
                table[100].accept()


def test_listeners_of_one_port_share_what_waits(holders: Holders) -> None:
    group = [socket.socket() for _ in range(2)]
    for sock in group:
        sock.setsockopt(SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(group[0].getsockname() if sock is group[1] else ("127.0.0.1", 0))
        sock.listen()
    name = group[0].getsockname()
    clients = [socket.create_connection(name) for _ in range(4)]
    image, scope = capture([holders.start(dict(enumerate([*group, *clients], start=100)))])
    assert not scope.blockers.unsupported
    ports = sorted(client.getsockname()[1] for client in clients)
    close(*group, *clients)
    holders.end()
    with rebuilt(image) as (table,):
        found = []
        for number in (100, 101):
            table[number].setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted, peer = table[number].accept()
                    found.append(peer[1])
                    accepted.close()
        assert sorted(found) == ports


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connection(holders: Holders, host: str) -> None:
    server, client, accepted = connected(host)
    client.setsockopt(SOL_TCP, TCP_NODELAY, 1)
    client.setsockopt(SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.send(b"question")
    accepted.send(b"long answer" * 9000)
    names = client.getsockname(), client.getpeername()
    pids = [holders.start({100: server, 101: accepted}), holders.start({105: client})]
    image, scope = capture(pids)
    assert not scope.blockers.outside
    # the connection goes on as if nobody had looked
    client.send(b"more")
    assert receive(accepted, 12) == b"questionmore"
    assert client.getsockopt(SOL_SOCKET, socket.SO_REUSEADDR) == 1
    assert client.getsockopt(SOL_TCP, 19) == 0
    close(server, client, accepted)
    holders.end()
    check(image)
    with rebuilt(image) as (first, second):
        assert (second[105].getsockname(), second[105].getpeername()) == names
        assert second[105].getsockopt(SOL_TCP, TCP_NODELAY) == 1
        assert second[105].getsockopt(SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert second[105].getsockopt(SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert second[105].getsockopt(SOL_TCP, 19) == 0
        assert receive(first[101], 8) == b"question"
        assert receive(second[105], 99000) == b"long answer" * 9000
        _talk(first[101], second[105], 3 << 20)
        _talk(second[105], first[101], 3 << 20)
        again, _ = capture([holders.start({100: first[100], 101: first[101], 105: second[105]})])
        close(*first.values(), *second.values())
        holders.end()
    with rebuilt(again) as (table,):
        _talk(table[101], table[105], 3 << 20)


def _talk(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    """Send more than any buffer holds."""
    content = os.urandom(size)
    thread = threading.Thread(target=sender.sendall, args=(content,))
    thread.start()
    assert receive(receiver, size) == content
    thread.join()


def test_full_queues(holders: Holders) -> None:
    server, client, accepted = connected()
    server.close()
    client.setblocking(False)
    sent = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            piece = os.urandom(33333)
            sent += piece[: client.send(piece)]
    image, scope = capture([holders.start({100: client, 101: accepted})])
    assert not scope.blockers.unsupported
    unsent = [file.body.state.unsent for file in image.files]  # type: ignore[union-attr]
    assert unsent[0] > 0
    close(client, accepted)
    holders.end()
    with rebuilt(image) as (table,):
        assert receive(table[101], len(sent)) == sent
        table[100].setblocking(True)
        _talk(table[100], table[101], 1 << 20)


def test_half_closed(holders: Holders) -> None:
    server, client, accepted = connected()
    server.close()
    client.send(b"all")
    client.shutdown(socket.SHUT_WR)
    accepted.send(b"early answer")
    image, scope = capture([holders.start({100: client, 101: accepted})])
    assert not scope.blockers.unsupported
    states = state(client), state(accepted)
    close(client, accepted)
    holders.end()
    with rebuilt(image) as (table,):
        assert [table[101].recv(10), table[101].recv(10)] == [b"all", b""]
        table[101].send(b" and late")
        assert receive(table[100], 21) == b"early answer and late"
        assert (state(table[100]), state(table[101])) == states  # the answer acknowledges the FIN
        with pytest.raises(BrokenPipeError):
            table[100].send(b"x")
        table[101].close()
        assert table[100].recv(10) == b""


def test_other_end_closed_and_gone(holders: Holders) -> None:
    server, client, accepted = connected()
    accepted.send(b"bye")
    close(accepted)
    image, scope = capture([holders.start({100: server, 101: client})])
    assert not scope.blockers.outside
    name = client.getpeername()
    close(server, client)
    holders.end()
    with rebuilt(image) as (table,):
        assert table[101].getpeername() == name
        assert state(table[101]) == 8
        assert [table[101].recv(10), table[101].recv(10)] == [b"bye", b""]
        table[101].send(b"to nobody")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            table[101].send(b"x")


def test_v4_client_of_a_v6_listener(holders: Holders) -> None:
    server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    client = socket.create_connection(("127.0.0.1", server.getsockname()[1]))
    accepted, _ = server.accept()
    client.send(b"x")
    image, scope = capture([holders.start({100: server, 101: client, 102: accepted})])
    assert not scope.blockers.outside
    name = accepted.getpeername()
    close(server, client, accepted)
    holders.end()
    with rebuilt(image) as (table,):
        assert table[102].getpeername() == name
        assert table[102].recv(1) == b"x"
        _talk(table[101], table[102], 1 << 20)


def test_other_end_outside_of_the_job(holders: Holders) -> None:
    server, client, accepted = connected()
    outsider = holders.start({100: accepted})
    pid = holders.start({100: client})
    close(server, client, accepted)
    (reason,) = blockers([pid])
    assert f"{pid} (holder): fd 100" in reason
    assert f"held by {outsider} (" in reason
    assert "--tcp close" in reason


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize(("before", "after"), [(b"abc", b"def"), (b"abc", b""), (b"", b"def" * 9000), (b"", b"")])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_urgent_data(holders: Holders, host: str, before: bytes, after: bytes, *, read: bool, inline: bool) -> None:
    server, client, accepted = connected(host)
    accepted.setsockopt(SOL_SOCKET, socket.SO_OOBINLINE, inline)
    for data, flags in ((before, 0), (b"X", socket.MSG_OOB), (after, 0)):
        client.send(data, flags)
    if read and not inline:
        assert accepted.recv(1, socket.MSG_OOB) == b"X"
    image, scope = capture([holders.start({100: server, 101: accepted, 102: client})])
    assert not scope.blockers.unsupported
    assert accepted.getsockopt(SOL_SOCKET, socket.SO_OOBINLINE) == inline
    close(server, client, accepted)
    holders.end()
    with rebuilt(image) as (table,):
        again = table[101]
        assert again.getsockopt(SOL_SOCKET, socket.SO_OOBINLINE) == inline
        if inline:
            wanted = before + b"X" + after
        else:
            wanted = before + after
            if not read:
                assert again.recv(1, socket.MSG_OOB) == b"X"
        assert receive(again, len(wanted)) == wanted
        _talk(table[102], again, 100000)
        _talk(again, table[102], 100000)


def test_multipath_listener(holders: Holders) -> None:
    """What servers written in Go have by default: their clients mostly do not speak it."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    server.setsockopt(SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", 0))
    server.listen(9)
    fresh = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 262)
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    client.send(b"plain")
    image, scope = capture([holders.start({100: server, 101: accepted, 102: client, 103: fresh})])
    assert not scope.blockers.unsupported
    name = server.getsockname()
    close(server, client, accepted, fresh)
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        assert [table[number].getsockopt(SOL_SOCKET, socket.SO_PROTOCOL) for number in (100, 101, 103)] == [262, 6, 262]
        assert table[101].recv(10) == b"plain"
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as multipath:
            multipath.connect(name)
            again, _ = table[100].accept()
            multipath.send(b"x")
            assert again.recv(1) == b"x"
            reasons = blockers([holders.start({100: again, 101: multipath})])
            again.close()
            holders.end()
    assert len(reasons) == 2
    assert all("a connection of Multipath TCP" in reason and "multipathtcp=0" in reason for reason in reasons)


def test_signed_connections(holders: Holders) -> None:
    def sign(sock: socket.socket) -> None:
        address = struct.pack("=HH4s120x", 2, 0, socket.inet_aton("127.0.0.1"))
        sock.setsockopt(SOL_TCP, 14, address + struct.pack("=BBHi80s", 0, 0, 6, 0, b"secret"))

    server, client = socket.socket(), socket.socket()
    try:
        sign(server)
    except OSError:
        pytest.skip("this kernel has no MD5 signatures")
    sign(client)
    server.bind(("127.0.0.1", 0))
    server.listen()
    name = server.getsockname()
    client.connect(name)
    accepted, _ = server.accept()
    client.send(b"signed")
    image, scope = capture([holders.start({100: server, 101: accepted, 102: client})])
    assert not scope.blockers.unsupported
    close(server, client, accepted)
    holders.end()
    with rebuilt(image) as (table,):
        assert table[101].recv(10) == b"signed"
        _talk(table[101], table[102], 100000)
        with socket.socket() as unsigned, socket.socket() as signed:
            unsigned.settimeout(0.3)
            with pytest.raises(TimeoutError):
                unsigned.connect(name)
            sign(signed)
            signed.connect(name)
        same, _ = capture([holders.start({101: table[101]})])
        keys = [option for option in same.files[0].body.options.others if option.number == 32]  # type: ignore[union-attr]
        assert [b"secret" in key.value for key in keys] == [True]
        holders.end()


def test_failed_connection_whose_error_is_not_sure_is_refused(holders: Holders) -> None:
    server, client, accepted = connected()
    accepted.send(b"x")  # whether the end was told before the reset cannot be seen
    accepted.setsockopt(SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    assert client.recv(1) == b"x"
    close(accepted, server)
    (reason,) = blockers([holders.start({100: client})])
    with pytest.raises(ConnectionResetError):
        client.recv(1)  # the error is still there
    client.close()
    assert "has failed" in reason


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ended_connection(holders: Holders, host: str) -> None:
    server, client, accepted = connected(host)
    sent = os.urandom(2 << 20)
    client.setsockopt(SOL_SOCKET, 33, 8 << 20)
    accepted.sendall(sent)
    assert len(client.recv(len(sent), socket.MSG_PEEK | socket.MSG_WAITALL)) == len(sent)
    accepted.close()
    client.shutdown(socket.SHUT_WR)
    image, scope = capture([holders.start({100: client})])
    assert not scope.blockers.unsupported
    assert state(client) == 7
    close(server, client)
    with rebuilt(image) as (table,):
        again = table[100]
        assert again.getsockopt(SOL_SOCKET, socket.SO_ERROR) == 0
        assert receive(again, len(sent) + 1) == sent
        assert again.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            again.send(b"x")
        with pytest.raises(OSError, match="not connected"):
            again.getpeername()


def test_connections_with_the_outside_can_be_cut(holders: Holders) -> None:
    server, client, accepted = connected()
    inside = socket.create_connection(server.getsockname())
    inside_too, _ = server.accept()
    client.send(b"unread")
    pid = holders.start({100: server, 101: accepted, 102: inside, 103: inside_too})
    close(inside, inside_too)
    image, scope = capture([pid], externals=["tcp"])
    assert not scope.blockers.outside
    client.send(b" and more")
    assert receive(accepted, 15) == b"unread and more"  # the job went on
    close(server, client, accepted)
    holders.end()
    with rebuilt(image) as (table,):
        assert table[101].recv(100) == b"unread"
        with pytest.raises(ConnectionResetError):
            table[101].recv(1)
        _talk(table[102], table[103], 100000)


@pytest.mark.parametrize(("host", "family"), FAMILIES)
def test_udp(holders: Holders, host: str, family: socket.AddressFamily) -> None:
    server, client, fresh = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(3))
    server.bind((host, 0))
    server.setsockopt(SOL_SOCKET, socket.SO_BROADCAST, 1)
    client.connect(server.getsockname())
    names = server.getsockname(), client.getsockname()
    image, _ = capture([holders.start({100: server, 101: client, 102: fresh})])
    with pytest.raises(ResourceTaken, match=rf"UDP port .*:{names[0][1]} is in use by process"):
        check(image)
    close(server, client, fresh)
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        assert (table[100].getsockname(), table[101].getsockname()) == names
        assert table[101].getpeername() == names[0]
        assert table[100].getsockopt(SOL_SOCKET, socket.SO_BROADCAST) == 1
        table[101].send(b"ping")
        assert table[100].recvfrom(10) == (b"ping", names[1])


@pytest.mark.parametrize(("host", "family"), FAMILIES)
def test_udp_keeps_what_waits(holders: Holders, host: str, family: socket.AddressFamily) -> None:
    server, client, other = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(3))
    for sock in (server, client, other):
        sock.bind((host, 0))
    name = server.getsockname()
    client.connect(name)
    content = [b"one", b"", os.urandom(1471), os.urandom(30000)]
    for data in content:
        client.send(data)
        other.sendto(data, name)
    wanted = [(data, sock.getsockname()) for data in content for sock in (client, other)]
    image, scope = capture([holders.start({100: server, 101: client})])
    assert not scope.blockers.unsupported
    assert server.recv(10) == b"one"
    close(server, client, other)
    holders.end()
    with rebuilt(image) as (table,):
        table[100].setblocking(False)
        assert [table[100].recvfrom(1 << 16) for _ in wanted] == wanted
        with pytest.raises(BlockingIOError):
            table[100].recv(1)


def test_udp_from_another_machine_to_any_address(holders: Holders) -> None:
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind(("::", 0))
    server.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 100000)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.1", server.getsockname()[1]))
    image, _ = capture([holders.start({100: server})])
    server.close()
    holders.end()
    body = only_file(image).body
    elsewhere = InetAddress("::ffff:192.0.2.7", 5353)
    body.queue[0] = msgspec.structs.replace(body.queue[0], source=elsewhere)  # type: ignore[union-attr]
    with rebuilt(image) as (table,):
        table[100].setblocking(False)
        assert table[100].recvfrom(10)[1][:2] == ("::ffff:192.0.2.7", 5353)


def test_fresh_sockets_have_no_options(holders: Holders) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        for style in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, style) as sock:
                image, _ = capture([holders.start({100: sock})])
                assert only_file(image).body.options.others == []  # type: ignore[union-attr]


def test_a_saved_packet_that_was_not_read_is_refused(holders: Holders) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, 27, 1)  # TCP_SAVE_SYN
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    assert any("TCP_SAVED_SYN" in reason for reason in blockers([holders.start({100: client, 101: accepted})]))
    assert len(accepted.getsockopt(socket.IPPROTO_TCP, 28, 200)) >= 40  # the look did not take it
    assert blockers([holders.start({100: client, 101: accepted})]) == []
    close(client, accepted)
