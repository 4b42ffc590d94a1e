"""Unix sockets, carried from one process to another."""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.socket_transplant import Holders, blockers, capture, check, object_of, only_file, rebuilt
from orchestrator.errors import ResourceTaken

UNIX, STREAM, DGRAM, SEQPACKET = socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET
ucred = struct.Struct("=iII")

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def holders() -> Iterator[Holders]:
    made = Holders()
    yield made
    made.end()


def close(*sockets: socket.socket) -> None:
    for sock in sockets:
        sock.close()


def everything(sock: socket.socket) -> list[bytes]:
    """Receive, message by message, all that waits."""
    sock.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(sock.recv(1 << 20))
            if len(found) > 100:
                break
    return found


def peer_ids(sock: socket.socket) -> tuple[int, int]:
    _, uid, gid = ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size))
    return uid, gid


@contextlib.contextmanager
def effective(uid: int, gid: int) -> Iterator[None]:
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize("style", [STREAM, SEQPACKET, DGRAM])
def test_pair_keeps_both_queues_and_boundaries(holders: Holders, style: socket.SocketKind) -> None:
    a, b = socket.socketpair(UNIX, style)
    for message in (b"one", b"", b"three", b"x" * 70000):
        if message or style != STREAM:
            a.send(message)
    b.send(b"back")
    pids = [holders.start({100: a, 101: b}), holders.start({107: b})]
    image, _ = capture(pids)
    # nothing was taken by the look
    assert b.recv(3) == b"one"
    close(a, b)
    holders.end()
    with rebuilt(image) as (first, second):
        assert everything(first[100]) == [b"back"]
        wanted = [b"onethree" + b"x" * 70000] if style == STREAM else [b"one", b"", b"three", b"x" * 70000]
        assert everything(second[107]) == wanted
        first[101].send(b"still there")
        first[100].setblocking(True)
        assert first[100].recv(100) == b"still there"


def test_a_stream_as_full_as_it_gets(holders: Holders) -> None:
    a, b = socket.socketpair()
    a.setblocking(False)
    sent = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            piece = os.urandom(997)
            sent += piece[: a.send(piece)]
    image, _ = capture([holders.start({100: a, 101: b})])
    close(a, b)
    with rebuilt(image) as (table,):
        assert b"".join(everything(table[101])) == sent
        assert not os.get_blocking(table[100].fileno())
        assert table[101].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 212992


@pytest.mark.parametrize("style", [STREAM, SEQPACKET])
def test_end_whose_peer_is_gone(holders: Holders, style: socket.SocketKind) -> None:
    a, b = socket.socketpair(UNIX, style)
    b.send(b"last words")
    b.close()
    image, _ = capture([holders.start({100: a})])
    a.close()
    with rebuilt(image) as (table,):
        assert table[100].recv(100) == b"last words"
        assert table[100].recv(100) == b""
        with pytest.raises(BrokenPipeError):
            table[100].send(b"x")


def test_reset_by_a_peer_that_had_not_read(holders: Holders) -> None:
    a, b = socket.socketpair()
    a.send(b"never read")
    b.close()
    image, _ = capture([holders.start({100: a})])
    with pytest.raises(ConnectionResetError):
        a.recv(1)  # the look did not take it
    a.close()
    with rebuilt(image) as (table,):
        with pytest.raises(ConnectionResetError):
            table[100].recv(1)
        assert table[100].recv(1) == b""


def test_half_closed(holders: Holders) -> None:
    a, b = socket.socketpair()
    a.send(b"done")
    a.shutdown(socket.SHUT_WR)
    image, _ = capture([holders.start({100: a, 101: b})])
    close(a, b)
    with rebuilt(image) as (table,):
        assert [table[101].recv(10), table[101].recv(10)] == [b"done", b""]
        with pytest.raises(BrokenPipeError):
            table[100].send(b"x")
        table[101].send(b"answer")
        assert table[100].recv(10) == b"answer"


