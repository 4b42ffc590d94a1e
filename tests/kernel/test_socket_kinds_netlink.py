"""Netlink sockets, carried from one process to another."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from harness.socket_transplant import Holders, blockers, capture, check, rebuilt
from orchestrator.errors import ResourceTaken

NETLINK_ROUTE, NETLINK_CONNECTOR, NETLINK_NETFILTER, SOL_NETLINK = 0, 11, 12, 270
RTM_GETLINK = 18
_nlmsghdr = struct.Struct("=IHHII")

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def holders() -> Iterator[Holders]:
    made = Holders()
    yield made
    made.end()


def ask(sock: socket.socket) -> int:
    """Dump the links; return the port that the first answer is for."""
    sock.send(_nlmsghdr.pack(32, RTM_GETLINK, 0x301, 7, 0) + bytes(16))
    answer = sock.recv(1 << 16)
    port: int = _nlmsghdr.unpack_from(answer)[4]
    return port


def test_route_socket(holders: Holders) -> None:
    sock, fresh = (socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) for _ in range(2))
    sock.bind((123456, 0b101))
    sock.setsockopt(SOL_NETLINK, 1, 33)
    sock.setsockopt(SOL_NETLINK, 11, 1)
    image, scope = capture([holders.start({100: sock, 101: fresh})])
    assert not scope.blockers.unsupported
    assert image.files[0].body.groups == [1, 3, 33]  # type: ignore[union-attr]
    with pytest.raises(ResourceTaken, match="netlink port 123456"):
        check(image)
    sock.close()
    fresh.close()
    holders.end()
    check(image)
    with rebuilt(image) as (table,):
        assert table[100].getsockname() == (123456, 0b101)
        assert table[100].getsockopt(SOL_NETLINK, 11) == 1
        assert table[100].getsockopt(SOL_NETLINK, 9, 8) == struct.pack("=II", 0b101, 1)
        assert ask(table[100]) == 123456
        assert table[101].getsockname() == (0, 0)


def test_waiting_messages_are_refused(holders: Holders) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as sock:
        sock.send(_nlmsghdr.pack(32, RTM_GETLINK, 0x301, 7, 0) + bytes(16))
        assert "not received yet" in blockers([holders.start({100: sock})])[0]


def test_messages_may_be_done_without(holders: Holders) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as sock:
        sock.send(_nlmsghdr.pack(32, RTM_GETLINK, 0x301, 7, 0) + bytes(16))
        image, scope = capture([holders.start({100: sock})], externals=["packets"])
        assert not scope.blockers.unsupported
    holders.end()
    with rebuilt(image) as (table,):
        table[100].setblocking(False)
        with pytest.raises(BlockingIOError):
            table[100].recv(1)


def test_netfilter_socket(holders: Holders) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.bind((0, 0))
        sock.setsockopt(SOL_NETLINK, 1, 7)
        image, scope = capture([holders.start({100: sock})])
        assert not scope.blockers.unsupported
    holders.end()
    with rebuilt(image) as (table,):
        assert table[100].getsockopt(SOL_NETLINK, 9, 4) == struct.pack("=I", 1 << 6)


def test_netfilter_queue_is_refused(holders: Holders) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        # NFQNL_MSG_CONFIG for queue 54321: NFQA_CFG_CMD, bind
        body = struct.pack("!BBH", 0, 0, 54321) + struct.pack("=HH", 8, 1) + struct.pack("!BBH", 1, 0, 0)
        sock.send(_nlmsghdr.pack(16 + len(body), 3 << 8 | 2, 5, 1, 0) + body)
        answer = sock.recv(1 << 16)
        if struct.unpack_from("=i", answer, 16)[0]:
            pytest.skip("this kernel has no queues for packets")
        assert "the packet filter sends it packets" in blockers([holders.start({100: sock})])[0]


def test_other_protocols_are_refused(holders: Holders) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_CONNECTOR) as sock:
        assert "protocol 11" in blockers([holders.start({100: sock})])[0]
