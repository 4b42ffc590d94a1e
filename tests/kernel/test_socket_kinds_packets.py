"""Raw, ping and packet sockets, multicast and the rarer states of UDP, carried from one process to another."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.socket_transplant import Holders, Image, blockers, capture, check, rebuilt
from harness.two_networks import two_networks
from orchestrator.errors import CannotHonour
from orchestrator.kinds.sockets.memberships import Membership, parse_igmp, parse_igmp6

SOL_IP, SOL_IPV6, SOL_UDP, SOL_ICMPV6, SOL_RAW, SOL_PACKET = 0, 41, 17, 58, 255, 263
UDP_CORK, UDPLITE_SEND_CSCOV = 1, 10
ETH_P_IP = 0x0800

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def holders() -> Iterator[Holders]:
    with two_networks():
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 100000")
        made = Holders()
        yield made
        made.end()


def close(*sockets: socket.socket) -> None:
    for sock in sockets:
        sock.close()


def ready(sock: socket.socket, events: int) -> int:
    poll = select.poll()
    poll.register(sock, events)
    return sum(event for _, event in poll.poll(0))


def test_raw_sockets(holders: Holders) -> None:
    icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    icmp.setsockopt(SOL_RAW, 1, struct.pack("=I", 1 << 8))
    icmp.bind(("127.0.0.1", 0))
    icmp.connect(("127.0.0.2", 0))
    own = socket.socket(socket.AF_INET, socket.SOCK_RAW, 200)
    own.setsockopt(SOL_IP, 3, 1)
    six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    six.setsockopt(SOL_ICMPV6, 1, struct.pack("=8I", *[0xFFFFFFFF] * 8))
    checksummed = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 200)
    checksummed.setsockopt(SOL_RAW, 7, 4)
    image, scope = capture([holders.start(dict(enumerate((icmp, own, six, checksummed), start=100)))])
    assert not scope.blockers.unsupported
    close(icmp, own, six, checksummed)
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        assert table[100].getsockname()[0] == "127.0.0.1"
        assert table[100].getsockopt(SOL_RAW, 1) == 1 << 8
        # connected: it hears nobody else, and sends without an address
        table[100].send(struct.pack("!BBHHH", 8, 0, 0xF7FF, 0, 0))
        assert table[100].recv(100)[12:16] == socket.inet_aton("127.0.0.2")
        assert table[101].getsockopt(SOL_IP, 3) == 1
        assert table[102].getsockopt(SOL_ICMPV6, 1, 32) == struct.pack("=8I", *[0xFFFFFFFF] * 8)
        assert table[103].getsockopt(SOL_RAW, 7) == 4


def test_packets_that_wait_are_refused_or_done_without(holders: Holders) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 201) as raw:
        raw.sendto(b"to myself", ("127.0.0.1", 0))
        pid = holders.start({100: raw})
        (reason,) = blockers([pid])
        assert "packets wait in it that were not received yet" in reason
        image, scope = capture([pid], externals=["packets"])
        assert not scope.blockers.unsupported
    holders.end()
    with rebuilt(image) as (table,):
        assert not ready(table[100], select.POLLIN)


def test_ping_sockets(holders: Holders) -> None:
    ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    ping.bind(("127.0.0.1", 4711))
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
    six.connect(("::1", 0))
    port = six.getsockname()[1]
    image, scope = capture([holders.start({100: ping, 101: six})])
    assert not scope.blockers.unsupported
    close(ping, six)
    holders.end()
    with rebuilt(image) as (table,):
        assert table[100].getsockname() == ("127.0.0.1", 4711)
        table[100].sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"hello", ("127.0.0.1", 0))
        assert table[100].recv(100)[8:] == b"hello"
        assert table[101].getsockname()[1] == port
        table[101].send(struct.pack("!BBHHH", 128, 0, 0, 0, 1) + b"hello")
        assert table[101].recv(100)[8:] == b"hello"


def test_packet_sockets(holders: Holders) -> None:
    cable = socket.if_nametoindex("cable")
    heard, silent = (socket.socket(socket.AF_PACKET, style, 0) for style in (socket.SOCK_RAW, socket.SOCK_DGRAM))
    heard.setsockopt(SOL_PACKET, 8, 1)
    heard.bind(("cable", ETH_P_IP))
    for _ in range(2):
        heard.setsockopt(SOL_PACKET, 1, struct.pack("=iHH8s", cable, 0, 6, b"\x01\x02\x03\x04\x05\x06"))
    heard.setsockopt(SOL_PACKET, 18, 77 | 0 << 16)
    image, scope = capture([holders.start({100: heard, 101: silent})])
    assert not scope.blockers.unsupported
    close(heard, silent)
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        again = table[100]
        assert again.getsockname()[:2] == ("cable", ETH_P_IP)
        assert again.getsockopt(SOL_PACKET, 8) == 1
        assert again.getsockopt(SOL_PACKET, 18) == 77
        same, _ = capture([holders.start({100: again, 101: table[101]})])
        bodies = [
            [(*body.memberships, body.fanout, body.interface) for body in bodies_of(one)] for one in (image, same)
        ]
        assert bodies[0] == bodies[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"heard?", ("10.77.0.2", 9))
        if ready(again, select.POLLIN):  # not before a neighbour is known
            assert again.recv(100)
    os.system("ip link set cable name wire")
    with pytest.raises(CannotHonour, match=r"interface \d+ \(cable\), which this machine calls"):
        check(image)


def bodies_of(image: Image) -> list[Any]:
    return [file.body for file in image.files]


def test_packet_sockets_that_are_refused(holders: Holders) -> None:
    ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    ring.setsockopt(SOL_PACKET, 5, struct.pack("=4I", 4096, 1, 2048, 2))
    ring.bind(("lo", ETH_P_IP))
    full = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
    full.bind(("lo", ETH_P_IP))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", 9))
    with mmap.mmap(ring.fileno(), 4096) as frames:
        assert frames[0]
        frames[0:8] = frames[2048:2056] = bytes(8)  # taken, both that go out and that come in
    reasons = blockers([holders.start({100: ring, 101: full})])
    close(ring, full)
    assert "packets have gone through its ring" in reasons[0]
    assert "packets wait in it that were not received yet" in reasons[1]


def test_multicast_memberships(holders: Holders) -> None:
    lo, cable = socket.if_nametoindex("lo"), socket.if_nametoindex("cable")
    four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    four.bind(("0.0.0.0", 0))

    def group(interface: int, host: str, *sources: str) -> bytes:
        return struct.pack("=I4x", interface) + b"".join(storage(one) for one in (host, *sources))

    four.setsockopt(SOL_IP, 42, group(cable, "239.1.2.3"))
    four.setsockopt(SOL_IP, 46, group(cable, "239.1.2.4", "10.77.0.9"))
    four.setsockopt(SOL_IP, 42, group(lo, "239.1.2.5"))
    four.setsockopt(SOL_IP, 43, group(lo, "239.1.2.5", "10.77.0.8"))
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.setsockopt(SOL_IPV6, 42, group(cable, "ff05::77"))
    six.setsockopt(SOL_IP, 42, group(cable, "239.1.2.3"))
    image, scope = capture([holders.start({100: four, 101: six})])
    assert not scope.blockers.unsupported
    wanted = [
        {
            Membership("239.1.2.3", cable, "cable", False),
            Membership("239.1.2.4", cable, "cable", True, ("10.77.0.9",)),
            Membership("239.1.2.5", lo, "lo", False, ("10.77.0.8",)),
        },
        {Membership("ff05::77", cable, "cable", False), Membership("239.1.2.3", cable, "cable", False)},
    ]
    assert [set(body.memberships) for body in bodies_of(image)] == wanted
    close(four, six)
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        same, _ = capture([holders.start({100: table[100], 101: table[101]})])
        assert [set(body.memberships) for body in bodies_of(same)] == wanted
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(SOL_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", cable))
            sender.sendto(b"to the group", ("239.1.2.3", table[100].getsockname()[1]))
            assert table[100].recv(100) == b"to the group"


def storage(host: str) -> bytes:
    if ":" in host:
        return struct.pack("=HHI16sI", 10, 0, 0, socket.inet_pton(10, host), 0).ljust(128, b"\0")
    return struct.pack("=HH4s", 2, 0, socket.inet_aton(host)).ljust(128, b"\0")


def test_lists_of_groups() -> None:
    text = (
        "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"
        "1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n"
        "4\teth0      :     2      V3\n\t\t\t\t030201EF     1 0:00000000\t\t0\n\t\t\t\t010000E0     2 0:00000000\t\t0\n"
    )
    assert parse_igmp(text) == [(4, "eth0", "239.1.2.3"), (4, "eth0", "224.0.0.1")]
    text = (
        "1    lo              ff020000000000000000000000000001     1 0000000C 0\n"
        "4    eth0            ff050000000000000000000000000077     1 00000004 0\n"
    )
    assert parse_igmp6(text) == [(4, "eth0", "ff05::77")]


def test_datagrams_that_wait_at_an_interface(holders: Holders) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    server.bind(("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"waits", server.getsockname())
        name = client.getsockname()[1]
    image, scope = capture([holders.start({100: server})])
    assert not scope.blockers.unsupported
    server.close()
    holders.end()
    with rebuilt(image) as (table,):
        assert table[100].recvfrom(10) == (b"waits", ("127.0.0.1", name))
        assert table[100].getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b"lo\0"


def test_datagrams_to_many_are_refused(holders: Holders) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("239.1.2.3", 0))
    cable = socket.if_nametoindex("cable")
    server.setsockopt(
        SOL_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4si", socket.inet_aton("239.1.2.3"), b"", cable)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(SOL_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", cable))
        client.sendto(b"x", server.getsockname())
    (reason,) = blockers([holders.start({100: server})])
    server.close()
    assert "datagrams wait in it that were sent to many" in reason


def test_corked_data_is_refused(holders: Holders) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as corked, socket.socket(socket.AF_INET, 2) as more:
        corked.setsockopt(SOL_UDP, UDP_CORK, 1)
        corked.connect(("127.0.0.1", 9))
        corked.send(b"x")
        more.sendto(b"x", socket.MSG_MORE, ("127.0.0.1", 9))
        reasons = blockers([holders.start({100: corked, 101: more})])
    assert len(reasons) == 2
    assert all("waits to be sent with what follows (UDP_CORK, MSG_MORE)" in reason for reason in reasons)


def test_shut_down_udp(holders: Holders) -> None:
    sockets = []
    for how in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", 9))
        sock.shutdown(how)
        sockets.append(sock)
    image, scope = capture([holders.start(dict(enumerate(sockets, start=100)))])
    assert not scope.blockers.unsupported
    close(*sockets)
    holders.end()
    with rebuilt(image) as (table,):
        assert ready(table[100], select.POLLRDHUP) == select.POLLRDHUP
        assert ready(table[101], select.POLLRDHUP) == 0
        with pytest.raises(BrokenPipeError):
            table[101].send(b"x")
        assert ready(table[102], select.POLLRDHUP) == select.POLLRDHUP | select.POLLHUP


def test_udp_lite(holders: Holders) -> None:
    try:
        server, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE) for _ in range(2))
    except OSError:
        pytest.skip("this kernel has no UDP-Lite")
    server.bind(("127.0.0.1", 0))
    client.setsockopt(136, UDPLITE_SEND_CSCOV, 8)
    client.sendto(b"waits", server.getsockname())
    names = server.getsockname(), ("127.0.0.1", client.getsockname()[1])
    image, scope = capture([holders.start({100: server, 101: client})])
    assert not scope.blockers.unsupported
    close(server, client)
    holders.end()
    with rebuilt(image) as (table,):
        assert table[100].recvfrom(10) == (b"waits", names[1])
        assert table[101].getsockopt(136, UDPLITE_SEND_CSCOV) == 8
        table[101].sendto(b"more", names[0])
        assert table[100].recv(10) == b"more"


def test_sockets_of_other_kinds_are_refused_by_name(holders: Holders) -> None:
    kinds = {
        "AF_VSOCK": (40, 1, 0),
        "AF_XDP": (44, 3, 0),
        "AF_ALG": (38, 5, 0),
        "AF_CAN": (29, 3, 1),
        "AF_KEY": (15, 3, 2),
        "AF_KCM": (41, 5, 0),
        "AF_SMC": (43, 1, 0),
        "AF_TIPC": (30, 5, 0),
        "AF_RXRPC": (33, 2, 2),
        "AF_BLUETOOTH": (31, 3, 1),
        "SCTP": (2, 1, 132),
    }
    made = {}
    with contextlib.ExitStack() as stack:
        for name, arguments in kinds.items():
            with contextlib.suppress(OSError):
                made[name] = stack.enter_context(socket.socket(*arguments))
        pid = holders.start(dict(enumerate(made.values(), start=100)))
        reasons = blockers([pid])
    for name, reason in zip(made, reasons, strict=True):
        assert name in reason
        assert "sockets cannot be rebuilt" in reason


def test_what_raw_sockets_do_beside_hearing_is_refused(holders: Holders) -> None:
    router = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
    alerted = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    alerted.setsockopt(SOL_IPV6, 22, 5)
    assert not any("multicast" in reason for reason in blockers([holders.start({100: router})]))
    try:
        router.setsockopt(SOL_IP, 200, 1)
    except OSError:
        pytest.skip("this kernel routes no multicast")
    reasons = blockers([holders.start({100: router, 101: alerted})])
    close(router, alerted)
    assert "multicast is routed here" in reasons[0]
    assert "IPV6_ROUTER_ALERT" in reasons[1]