def test_accepted_connection_keeps_the_names(holders: Holders, tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "server.sock")
    os.mkdir(tmp_path / "deep")
    server, client = socket.socket(UNIX), socket.socket(UNIX)
    server.bind(path)
    server.listen(7)
    client.connect(path)
    accepted, _ = server.accept()
    client.send(b"question")
    pids = [holders.start({100: server, 101: accepted}), holders.start({105: client})]
    image, _ = capture(pids)
    close(server, accepted, client)
    holders.end()
    check(image)
    with rebuilt(image) as (first, second):
        assert first[101].getsockname() == path
        assert second[105].getpeername() == path
        assert second[105].getsockname() == ""
        assert first[101].recv(100) == b"question"
        first[101].send(b"answer")
        assert second[105].recv(100) == b"answer"
        with socket.socket(UNIX) as more:
            more.connect(path)
            another, _ = first[100].accept()
            another.close()


def test_connection_whose_listener_is_gone_leaves_no_trace(holders: Holders, tmp_path: Path) -> None:
    path = str(tmp_path / "gone" / "server.sock")
    os.mkdir(tmp_path / "gone")
    server, client = socket.socket(UNIX), socket.socket(UNIX)
    server.bind(path)
    server.listen()
    client.connect(path)
    accepted, _ = server.accept()
    server.close()
    os.unlink(path)
    os.rmdir(tmp_path / "gone")
    image, _ = capture([holders.start({100: accepted, 101: client})])
    close(accepted, client)
    holders.end()
    with rebuilt(image) as (table,):
        assert table[101].getpeername() == path
        table[101].send(b"x")
        assert table[100].recv(1) == b"x"
        assert not os.path.lexists(tmp_path / "gone")


def test_abstract_names(holders: Holders) -> None:
    name = b"\0orch-test-%d" % os.getpid()
    server, client = socket.socket(UNIX, SEQPACKET), socket.socket(UNIX, SEQPACKET)
    server.bind(name)
    server.listen()
    client.bind(name + b"-client")
    client.connect(name)
    accepted, _ = server.accept()
    client2 = socket.socket(UNIX, SEQPACKET)
    client2.connect(name)
    accepted2, _ = server.accept()
    image, _ = capture([holders.start({100: server, 101: accepted, 102: client, 103: client2, 104: accepted2})])
    close(client2, accepted2)
    with pytest.raises(ResourceTaken, match=r"orch-test-.* is taken by process"):
        check(image)
    close(server, accepted, client)
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        assert table[100].getsockname() == table[101].getsockname() == name
        assert table[101].getpeername() == name + b"-client"
        table[101].send(b"x")
        assert table[102].recv(1) == b"x"
        assert table[103].getpeername() == table[104].getsockname() == name


def test_listener_takes_its_file_back(holders: Holders, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    server = socket.socket(UNIX)
    server.bind(str(path))
    server.listen(3)
    path.chmod(0o620)
    os.chown(path, 12, 34)
    image, _ = capture([holders.start({100: server})])
    with pytest.raises(ResourceTaken, match=f"{path} is in use by process"):
        check(image)
    server.close()
    holders.end()
    for stale in (True, False):
        if not stale:
            path.unlink()
        check(image)
        with rebuilt(image) as (table,):
            status = path.stat()
            assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o620, 12, 34)
            with socket.socket(UNIX) as client:
                client.connect(str(path))
                table[100].accept()[0].close()
    path.unlink()
    path.write_text("a file of somebody else")
    with pytest.raises(ResourceTaken, match="another kind of file"):
        check(image)


def test_unlinked_relative_and_renamed_names(holders: Holders, tmp_path: Path) -> None:
    before = os.getcwd()
    unlinked, relative, renamed = socket.socket(UNIX), socket.socket(UNIX), socket.socket(UNIX)
    try:
        os.mkdir(tmp_path / "sub")
        os.chdir(tmp_path / "sub")
        unlinked.bind("../u/../u.sock" if os.path.isdir("../u") else "../u.sock")
        relative.bind("r.sock")
        renamed.bind(str(tmp_path / "old.sock"))
        os.unlink("../u.sock")
        os.rename(tmp_path / "old.sock", tmp_path / "new.sock")
    finally:
        os.chdir(before)
    for sock in (unlinked, relative, renamed):
        sock.listen()
    image, _ = capture([holders.start({100: unlinked, 101: relative, 102: renamed})])
    close(unlinked, relative, renamed)
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        assert table[100].getsockname() == "../u.sock"
        assert table[101].getsockname() == "r.sock"
        assert table[102].getsockname() == str(tmp_path / "old.sock")
        assert sorted(os.listdir(tmp_path)) == ["new.sock", "sub"]
        assert os.listdir(tmp_path / "sub") == ["r.sock"]
        for path, number in ((tmp_path / "new.sock", 102), (tmp_path / "sub" / "r.sock", 101)):
            with socket.socket(UNIX) as client:
                client.connect(str(path))
                table[number].accept()[0].close()


