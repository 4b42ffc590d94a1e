"""What sockets are written down as, and the tapes that come of it: no kernel needed."""

from __future__ import annotations

import socket
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.kind import Depot, OpenFile
from orchestrator.kinds.files.slots import Slots
from orchestrator.kinds.sockets.inet_address import InetAddress, parse_address
from orchestrator.kinds.sockets.netlink import parse_groups
from orchestrator.kinds.sockets.option_table import OPTIONS
from orchestrator.kinds.sockets.options import Option, SocketOptions
from orchestrator.kinds.sockets.registry import SOCKET_KINDS, SocketBody, SocketObject, claims_in
from orchestrator.kinds.sockets.tcp import TcpSocket, rebuild_tcp
from orchestrator.kinds.sockets.tcp_repair import RepairWindow, TcpState, mirrored
from orchestrator.kinds.sockets.udp_queue import Datagram, checksum, packet
from orchestrator.kinds.sockets.unix_alone import rebuild_alone
from orchestrator.kinds.sockets.unix_name import UnixName, shown_address, sockaddr_un
from orchestrator.kinds.sockets.unix_pair import connect_pair, rebuild_pair
from orchestrator.kinds.sockets.unix_queue import Credentials, Message
from orchestrator.kinds.sockets.unix_records import UnixAlone, UnixEnd, UnixPair, UnixPairEnd, UnixSocket
from orchestrator.tape.build import Tape

PLAIN = SocketOptions(212992, 212992, 0, [])


def end(**more: Any) -> UnixEnd:
    return msgspec.structs.replace(UnixEnd(7, b"", 0, [], PLAIN, (0, 0), None), **more)


def depot(bodies: list[Any], objects: list[Any]) -> Depot:
    files = {ObjectId(number): OpenFile(ObjectId(number), 2, 0, body) for number, body in enumerate(bodies)}
    return Depot(Tape("depot"), Slots(files, (), lowest=99), DepotFd(90), 0, files, objects)


def entries(of: Depot) -> list[str]:
    return list(of.tape.entries())


def test_every_record_can_be_told_by_its_tag() -> None:
    for union in (SocketBody, SocketObject):
        tags = [msgspec.inspect.type_info(kind).tag for kind in union.__args__]  # type: ignore[attr-defined]
        assert len(set(tags)) == len(tags)
    assert {kind.record for kind in SOCKET_KINDS} >= set(SocketBody.__args__)
    assert {made for kind in SOCKET_KINDS for made in kind.objects} == set(SocketObject.__args__)


def test_option_table() -> None:
    assert len({(row.level, row.number) for row in OPTIONS}) == len(OPTIONS)
    by_name = {row.name: row for row in OPTIONS}
    assert len(by_name) == len(OPTIONS)
    assert by_name["SO_PEEK_OFF"].fresh == b"\xff\xff\xff\xff"
    assert by_name["SO_LINGER"].fresh == bytes(8)
    assert by_name["TCP_KEEPIDLE"].fresh == (7200).to_bytes(4, "little")
    for name in ("SO_REUSEADDR", "SO_KEEPALIVE", "SO_PRIORITY", "TCP_NODELAY", "IP_TOS"):
        number = getattr(socket, name)
        assert by_name[name].number == number


@pytest.mark.parametrize(
    ("address", "shown"), [(b"/run/x", "/run/x"), (b"\0name", "@name"), (b"\0\xff\0", "@\\xff\0"), (b"r", "r")]
)
def test_unix_addresses(address: bytes, shown: str) -> None:
    assert sockaddr_un(address) == b"\1\0" + address
    assert shown_address(address) == shown


def test_inet_addresses() -> None:
    assert InetAddress("127.0.0.1", 80).pack(socket.AF_INET) == b"\2\0\0P\x7f\0\0\1" + bytes(8)
    packed = InetAddress("fe80::1", 443, 0, 3).pack(socket.AF_INET6)
    assert packed == b"\n\0\1\xbb" + bytes(4) + b"\xfe\x80" + bytes(13) + b"\1" + b"\3\0\0\0"
    assert parse_address(("fe80::1%eth0", 443, 0, 3)) == InetAddress("fe80::1", 443, 0, 3)
    assert str(InetAddress("::1", 5)) == "[::1]:5"


@given(st.sets(st.integers(1, 200)))
def test_netlink_groups(groups: set[int]) -> None:
    mask = sum(1 << group - 1 for group in groups).to_bytes(28, "little")
    assert parse_groups(mask) == sorted(groups)


@given(st.binary(max_size=2000))
def test_checksum_makes_the_whole_sum_up(content: bytes) -> None:
    content += bytes(len(content) & 1)
    value = checksum(content)
    assert 0 < value <= 0xFFFF
    assert checksum(content + value.to_bytes(2, "big")) == 0xFFFF


