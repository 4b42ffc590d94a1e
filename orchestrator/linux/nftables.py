"""nf_tables: drop the packets of chosen TCP connections, in the network namespace that the caller is in. See nft(8)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from orchestrator.linux.netlink import NETLINK_NETFILTER

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWSETELEM = 0, 2, 3, 6, 9, 12
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_APPEND = 0x1, 0x4, 0x400, 0x800
_NLMSG_ERROR = 2
_NFPROTO_INET, _NFPROTO_IPV4, _NFPROTO_IPV6 = 1, 2, 10
_TABLE_OWNER = 2
_NESTED = 0x8000
_HOOKS = {"input": 1, "output": 3}
_PRIORITY = -400  # before connection tracking may look at a packet
_META_NFPROTO, _META_L4PROTO = 15, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_REG_VERDICT, _REG_1, _REG32_00 = 0, 1, 8
_DROP = 0
_ELEMENTS_A_MESSAGE = 400
_RECEIVE_BYTES = 1 << 16
_nlmsghdr = struct.Struct("=IHHII")
_nfgenmsg = struct.Struct("!BBH")
_nlattr = struct.Struct("=HH")
assert _nlmsghdr.size == 16


class Flow(NamedTuple):
    """Packets in one direction of a connection."""

    source: tuple[str, int]
    """Host and port."""
    target: tuple[str, int]

    @property
    def is_v6(self) -> bool:
        return ":" in self.source[0]

    def key(self) -> bytes:
        """Return source, target and ports, as they stand in a packet's headers."""
        family = socket.AF_INET6 if self.is_v6 else socket.AF_INET
        hosts = socket.inet_pton(family, self.source[0]) + socket.inet_pton(family, self.target[0])
        return hosts + struct.pack("!HH", self.source[1], self.target[1])


class Nftables:
    """A netlink socket to nf_tables. What was made with ``owned`` is gone when it is closed."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def detach(self) -> int:
        """Give the socket away as a descriptor, which keeps what is owned."""
        return self._socket.detach()

    def drop(self, table: str, flows: Iterable[Flow], *, owned: bool) -> None:
        """Make a table that drops all packets of these flows, coming and going, all at once."""
        name = _text(1, table)
        messages = [(_NEWTABLE, name + _number(2, _TABLE_OWNER if owned else 0))]
        flows = list(flows)
        for six in (False, True):
            keys = [flow.key() for flow in flows if flow.is_v6 is six]
            if keys:
                messages += _set_of(table, "flows6" if six else "flows4", keys)
        for chain, hook in _HOOKS.items():
            where = _nest(4, _number(1, hook) + _signed(2, _PRIORITY))
            messages.append((_NEWCHAIN, name + _text(3, chain) + where + _text(7, "filter")))
            for six in (False, True):
                if any(flow.is_v6 is six for flow in flows):
                    messages.append((_NEWRULE, name + _text(2, chain) + _nest(4, _rule(six))))
        self._batch(messages)

    def remove(self, table: str) -> bool:
        """Remove a table with all in it; tell whether there was one."""
        try:
            self._batch([(_DELTABLE, _text(1, table))])
        except FileNotFoundError:
            return False
        return True

    def _batch(self, messages: Sequence[tuple[int, bytes]]) -> None:
        """Send messages that take effect together or not at all. Raises OSError."""
        content = self._message(_BATCH_BEGIN, 0, _nfgenmsg.pack(0, 0, _SUBSYSTEM))
        first = self._sequence + 1
        for kind, body in messages:
            flags = _NLM_F_ACK | (0 if kind == _DELTABLE else _NLM_F_CREATE | _NLM_F_APPEND)
            header = _nfgenmsg.pack(_NFPROTO_INET, 0, 0)
            content += self._message(_SUBSYSTEM << 8 | kind, flags, header + body)
        last = self._sequence
        content += self._message(_BATCH_END, 0, _nfgenmsg.pack(0, 0, _SUBSYSTEM))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(content) * 2 + _RECEIVE_BYTES)
        self._socket.sendto(content, (0, 0))
        answered = first - 1
        while answered < last:
            data = self._socket.recv(_RECEIVE_BYTES)
            at = 0
            while at < len(data):
                length, kind, _, sequence, _ = _nlmsghdr.unpack_from(data, at)
                if kind == _NLMSG_ERROR and sequence >= first - 1:
                    code = -struct.unpack_from("=i", data, at + _nlmsghdr.size)[0]
                    if code:
                        raise OSError(code, f"nf_tables: {os.strerror(code)}")
                    answered = max(answered, sequence)
                at += length + 3 & ~3

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return _nlmsghdr.pack(_nlmsghdr.size + len(body), kind, _NLM_F_REQUEST | flags, self._sequence, 0) + body


def _set_of(table: str, name: str, keys: Sequence[bytes]) -> list[tuple[int, bytes]]:
    number = len(keys[0])  # any that differs between the two sets
    made = _text(1, table) + _text(2, name) + _number(3, 0) + _number(4, 0) + _number(5, number) + _number(10, number)
    messages = [(_NEWSET, made)]
    for start in range(0, len(keys), _ELEMENTS_A_MESSAGE):
        part = keys[start : start + _ELEMENTS_A_MESSAGE]
        elements = b"".join(_nest(1, _nest(1, _attribute(1, key))) for key in part)
        messages.append((_NEWSETELEM, _text(1, table) + _text(2, name) + _number(4, number) + _nest(3, elements)))
    return messages


def _rule(six: bool) -> bytes:
    """Write the expressions: a TCP packet whose addresses and ports are in the set is dropped."""
    at, size = (8, 32) if six else (12, 8)
    ports = _REG32_00 + size // 4
    family = _NFPROTO_IPV6 if six else _NFPROTO_IPV4
    return b"".join(
        (
            _meta_is(_META_NFPROTO, family),
            _meta_is(_META_L4PROTO, socket.IPPROTO_TCP),
            _expression("payload", _payload(_REG32_00, _NETWORK_HEADER, at, size)),
            _expression("payload", _payload(ports, _TRANSPORT_HEADER, 0, 4)),
            _expression("lookup", _text(1, "flows6" if six else "flows4") + _number(2, _REG32_00)),
            _expression("immediate", _number(1, _REG_VERDICT) + _nest(2, _nest(2, _number(1, _DROP)))),
        )
    )


def _meta_is(key: int, value: int) -> bytes:
    """Load one byte of what is known about a packet, and go on if it is ``value``."""
    compare = _number(1, _REG_1) + _number(2, 0) + _nest(3, _attribute(1, bytes([value])))
    return _expression("meta", _number(1, _REG_1) + _number(2, key)) + _expression("cmp", compare)


def _payload(register: int, base: int, offset: int, length: int) -> bytes:
    return _number(1, register) + _number(2, base) + _number(3, offset) + _number(4, length)


def _expression(name: str, content: bytes) -> bytes:
    return _nest(1, _text(1, name) + _nest(2, content))


def _attribute(kind: int, value: bytes) -> bytes:
    return _nlattr.pack(_nlattr.size + len(value), kind) + value + bytes(-len(value) % 4)


def _nest(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!I", value))


def _signed(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!i", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