def test_connection_that_is_not_accepted_yet(holders: Holders, tmp_path: Path) -> None:
    path = str(tmp_path / "server.sock")
    server, client = socket.socket(UNIX), socket.socket(UNIX)
    server.bind(path)
    server.listen()
    client.connect(path)
    pids = [holders.start({101: client}), holders.start({100: server})]
    image, _ = capture(pids)
    client.send(b"data")
    assert "not accepted yet" in "".join(blockers(pids))
    close(server, client)
    holders.end()
    with rebuilt(image) as (first, second):
        accepted, _ = second[100].accept()
        first[101].send(b"hello")
        assert accepted.recv(10) == b"hello"
        assert first[101].getpeername() == path
        accepted.close()


def test_datagrams_keep_their_senders(holders: Holders, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("server", "known", "closed")]
    server, known, closed, nobody = (socket.socket(UNIX, DGRAM) for _ in range(4))
    for sock, path in zip((server, known, closed), paths, strict=True):
        sock.bind(path)
    known.connect(paths[0])
    known.send(b"from known")
    closed.sendto(b"from closed", paths[0])
    nobody.sendto(b"from nobody", paths[0])
    nobody.connect(paths[0])
    pids = [holders.start({100: known, 101: nobody}), holders.start({102: server})]
    close(closed)
    image, _ = capture(pids)
    close(server, known, nobody)
    holders.end()
    os.unlink(paths[2])
    with rebuilt(image) as (first, second):
        got = [second[102].recvfrom(100) for _ in range(3)]
        assert got == [(b"from known", paths[1]), (b"from closed", paths[2]), (b"from nobody", None)]
        assert first[101].getpeername() == first[100].getpeername() == paths[0]
        first[101].send(b"again")
        assert second[102].recv(10) == b"again"
        assert not os.path.lexists(paths[2])


def test_datagram_pairs_with_names(holders: Holders, tmp_path: Path) -> None:
    a, b = socket.socketpair(UNIX, DGRAM)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    b.send(b"this names the sender")
    autobound = b.getsockname()
    assert autobound
    c, d, e = (socket.socket(UNIX, DGRAM) for _ in range(3))
    for sock, name in ((c, "c"), (d, "d"), (e, "e")):
        sock.bind(str(tmp_path / name))
    c.connect(d.getsockname())
    d.connect(c.getsockname())
    d.send(b"to c")
    c.sendto(b"to e", e.getsockname())
    pids = [holders.start({100: a, 101: b, 102: c}), holders.start({103: d, 104: e})]
    image, scope = capture(pids)
    assert not scope.blockers.unsupported
    close(a, b, c, d, e)
    holders.end()
    with rebuilt(image) as (first, second):
        assert first[100].recvfrom(100) == (b"this names the sender", autobound)
        assert first[102].recvfrom(100) == (b"to c", str(tmp_path / "d"))
        assert second[104].recvfrom(100) == (b"to e", str(tmp_path / "c"))
        first[102].send(b"again")
        assert second[103].recv(10) == b"again"


def test_datagram_socket_whose_target_is_gone(holders: Holders) -> None:
    name = b"\0orch-test-lost-%d" % os.getpid()
    client, server = socket.socket(UNIX, DGRAM), socket.socket(UNIX, DGRAM)
    server.bind(name)
    client.connect(name)
    server.close()
    image, _ = capture([holders.start({100: client})])
    client.close()
    with rebuilt(image) as (table,):
        assert table[100].getpeername() == name
        with pytest.raises(ConnectionRefusedError):
            table[100].send(b"x")