def test_packets() -> None:
    local = InetAddress("0.0.0.0", 53)
    family, content, target = packet(Datagram(b"abc", InetAddress("192.0.2.1", 9), ""), local)
    assert (family, target) == (socket.AF_INET, "127.0.0.1")
    assert content[12:20] == socket.inet_aton("192.0.2.1") + socket.inet_aton("127.0.0.1")
    assert content[20:] == b"\0\x09\0\x35\0\x0b\0\0abc"
    family, content, target = packet(Datagram(b"", InetAddress("::ffff:10.0.0.1", 9), "::ffff:10.0.0.2"), local)
    assert (family, target) == (socket.AF_INET, "10.0.0.2")
    family, content, target = packet(Datagram(b"abc", InetAddress("2001:db8::1", 9), "2001:db8::2"), local)
    assert (family, target, len(content)) == (socket.AF_INET6, "2001:db8::2", 40 + 8 + 3)


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.binary(max_size=50), st.binary(max_size=50))
def test_mirrored_ends_fit(send_seq: int, receive_seq: int, sending: bytes, received: bytes) -> None:
    window = RepairWindow(receive_seq, 1000, 2000, 3000, receive_seq)
    state = TcpState(send_seq, receive_seq, sending, 0, received, 1460, 7, 9, True, True, 5, window)
    other = mirrored(state)
    assert other.receive_seq == state.send_seq
    assert other.send_seq == (receive_seq + len(received)) % (1 << 32)
    assert (other.send_scale, other.receive_scale) == (9, 7)
    assert other.window.max_window >= other.window.snd_wnd  # or the kernel refuses it


def test_tcp_listener_tape() -> None:
    options = SocketOptions(16384, 131072, 2, [Option(1, 2, b"\1\0\0\0")])
    body = TcpSocket(9, socket.AF_INET, InetAddress("127.0.0.1", 80), 5, "cubic", options, (0, 0))
    made = depot([body], [])
    made.tape.label = "x"
    rebuild_tcp(made.files[ObjectId(0)], made)
    assert entries(made) == [
        "socket(2, 0x80001, 6)",
        'setsockopt(0, 1, 2, "\\x01\\x00\\x00\\x00", 4)',
        'setsockopt(0, 6, 13, "cubic", 5)',
        'setsockopt(0, 1, 32, "\\x00 \\x00\\x00", 4)',
        'setsockopt(0, 1, 33, "\\x00\\x00\\x01\\x00", 4)',
        'setsockopt(0, 1, 72, "\\x02\\x00\\x00\\x00", 4)',
        'bind(0, "\\x02\\x00\\x00P\\x7f\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00", 16)',
        "listen(0, 5)",
        "dup3(0, 100, O_CLOEXEC)",
        "close(0)",
    ]


def test_pair_is_made_once_and_filled_when_all_is_open() -> None:
    pair = UnixPair(socket.SOCK_STREAM, (end(queue=[Message(b"to first")]), end(shutdown=2)))
    made = depot([UnixPairEnd(ObjectId(0), 1), UnixPairEnd(ObjectId(0), 0)], [pair])
    for file in made.files.values():
        rebuild_pair(file, made)
    assert entries(made)[0].startswith("socketpair(1, 0x80001, 0, ")
    assert sorted(entries(made)[1:]) == [
        "close(0)",
        "close(1)",
        "dup3(0, 101, O_CLOEXEC)",
        "dup3(1, 100, O_CLOEXEC)",
    ]
    before = len(entries(made))
    for file in made.files.values():
        connect_pair(file, made)
    after = [entry for entry in entries(made)[before:] if not entry.startswith("setsockopt")]
    assert after == ['sendto(100, "to first", 8, 0x4040, NULL, 0)', "shutdown(100, 1)"]


def test_makers_pid_comes_from_a_child_of_the_depot() -> None:
    pair = UnixPair(socket.SOCK_STREAM, (end(peer=Credentials(4711, 5, 6)), end(peer=Credentials(4711, 5, 6))))
    made = depot([UnixPairEnd(ObjectId(0), 0), UnixPairEnd(ObjectId(0), 1)], [pair])
    rebuild_pair(made.files[ObjectId(0)], made)
    names = [entry.partition("(")[0] for entry in entries(made)]
    assert names[:8] == [
        "clone3", "setresgid", "setresuid", "socketpair", "setresuid", "setresgid", "kill", "wait4",
    ]  # fmt: skip
    assert entries(made)[6] == "kill(4711, SIGKILL)"


def test_listener_in_a_changed_root_is_bound_there() -> None:
    name = UnixName(b"/run/s", "/jail/run/s", "/jail", False, 0o600, 1, 2, 3, 4)
    record = UnixSocket(5, socket.SOCK_STREAM, name, 0, [], PLAIN, (0, 0), backlog=3)
    made = depot([UnixAlone(ObjectId(0), socket.SOCK_STREAM, name)], [record])
    rebuild_alone(made.files[ObjectId(0)], made)
    calls = entries(made)
    start = calls.index('chroot("/jail")')
    assert [call.partition("(")[0] for call in calls[start : start + 8]] == [
        "chroot", "unlinkat", "bind", "fchownat", "fchmodat", "fchdir", "chroot", "fchdir",
    ]  # fmt: skip


def test_where_claims_are_made() -> None:
    in_file = UnixName(b"/run/s", "/run/s")
    assert claims_in(UnixAlone(ObjectId(0), 1, in_file)) == "mnt"
    assert claims_in(UnixAlone(ObjectId(0), 1, UnixName(b"\0x"))) == "net"
    assert claims_in(UnixAlone(ObjectId(0), 1, None)) == ""
    assert claims_in(UnixPairEnd(ObjectId(0), 1)) == ""
    assert claims_in(TcpSocket(9, 2, None, -1, "cubic", PLAIN, (0, 0))) == "net"
