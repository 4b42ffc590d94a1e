"""Netlink sockets, carried from one process to another."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from harness.socket_transplant import Holders, blockers, capture, check, rebuilt
from orchestrator.errors import ResourceTaken

NETLINK_ROUTE, NETLINK_NETFILTER, SOL_NETLINK = 0, 12, 270
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


def test_other_protocols_are_refused(holders: Holders) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        assert "protocol 12" in blockers([holders.start({100: sock})])[0]