def test_datagram_socket_connected_outside_by_name(holders: Holders, tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with socket.socket(UNIX, DGRAM) as log, socket.socket(UNIX, DGRAM) as client:
        log.bind(path)
        client.connect(path)
        image, scope = capture([holders.start({100: client})])
        assert not scope.blockers.outside
        with rebuilt(image) as (table,):
            table[100].send(b"entry")
            assert log.recv(10) == b"entry"


@pytest.mark.parametrize("style", [STREAM, SEQPACKET, DGRAM])
def test_descriptors_in_flight(holders: Holders, style: socket.SocketKind, tmp_path: Path) -> None:
    a, b = socket.socketpair(UNIX, style)
    inner, outer = socket.socketpair()
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(file, b"abc")
    read_end, write_end = os.pipe()
    a.send(b"plain")
    socket.send_fds(a, [b"two"], [inner.fileno(), file])
    socket.send_fds(a, [b"one"], [write_end])
    a.send(b"after")
    inner.close()
    image, scope = capture([holders.start({100: a, 101: b, 102: outer, 103: read_end})])
    assert not scope.blockers.unsupported
    close(a, b, outer)
    for fd in (file, read_end, write_end):
        os.close(fd)
    holders.end()
    with rebuilt(image, raw={103}) as (table,):
        if style == STREAM:
            assert socket.recv_fds(table[101], 2, 9)[:2] == (b"pl", [])
            data, fds, _, _ = socket.recv_fds(table[101], 100, 9)
            assert data == b"aintwo"
        else:
            assert table[101].recv(100) == b"plain"
            data, fds, _, _ = socket.recv_fds(table[101], 100, 9)
            assert data == b"two"
        with socket.socket(fileno=fds[0]) as came:
            came.send(b"through")
            assert table[102].recv(100) == b"through"
        assert os.lseek(fds[1], 0, os.SEEK_CUR) == 3
        os.close(fds[1])
        data, fds, _, _ = socket.recv_fds(table[101], 100, 9)
        assert (data, len(fds)) == (b"one", 1)
        os.write(fds[0], b"pipe")
        os.close(fds[0])
        assert table[101].recv(100) == b"after"


def test_a_socket_in_its_own_queue(holders: Holders) -> None:
    a, b = socket.socketpair()
    socket.send_fds(a, [b"x"], [b.fileno()])
    socket.send_fds(b, [b"y"], [b.fileno()])
    image, scope = capture([holders.start({100: a, 101: b})])
    assert not scope.blockers.unsupported
    assert len(image.files) == 2
    close(a, b)
    with rebuilt(image) as (table,):
        _, (fd,), _, _ = socket.recv_fds(table[101], 10, 5)
        assert os.fstat(fd).st_ino == os.fstat(table[101].fileno()).st_ino
        os.close(fd)


def test_senders_credentials(holders: Holders) -> None:
    a, b = socket.socketpair(UNIX, DGRAM)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    for uid, gid in ((0, 0), (1234, 5678)):
        a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, ucred.pack(os.getpid(), uid, gid))])
    image, _ = capture([holders.start({100: a, 101: b})])
    close(a, b)
    with rebuilt(image) as (table,):
        assert table[101].getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 1
        for want in ((0, 0), (1234, 5678)):
            _, [(_, _, raw)], _, _ = table[101].recvmsg(10, 100)
            assert ucred.unpack(raw)[1:] == want
        assert table[100].getsockname() == ""


def test_peer_credentials(holders: Holders, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o5 != 0o5:
            path = "\0orch-test-credentials"
    server, client = socket.socket(UNIX), socket.socket(UNIX)
    server.bind(path)
    if path[0] == "/":
        os.chmod(path, 0o777)
    with effective(11, 22):
        server.listen()
    with effective(33, 44):
        client.connect(path)
        a, b = socket.socketpair()
    accepted, _ = server.accept()
    image, _ = capture([holders.start({100: server, 101: client, 102: accepted, 103: a, 104: b})])
    close(server, client, accepted, a, b)
    holders.end()
    with rebuilt(image) as (table,):
        assert peer_ids(table[101]) == (11, 22)
        assert peer_ids(table[102]) == (33, 44)
        assert peer_ids(table[103]) == peer_ids(table[104]) == (33, 44)
        with socket.socket(UNIX) as more:
            more.connect(path)
            assert peer_ids(more) == (11, 22)


def test_other_end_outside_of_the_job(holders: Holders) -> None:
    a, b = socket.socketpair()
    pid = holders.start({100: a})
    inode = os.fstat(a.fileno()).st_ino
    a.close()
    outsider = holders.start({100: b})
    b.close()
    (reason,) = blockers([pid])
    assert reason.startswith(f"{pid} (holder): fd 100 (socket:[{inode}]): its other end")
    assert f"is held by {outsider} (" in reason
    assert "--external unix" in reason


def test_connections_with_the_outside_can_be_cut(holders: Holders, tmp_path: Path) -> None:
    path = str(tmp_path / "server")
    bus = str(tmp_path / "bus")
    server, client, waiting, outer, inner = (socket.socket(UNIX) for _ in range(5))
    for listener, name in ((server, path), (outer, bus)):
        listener.bind(name)
        listener.listen()
    client.connect(path)
    accepted, _ = server.accept()
    waiting.connect(path)
    inner.connect(bus)
    accepted_outside, _ = outer.accept()
    accepted_outside.send(b"from the bus")
    image, scope = capture([holders.start({100: server, 101: accepted, 102: inner})], externals=["unix"])
    assert not scope.blockers.outside
    close(server, client, accepted, waiting, outer, inner, accepted_outside)
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        assert table[101].recv(1) == b""
        assert table[101].getsockname() == path
        assert table[102].getpeername() == bus
        assert [table[102].recv(100), table[102].recv(100)] == [b"from the bus", b""]
        table[100].setblocking(False)
        with pytest.raises(BlockingIOError):
            table[100].accept()


def test_client_outside_of_the_job(holders: Holders) -> None:
    name = b"\0orch-test-outside-%d" % os.getpid()
    with socket.socket(UNIX) as server, socket.socket(UNIX) as client:
        server.bind(name)
        server.listen()
        client.connect(name)
        (reason,) = blockers([holders.start({100: server})])
        assert "outside of the job" in reason


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize(("before", "after"), [(b"abc", b"def"), (b"abc", b""), (b"", b"def"), (b"", b"")])
def test_out_of_band_data(holders: Holders, before: bytes, after: bytes, *, inline: bool) -> None:
    a, b = socket.socketpair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
    for data, flags in ((before, 0), (b"X", socket.MSG_OOB), (after, 0)):
        if data:
            a.send(data, flags)
    image, scope = capture([holders.start({100: a, 101: b})])
    assert not scope.blockers.unsupported

    def must_be_the_same(sock: socket.socket) -> None:
        sock.setblocking(False)
        if before:
            assert sock.recv(100) == before
        assert fcntl.ioctl(sock, 0x8905, bytes(4)) != bytes(4)
        if not inline:
            assert sock.recv(1, socket.MSG_OOB) == b"X"
        rest = (b"X" if inline else b"") + after
        if rest:
            assert b"".join(everything(sock)) == rest

    with rebuilt(image) as (table,):
        must_be_the_same(table[101])
    must_be_the_same(b)
    close(a, b)


def test_out_of_band_data_among_descriptors_is_refused(holders: Holders) -> None:
    a, b = socket.socketpair()
    socket.send_fds(a, [b"x"], [a.fileno()])
    a.send(b"x", socket.MSG_OOB)
    (reason,) = blockers([holders.start({100: a, 101: b})])
    close(a, b)
    assert "out-of-band" in reason


@pytest.mark.parametrize("style", [SEQPACKET, DGRAM])
def test_an_empty_message_that_was_looked_at_before(holders: Holders, style: socket.SocketKind) -> None:
    """The kernel shows it once only, so another checkpoint of a job that went on must not lose it."""
    a, b = socket.socketpair(UNIX, style)
    for message in (b"one", b"", b"x" * 70000, b""):
        a.send(message)
    pid = holders.start({100: a, 101: b})
    capture([pid])
    (reason,) = blockers([pid])
    close(a, b)
    assert "2 empty messages" in reason


@pytest.mark.parametrize("style", [SEQPACKET, DGRAM])
def test_what_is_not_empty_is_shown_as_often_as_it_is_asked_for(holders: Holders, style: socket.SocketKind) -> None:
    for sizes in ((1,), (3, 200, 576), (577, 4096, 30000), (65536, 100000), (150000,)):
        a, b = socket.socketpair(UNIX, style)
        a.setsockopt(socket.SOL_SOCKET, 32, 1 << 20)  # SO_SNDBUFFORCE
        for size in sizes:
            a.send(bytes(size))
        pid = holders.start({100: a, 101: b})
        capture([pid])
        image, _ = capture([pid])
        close(a, b)
        holders.end()
        with rebuilt(image) as (table,):
            assert [len(message) for message in everything(table[101])] == [*sizes]


def test_a_datagram_socket_with_several_that_are_connected_to_it(holders: Holders, tmp_path: Path) -> None:
    """One has called before the two others were connected to each other; nobody could afterwards."""
    early, one, two, chained = (socket.socket(UNIX, DGRAM) for _ in range(4))
    for sock, name in ((early, "early"), (one, "one"), (two, "two"), (chained, "chained")):
        sock.bind(str(tmp_path / name))
    chained.connect(early.getsockname())
    early.connect(one.getsockname())
    early.send(b"early")
    one.connect(two.getsockname())
    two.connect(one.getsockname())
    two.send(b"from two")
    image, scope = capture([holders.start({100: one, 101: chained, 102: two, 103: early})])
    assert not scope.blockers.unsupported
    close(early, one, two, chained)
    holders.end()
    with rebuilt(image) as (table,):
        assert [table[100].recvfrom(100) for _ in range(2)] == [
            (b"early", str(tmp_path / "early")),
            (b"from two", str(tmp_path / "two")),
        ]
        table[100].send(b"answer")
        assert table[102].recv(100) == b"answer"
        assert table[103].getpeername() == str(tmp_path / "one")
        assert table[101].getpeername() == str(tmp_path / "early")
        with pytest.raises(PermissionError):
            table[103].send(b"not any more")


@pytest.mark.parametrize("away", [True, False])
def test_a_datagram_socket_connected_to_a_nameless_one(holders: Holders, tmp_path: Path, *, away: bool) -> None:
    stays, leaves = socket.socketpair(UNIX, DGRAM)
    other = socket.socket(UNIX, DGRAM)
    other.bind(str(tmp_path / "other"))
    if away:
        leaves.connect(other.getsockname())
    else:
        disconnect(leaves)
        stays.send(b"still heard")
    image, scope = capture([holders.start({100: leaves, 101: other, 102: stays})])
    assert not scope.blockers.unsupported
    close(stays, leaves, other)
    holders.end()
    with rebuilt(image) as (table,):
        if away:
            table[100].send(b"elsewhere")
            assert table[101].recv(100) == b"elsewhere"
            with pytest.raises(PermissionError):
                table[102].send(b"x")
        else:
            assert table[100].recv(100) == b"still heard"
            table[102].send(b"again")
            assert table[100].recv(100) == b"again"


def disconnect(sock: socket.socket) -> None:
    address = struct.pack("=H", 0).ljust(16, b"\0")
    assert ctypes.CDLL(None).connect(sock.fileno(), address, 2) == 0


def test_clients_are_accepted_in_their_order(holders: Holders, tmp_path: Path) -> None:
    server = socket.socket(UNIX)
    server.bind(str(tmp_path / "server"))
    server.listen(8)
    clients = []
    for number in range(5):
        client = socket.socket(UNIX)
        client.bind(str(tmp_path / f"client{number}"))
        client.connect(server.getsockname())
        clients.append(client)
    backwards = dict(zip(range(104, 99, -1), clients, strict=True))
    image, scope = capture([holders.start({**backwards, 110: server})])
    assert not scope.blockers.unsupported
    close(server, *clients)
    holders.end()
    with rebuilt(image) as (table,):
        for number in range(5):
            accepted, peer = table[110].accept()
            accepted.close()
            assert peer == str(tmp_path / f"client{number}")


@pytest.mark.parametrize("address", ["r.sock", "a/../b/r.sock", "../r.sock", "/absolute/r.sock"])
def test_a_name_of_a_place_that_nobody_knows(holders: Holders, tmp_path: Path, address: str) -> None:
    """The file was moved to where its name tells nothing of where it was bound, and the place is gone."""
    before = os.getcwd()
    root = tmp_path / "root"
    for directory in ("root/start/a", "root/start/b", "now"):
        (tmp_path / directory).mkdir(parents=True)
    path = str(root) + address if address.startswith("/") else address
    server = socket.socket(UNIX)
    os.chdir(root / "start")
    try:
        if address.startswith("/"):
            (root / "absolute").mkdir()
        server.bind(path)
        os.rename(path, tmp_path / "now" / "here")
    finally:
        os.chdir(before)
    shutil.rmtree(root)
    server.listen()
    image, scope = capture([holders.start({100: server})])
    assert not scope.blockers.unsupported
    server.close()
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        assert table[100].getsockname() == path
        assert os.listdir(tmp_path / "now") == ["here"]
        assert os.listdir(tmp_path) == ["now"]
        with socket.socket(UNIX) as client:
            client.connect(str(tmp_path / "now" / "here"))
            table[100].accept()[0].close()


def test_options(holders: Holders) -> None:
    sock = socket.socket(UNIX, DGRAM)
    level = socket.SOL_SOCKET
    sock.setsockopt(level, socket.SO_SNDBUF, 20000)
    sock.setsockopt(level, socket.SO_PRIORITY, 5)
    sock.setsockopt(level, socket.SO_RCVTIMEO, struct.pack("=qq", 3, 500000))
    sock.setsockopt(level, socket.SO_LINGER, struct.pack("=ii", 1, 7))
    sock.setsockopt(level, socket.SO_PASSCRED, 1)
    os.fchown(sock.fileno(), 5, 6)
    image, _ = capture([holders.start({100: sock})])
    record = object_of(image, only_file(image))
    sock.close()
    holders.end()
    with rebuilt(image) as (table,):
        got = table[100]
        assert got.getsockopt(level, socket.SO_SNDBUF) == 40000
        assert got.getsockopt(level, 72) == 1
        assert got.getsockopt(level, socket.SO_PRIORITY) == 5
        assert struct.unpack("=qq", got.getsockopt(level, socket.SO_RCVTIMEO, 16)) == (3, 500000)
        assert struct.unpack("=ii", got.getsockopt(level, socket.SO_LINGER, 8)) == (1, 7)
        assert os.fstat(got.fileno()).st_uid == 5
        again, _ = capture([holders.start({100: got})])
        after = object_of(again, only_file(again))
    assert {**asdict(after), "ino": 0} == {**asdict(record), "ino": 0}


def test_classic_bpf_filter(holders: Holders) -> None:
    a, b = socket.socketpair(UNIX, DGRAM)
    # ldb [0]; jeq #'k', keep all; drop
    program = [(0x30, 0, 0, 0), (0x15, 0, 1, ord("k")), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)]
    raw = array.array("B", b"".join(struct.pack("=HBBI", *line) for line in program))
    b.setsockopt(socket.SOL_SOCKET, 26, struct.pack("=H6xQ", len(program), raw.buffer_info()[0]))
    b.setsockopt(socket.SOL_SOCKET, 44, 1)
    a.send(b"kept")
    image, _ = capture([holders.start({100: a, 101: b})])
    close(a, b)
    with rebuilt(image) as (table,):
        with contextlib.suppress(OSError):
            table[100].send(b"dropped")
        table[100].send(b"k2")
        assert everything(table[101]) == [b"kept", b"k2"]


def asdict(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}  # type: ignore[attr-defined]


def test_the_look_leaves_the_peek_offset_alone(holders: Holders) -> None:
    a, b = socket.socketpair()
    a.send(b"abcdef")
    b.setsockopt(socket.SOL_SOCKET, 42, 4)
    image, _ = capture([holders.start({100: a, 101: b})])
    assert b.recv(10, socket.MSG_PEEK) == b"ef"
    close(a, b)
    with rebuilt(image) as (table,):
        assert table[101].recv(10, socket.MSG_PEEK) == b"ef"
        assert table[101].recv(10) == b"abcdef"
